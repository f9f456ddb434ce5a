"""Reader of the small, bounded part of YAML 1.2 that profiles and recipes use, each value with the place that states it.

Differences from YAML, and why:

- Only `true` and `false` are booleans; `yes`, `no`, `on`, `off` are text, and so are dates (`2025-06-01`) and `1_000`
  (YAML 1.2.2, 10.3.2, the core schema; octal and hexadecimal numbers stay text).
- Numbers keep how they were written, so that `r_version: 4.50` can be refused instead of being read as 4.5.
- A key is text and stated once. Anchors, aliases, merge keys and tags are refused: with them a small file can ask for gigabytes.
- At most 1,048,576 characters, 50 levels, 100,000 nodes, 256 characters a key.

A refusal is a `CregraphError` that names file and line. Pure: takes text.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import cast

import yaml

from cregraph.errors import CregraphError
from cregraph.profile.stated import Place, Problem, Stated, refuse, shown

__all__ = ["read_yaml"]

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_KEY = 256

#: Where PyYAML's two parsers do not agree: beyond ASCII, at `?`, at a comment that touches `|` or `>`, at `---` and `...`.
_UNSURE = re.compile(r"[^\n\x20-\x7e]|\?|[|>][-+0-9]*#|^(?:---|\.\.\.)", re.MULTILINE)
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NOTHING = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read_yaml(text: str, *, file: str) -> Stated:
    """Return the tree that `text` states. The value of an empty file is None.

    Raises:
        CregraphError: The text is not YAML, is outside the part that this module reads, or states a key twice.
    """
    if len(text) > MAX_CHARACTERS:
        raise CregraphError(f"{file}: {len(text)} characters (expected at most {MAX_CHARACTERS})")
    problems: list[Problem] = []
    try:
        top = _tree(text, file, problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = shown(error.problem or error.context or "it cannot be read")
        raise CregraphError(f"{file}:{line}: invalid YAML: {said} (column {column})", _syntax_hint(said)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise CregraphError(f"{file}:{line}: invalid YAML: a character that YAML does not allow") from None
    except (yaml.YAMLError, ValueError, OverflowError):  # such as "\\UFFFFFFFF", which PyYAML hands to chr()
        raise CregraphError(f"{file}: invalid YAML: an escape or a number is out of range") from None
    refuse(problems)
    return top


def _tree(text: str, file: str, problems: list[Problem]) -> Stated:
    """The tree, from the C parser if there is one: it is ten times as fast. Text that it refuses is left to the other parser,
    whose messages are shown. It does not get text that it may accept and the other refuses.
    """
    if not _UNSURE.search(text):
        with contextlib.suppress(AttributeError, yaml.YAMLError, ValueError):
            return _Builder(file, problems).build(yaml.parse(text, Loader=yaml.CSafeLoader))
    problems.clear()
    return _Builder(file, problems).build(yaml.parse(text, Loader=yaml.SafeLoader))


def _syntax_hint(said: str) -> str | None:
    if "cannot start any token" in said:
        return "quote the text that begins with this character"
    if "mapping values are not allowed" in said:
        return "quote a text that contains `: `"
    return None


_Value = bool | int | float | str | list[Stated] | dict[str, Stated] | None


class _Builder:
    """Events to a tree, without recursion."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.nodes = 0
        self.open: list[Stated] = []
        self.keys: list[tuple[str, int] | None] = []  # for each open node the key, with its line, that waits for its value
        self.top: Stated | None = None

    def build(self, events: Iterator[yaml.Event]) -> Stated:
        documents = 0
        for event in events:
            line = cast(yaml.Mark, event.start_mark).line + 1  # the C parser has a class of its own, with the same fields
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.refused(line, "a second document begins here (expected one)")
            elif isinstance(event, yaml.AliasEvent):
                text = f"`*{shown(event.anchor or '')}` is an alias, and aliases are not allowed"
                raise self.refused(line, text, "write the value out, or quote a text that begins with `*`")
            elif isinstance(event, yaml.NodeEvent):
                self.check(event, line)
                if self.open and self.open[-1].is_mapping and self.keys[-1] is None:
                    self.keys[-1] = self.key(event, line, self.open[-1])
                else:
                    self.node(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.open.pop()
                self.keys.pop()
        return self.top or Stated(value=None, place=Place(file=self.file, line=1))

    def refused(self, line: int, text: str, hint: str | None = None) -> CregraphError:
        return CregraphError(f"{self.file}:{line}: {text}", hint)

    def check(self, event: yaml.NodeEvent, line: int) -> None:
        """Refuse anchors, tags and too many values."""
        hint = "remove it, or quote a text that begins with `{}`"
        if event.anchor is not None:
            text = f"`&{shown(event.anchor)}` is an anchor, and anchors are not allowed"
            raise self.refused(line, text, hint.format("&"))
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self.refused(line, f"the tag `{shown(tag)}` is not read", hint.format("!"))
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.refused(line, f"more than {MAX_NODES} values in one file")

    def node(self, event: yaml.NodeEvent, line: int) -> None:
        """Add a value to the node that is open. The line of a field is that of its key."""
        up = self.open[-1] if self.open else None
        key: str | int = len(up.items) if up is not None else ""
        if self.keys and self.keys[-1] is not None:
            key, line = self.keys[-1]
            self.keys[-1] = None
        value, raw = self.value(event, line)
        node = Stated(value=value, place=Place(file=self.file, line=line, up=up.place if up else None, key=key), raw=raw)
        if up is None:
            self.top = node
        elif isinstance(up.value, dict):
            up.value.setdefault(key, node)  # a key stated twice is refused at the end; the first stands until then
        else:
            assert isinstance(up.value, list)
            up.value.append(node)
        if not isinstance(event, yaml.ScalarEvent):
            if len(self.open) >= MAX_DEPTH:
                raise self.refused(line, f"more than {MAX_DEPTH} levels deep")
            self.open.append(node)
            self.keys.append(None)

    def key(self, event: yaml.NodeEvent, line: int, up: Stated) -> tuple[str, int]:
        if not isinstance(event, yaml.ScalarEvent):
            hint = "write a reference as $(name), or quote a text that begins with `{` or `[`"
            raise self.refused(line, "a key must be a text, not a list or mapping", hint)
        value, raw = self.value(event, line)
        if not isinstance(value, str):
            what = Stated(value=value, place=up.place, raw=raw).what
            raise self.refused(line, f"a key must be a text, not {what}", f'write "{shown(raw)}":')
        if len(value) > MAX_KEY:
            raise self.refused(line, f"a key of more than {MAX_KEY} characters")
        first = up.fields.get(value)
        if first is not None:
            again = Stated(value=None, place=Place(file=self.file, line=line, up=up.place, key=value))
            self.problems.append(again.problem(f"stated twice; the first is on line {first.place.line}"))
        return value, line

    def value(self, event: yaml.NodeEvent, line: int) -> tuple[_Value, str]:
        if isinstance(event, yaml.SequenceStartEvent):
            return [], ""
        if not isinstance(event, yaml.ScalarEvent):
            return {}, ""
        text: str = event.value
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise self.refused(line, "a text contains NUL or an unpaired surrogate")
        if event.style:
            return text, text
        if text in _NOTHING:
            return None, text
        if text in _BOOLEANS:
            return _BOOLEANS[text], text
        if _INT.fullmatch(text):
            return (int(text) if len(text) <= 18 else float("inf")), text  # only ever refused, by what was written
        if _FLOAT.fullmatch(text):
            return float(text.replace(".", "") if text[-1] in "fFnN" else text), text  # Python writes inf and nan without a dot
        return text, text
