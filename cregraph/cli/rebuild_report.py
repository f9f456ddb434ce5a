"""`cregraph build --rebuild`: build again under other circumstances and report what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cregraph.build.rebuild_comparison import Compared, Difference
from cregraph.cli.remote_cache_use import RemoteCacheUse
from cregraph.cli.terminal_output import counted, result, talk
from cregraph.session.second_build import build_again
from cregraph.session.session import Session

__all__ = ["rebuild_and_compare"]

_PROGRAM = "cregraph.cli.rebuild_process"
_SHOWN = 12  # findings of one difference that are listed


def rebuild_and_compare(session: Session, caches: RemoteCacheUse, *, json: bool) -> dict[str, Any]:
    """Make the image again and compare. Return the answer for `--json`.

    Only results that are equal are recorded next to the lock and given to the remote cache. With `json`, differences are not
    printed.
    """

    def announce(circumstances: dict[str, str]) -> None:
        talk("building everything again: " + ", ".join(f"{name} {value}" for name, value in circumstances.items()))

    caches.take_disputed()
    compared, circumstances = build_again(session, program=_PROGRAM, on_start=announce)
    if not json or not compared.differences:
        _say(compared)
    if not compared.differences:
        session.write_outputs()
        caches.give()
    return _answer(compared, circumstances)


def _say(compared: Compared) -> None:
    counts = compared.counts
    what = (
        f"{counted(counts['tasks'], 'task')}, {counted(counts['segments'], 'segment')}, {counted(counts['layers'], 'layer')} "
        "and the image"
    )
    if not compared.differences:
        talk(f"built again, and equal to the byte: {what}")
        return
    for difference in compared.differences:
        for line in _lines(difference):
            result(line)


def _lines(difference: Difference) -> Iterator[str]:
    where = f" (stage {difference.stage})" if difference.stage else ""
    one, two = (text if ":" in text else f"sha256:{text}" for text in (difference.one, difference.two))
    if difference.what == "recorded":
        yield f"task {difference.name}{where}: the outputs of the lock record {one}, and this store has {two}"
    else:
        yield f"{difference.what} {difference.name}{where}: {one} first, {two} in the second build"
    if difference.because:
        yield f"  caused by other differences: {', '.join(difference.because)}"
    cured = set()
    for finding in difference.findings[:_SHOWN]:
        yield f"  {finding.path}{': ' + finding.inside if finding.inside else ''}"
        yield f"    {finding.cause}: {finding.one or '(nothing)'} and {finding.two or '(nothing)'}"
        if finding.cause not in cured:
            yield f"    {finding.cure}"
            cured.add(finding.cause)
    if len(difference.findings) > _SHOWN:
        yield f"  and {len(difference.findings) - _SHOWN} more"
    if difference.what in ("segment", "layer"):
        yield "  this is a bug in cregraph, because no task made it. Report it with these lines"
    if difference.kept:
        yield f"  both results: {difference.kept}"


def _answer(compared: Compared, circumstances: dict[str, str]) -> dict[str, Any]:
    return {
        "equal": not compared.differences,
        "circumstances": circumstances,
        "compared": compared.counts,
        "differences": [
            {
                "what": each.what,
                "name": each.name,
                "key": each.key,
                "stage": each.stage or None,
                "first": each.one,
                "again": each.two,
                "because": list(each.because),
                "kept": str(each.kept) if each.kept else None,
                "findings": [
                    {
                        "file": finding.path,
                        "inside": finding.inside or None,
                        "cause": finding.cause,
                        "first": finding.one,
                        "again": finding.two,
                        "cure": finding.cure,
                    }
                    for finding in each.findings
                ],
            }
            for each in compared.differences
        ],
    }
