"""The likely cause of a difference between two texts or two byte strings.

Only the form counts: something that reads as a time in both is a time. If several causes fit, the more specific one wins, such
as a time before a random number.
"""

from __future__ import annotations

import datetime
import itertools
import re
import struct
from collections.abc import Iterator

from cregraph.build.compare.finding import Cause, Finding, shown

__all__ = ["compare_bytes", "compare_texts", "moment", "times_in", "word_cause"]

_RUNS = 40  # differing runs of bytes that are looked at
_LINES = 20
_BLOCK = 1 << 20
_FIRST, _LAST = 946684800, 4102444800  # 2000 and 2100, in seconds
_APART = 400 * 86400  # the most seconds between two builds that are compared
_NEAR = 3 * 86400

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_TIME = re.compile(
    rf"""\b(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])\b   # 2026-05-29
    | \b{_MONTH}\.?\s+\d{{1,2}},?\s+(?:\d\d:\d\d(?::\d\d)?\s+)?(?:[A-Z]+\s+)?(?:19|20)\d\d\b
    | \b\d{{1,2}}[\s-]{_MONTH}[\s-](?:19|20)\d\d\b
    | \b\d\d:\d\d:\d\d\b
    | (?<!\d)(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[T_-]?\d{{4,6}}Z?)?\b
    | (?<!\d)1[0-9]{{9}}(?:\.\d+|\d{{3}}|\d{{6}})?\b""",
    re.VERBOSE,
)
_PATH = re.compile(r"/?(?:[\w.+-]*/)+[\w.+-]+|\b(?:Rtmp|tmp|build-|pip-)[\w.-]{4,}", re.ASCII)
_TEMPORARY = re.compile(r"/(?:tmp|var/tmp|var/folders|dev/shm|cregraph/build|private)/|Rtmp\w{6}|\btmp\w{6,}|/T/", re.ASCII)
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_HEX = re.compile(r"\b[0-9a-f]{8,}\b", re.IGNORECASE)
_WORD = re.compile(r"[^\s\"'()\[\]{}<>,;=]+")
_RUN = re.compile(rb"[^\0]+(?:\0{1,8}[^\0]+)*")  # bytes that are not equal, over at most eight that are
_STRING = re.compile(rb"[\x20-\x7e]{4,}")


def compare_texts(path: str, one: str, two: str) -> list[Finding]:
    """Return how two texts differ, at most one finding per cause."""
    first, second = one.splitlines(), two.splitlines()
    if first != second and sorted(first) == sorted(second):
        place = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
        return [_finding(path, "order", f"line {place + 1}", first[place], second[place])]
    found: dict[Cause, Finding] = {}
    if len(first) == len(second):
        for number, (a, b) in enumerate(zip(first, second, strict=True)):
            if a != b and len(found) < _LINES:
                cause, mine, theirs = _line(a, b)
                found.setdefault(cause, _finding(path, cause, f"line {number + 1}", mine, theirs))
    elif first != second:
        a, b = min(set(first) - set(second), default=""), min(set(second) - set(first), default="")
        cause, a, b = _line(a, b)
        found[cause] = _finding(path, cause, f"{len(first)} and {len(second)} lines", a, b)
    return list(found.values()) or [_finding(path, "unknown", "line ends", repr(one[-20:]), repr(two[-20:]))]


def word_cause(one: str, two: str) -> Cause:
    """Return the likely cause of a difference between two words or short texts."""
    if _same_but(_TIME, one, two):
        return "time"
    if _same_but(_UUID, one, two):
        return "random"
    if _TEMPORARY.search(one) and _TEMPORARY.search(two) and _PATH.search(one) and _PATH.search(two):
        return "path"
    if one.count("/") >= 2 and two.count("/") >= 2 and _same_but(_PATH, one, two):
        return "path"
    words = [sorted(_WORD.findall(text)) for text in (one, two)]
    if words[0] == words[1] and one != two:
        return "order"
    if _same_but(_HEX, one, two) or _same_but(_NUMBER, one, two):
        return "random"
    return "unknown"


def compare_bytes(path: str, one: bytes, two: bytes, *, inside: str = "") -> list[Finding]:
    """Return how two byte strings differ, at most one finding per cause. Times and texts in them are compared as such."""
    if len(one) == len(two) and len(one) % 16 == 0 and one != two and _blocks(one) == _blocks(two):
        return [_finding(path, "order", inside, "blocks of 16 bytes", "the same blocks")]
    found: dict[Cause, Finding] = {}
    mine, theirs = _strings(one), _strings(two)
    for a, b in zip(sorted(mine - theirs), sorted(theirs - mine), strict=False):
        cause = word_cause(a, b)
        if cause != "unknown":
            found.setdefault(cause, _finding(path, cause, inside, a, b))
    for start, *times in times_in(one, two) if len(one) == len(two) else ():
        found.setdefault("time", _finding(path, "time", f"{inside} byte {start}".strip(), *times))
    if not found:
        at = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
        where = f"{inside} byte {at}".strip()
        found["unknown"] = _finding(path, "unknown", where, one[at : at + 16].hex(" "), two[at : at + 16].hex(" "))
    return list(found.values())


def times_in(one: bytes, two: bytes, *, days: bool = False) -> Iterator[tuple[int, str, str]]:
    """Yield the offset and both readings of each number that differs and is a time in both.

    `one` and `two` have the same length. With `days`, big-endian doubles may also count days since 1970, as R's class Date does.
    """
    for start, end in itertools.islice(_runs(one, two), _RUNS):
        for mine, theirs in itertools.islice(_times(one, two, start, end, days=days), 1):
            yield start, mine, theirs


def moment(seconds: float) -> str:
    """Return seconds since 1970 as a date and time in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _line(one: str, two: str) -> tuple[Cause, str, str]:
    cause = word_cause(one, two)
    start = 0
    while start < min(len(one), len(two)) and one[start] == two[start]:
        start += 1
    start = max(start - 20, 0)
    return cause, one[start:], two[start:]


def _same_but(pattern: re.Pattern[str], one: str, two: str) -> bool:
    """Return whether two texts differ in matches of `pattern` only."""
    mine, theirs = pattern.findall(one), pattern.findall(two)
    return bool(mine) and bool(theirs) and mine != theirs and pattern.sub("\0", one) == pattern.sub("\0", two)


def _blocks(data: bytes) -> list[bytes]:
    return sorted(data[i : i + 16] for i in range(0, min(len(data), 1 << 20), 16))


def _strings(data: bytes) -> set[str]:
    return {found.group().decode("ascii") for found in _STRING.finditer(data[: 64 << 20])}


def _runs(one: bytes, two: bytes) -> Iterator[tuple[int, int]]:
    """Yield the ranges in which two byte strings of one length differ. Ranges a few bytes apart count as one."""
    for start in range(0, len(one), _BLOCK):
        mine, theirs = one[start : start + _BLOCK], two[start : start + _BLOCK]
        if mine != theirs:
            differing = (int.from_bytes(mine) ^ int.from_bytes(theirs)).to_bytes(len(mine))
            yield from ((start + found.start(), start + found.end()) for found in _RUN.finditer(differing))


def _times(one: bytes, two: bytes, start: int, end: int, *, days: bool) -> Iterator[tuple[str, str]]:
    """Yield both readings of numbers that cover a differing range and are times: doubles and integers, either byte order."""
    if end - start > 8:
        return
    for form, width in ((">d", 8), ("<d", 8), (">q", 8), ("<q", 8), (">I", 4), ("<I", 4)):
        for at in range(max(end - width, 0), min(start, len(one) - width) + 1):
            (a,), (b,) = struct.unpack_from(form, one, at), struct.unpack_from(form, two, at)
            if days and form == ">d" and all(10957 <= x <= 47482 and x == int(x) for x in (a, b)):
                yield moment(a * 86400), moment(b * 86400)
            near = abs(a - b) < _APART if width == 8 else abs(a - b) < _NEAR and end - start <= 3
            if near and all(_FIRST <= x <= _LAST for x in (a, b)):
                yield moment(a), moment(b)


def _finding(path: str, cause: Cause, inside: str, one: str, two: str) -> Finding:
    return Finding(path=path, cause=cause, inside=inside, one=shown(one), two=shown(two))
