"""YAML as profiles and recipes use it: a small, bounded part of YAML 1.2, each value with the line that states it.

What is different from YAML at large, and why:

- Only `true` and `false` are booleans; `yes`, `no`, `on`, `off` are text, and so are dates (`2025-06-01`) and `1_000`
  (YAML 1.2.2, 10.3.2, the core schema; octal and hexadecimal numbers stay text).
- Numbers are told from text, and keep how they were written, so that `r_version: 4.50` can be refused and not read as 4.5.
- A key is text, and stated once. Anchors, aliases, merge keys and tags are refused: a small file could ask for gigabytes.
- At most 1,048,576 characters, 50 levels, 100,000 nodes, 256 characters a key.

Everything refused is a `CregraphError` that names file and line. Pure: takes text, opens nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import yaml

from cregraph.errors import CregraphError
from cregraph.text import printable

__all__ = ["Marked", "Problem", "read_marks", "refuse", "shown"]

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_KEY = 256
MAX_PROBLEMS = 20

#: Where PyYAML's two parsers do not agree: beyond ASCII, at `?`, at a comment that touches `|` or `>`, at `---` and `...`.
_UNSURE = re.compile(r"[^\n\x20-\x7e]|\?|[|>][-+0-9]*#|^(?:---|\.\.\.)", re.MULTILINE)
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NOTHING = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Marked:
    """A value of a file and where it stands.

    `value` is None, a bool, an int, a float, a text, a sequence of Marked, or a mapping from text to Marked.
    `line` and `column` count from 1 and are those of the key for a field of a mapping, else of the value itself.
    `raw` is a scalar as it was written. `up` and `key` say what the value is a part of.
    """

    value: bool | int | float | str | Sequence[Marked] | Mapping[str, Marked] | None
    file: str
    line: int
    column: int = 1
    raw: str = ""
    up: Marked | None = field(default=None, repr=False)
    key: str | int = ""

    @property
    def field(self) -> str:
        """The way from the top of the file: `extras.conda_r[0]`; empty for the whole file."""
        return self.below(None, "")

    def below(self, top: Marked | None, name: str) -> str:
        """The way from `top`, which is called `name`: `packages[3]`."""
        parts: list[str | int] = []
        node: Marked = self
        while node is not top and node.up is not None:
            parts.append(node.key)
            node = node.up
        text = name
        for part in reversed(parts):
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text

    @property
    def where(self) -> str:
        """`recipes/r.yaml:12: params.packages`, as locks and messages write it."""
        return f"{self.file}:{self.line}: {self.field}"

    @property
    def is_list(self) -> bool:
        """Whether this is a sequence (a text is none)."""
        return isinstance(self.value, list | tuple)

    @property
    def is_mapping(self) -> bool:
        """Whether this is a mapping."""
        return isinstance(self.value, Mapping)

    @property
    def is_number(self) -> bool:
        """Whether YAML takes this for a number. No field of cregraph takes one."""
        return isinstance(self.value, int | float) and not isinstance(self.value, bool)

    @property
    def items(self) -> Sequence[Marked]:
        """The items of a sequence; of anything else none."""
        return self.value if isinstance(self.value, list | tuple) else ()

    @property
    def fields(self) -> Mapping[str, Marked]:
        """The fields of a mapping; of anything else none."""
        return self.value if isinstance(self.value, Mapping) else {}

    @property
    def text(self) -> str:
        """The text; of anything else how it was written."""
        return self.value if isinstance(self.value, str) else self.raw

    @property
    def what(self) -> str:
        """What this is, for messages: `a list`, `the number 4.50`, `nothing`."""
        if self.value is None:
            return "nothing"
        if isinstance(self.value, bool):
            return f"the boolean {self.raw}"
        if isinstance(self.value, int | float):
            return f"the number {shown(self.raw)}"
        if isinstance(self.value, str):
            return "a text"
        return "a mapping" if isinstance(self.value, Mapping) else "a list"

    def problem(self, text: str, hint: str | None = None, *, field: str | None = None) -> Problem:
        """What is wrong with this value."""
        return Problem(file=self.file, line=self.line, field=self.field if field is None else field, text=text, hint=hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong, for one line of a message."""

    file: str
    line: int
    field: str
    text: str
    hint: str | None = None

    def __str__(self) -> str:
        field = f" {shown(self.field)}:" if self.field else ""
        return f"`{self.file}`:{self.line}:{field} {self.text}"


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one CregraphError that holds all problems, a line each, by file and line; do nothing when there is none.

    The hint of a single problem is the error's; of several, each stands in brackets on its own line.
    """
    found = sorted(set(problems), key=lambda p: (p.file, p.line, p.field, p.text))
    if not found:
        return
    if len(found) == 1:
        raise CregraphError(str(found[0]), found[0].hint)
    lines = [f"{p} ({p.hint})" if p.hint else str(p) for p in found[:MAX_PROBLEMS]]
    if len(found) > MAX_PROBLEMS:
        lines.append(f"and {len(found) - MAX_PROBLEMS} more")
    raise CregraphError("\n".join(lines))


def shown(text: str) -> str:
    """`text` fit for a message: one line, nothing that moves a terminal's cursor, at most 120 characters."""
    return printable(text, 120)


def read_marks(text: str, *, file: str) -> Marked:
    """The tree that `text` states. An empty file is a Marked with the value None.

    Raises CregraphError for what is no YAML, for what this module does not read (see above), and for a key stated twice.
    """
    if len(text) > MAX_CHARACTERS:
        raise CregraphError(f"`{file}` has {len(text)} characters; profiles and recipes have at most {MAX_CHARACTERS}")
    problems: list[Problem] = []
    try:
        top = _tree(text, file, problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = shown(error.problem or error.context or "it cannot be read")
        raise CregraphError(f"`{file}`:{line}: not YAML: {said} (column {column})", _syntax_hint(said)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise CregraphError(f"`{file}`:{line}: not YAML: a character that YAML does not allow") from None
    except (yaml.YAMLError, ValueError, OverflowError):  # such as "\\UFFFFFFFF", which PyYAML hands to chr()
        raise CregraphError(f"`{file}` is not YAML: an escape or number in it is out of range") from None
    refuse(problems)
    return top


def _tree(text: str, file: str, problems: list[Problem]) -> Marked:
    """The tree, by the C parser where there is one: it is ten times as fast. What that does not take the other refuses, in its
    words; where it may take what the other does not, it is not asked.
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
        return "a text that holds `: ` must be quoted"
    return None


_Value = bool | int | float | str | list[Marked] | dict[str, Marked] | None


def _mark(event: yaml.Event) -> yaml.Mark:
    return cast(yaml.Mark, event.start_mark)  # the C parser has a class of its own, with the same fields


class _Builder:
    """Events to a tree, without recursion."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        self.nodes = 0
        self.open: list[Marked] = []
        self.keys: list[tuple[str, int, int] | None] = []  # for each open node the key that waits for its value
        self.top: Marked | None = None

    def build(self, events: Iterator[yaml.Event]) -> Marked:
        documents = 0
        for event in events:
            line = _mark(event).line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise CregraphError(f"`{self.file}`:{line}: a second document begins here; a file holds one")
            elif isinstance(event, yaml.AliasEvent):
                raise CregraphError(
                    f"`{self.file}`:{line}: `*{shown(event.anchor or '')}` is an alias, and aliases are not read",
                    "write the value out; a text that begins with `*` must be quoted",
                )
            elif isinstance(event, yaml.NodeEvent):
                self.node(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.open.pop()
                self.keys.pop()
        return self.top or Marked(value=None, file=self.file, line=1)

    def node(self, event: yaml.NodeEvent, line: int) -> None:
        column = _mark(event).column + 1
        if event.anchor is not None:
            raise CregraphError(
                f"`{self.file}`:{line}: `&{shown(event.anchor)}` is an anchor, and anchors are not read",
                "leave it out; a text that begins with `&` must be quoted",
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise CregraphError(
                f"`{self.file}`:{line}: the tag `{shown(tag)}` is not read",
                "leave it out; a text that begins with `!` must be quoted",
            )
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise CregraphError(f"`{self.file}`:{line}: more than {MAX_NODES} values in one file")
        up = self.open[-1] if self.open else None
        if up is not None and up.is_mapping and self.keys[-1] is None:
            self.keys[-1] = self.key(event, line, column, up)
            return
        key: str | int = ""
        if up is not None and up.is_mapping:
            waiting = self.keys[-1]
            assert waiting is not None
            key, line, column = waiting
            self.keys[-1] = None
        elif up is not None:
            key = len(up.items)
        value, raw = self.value(event, line)
        node = Marked(value=value, file=self.file, line=line, column=column, raw=raw, up=up, key=key)
        if up is None:
            self.top = node
        elif isinstance(up.value, dict):
            up.value.setdefault(key, node)  # a key stated twice is refused at the end; the first stands until then
        else:
            assert isinstance(up.value, list)
            up.value.append(node)
        if not isinstance(event, yaml.ScalarEvent):
            if len(self.open) >= MAX_DEPTH:
                raise CregraphError(f"`{self.file}`:{line}: more than {MAX_DEPTH} levels deep")
            self.open.append(node)
            self.keys.append(None)

    def key(self, event: yaml.NodeEvent, line: int, column: int, up: Marked) -> tuple[str, int, int]:
        if not isinstance(event, yaml.ScalarEvent):
            raise CregraphError(
                f"`{self.file}`:{line}: a key must be a text, not a list or mapping",
                "a reference is written $(name); a text that begins with `{` or `[` must be quoted",
            )
        value, raw = self.value(event, line)
        if not isinstance(value, str):
            what = Marked(value=value, file=self.file, line=line, raw=raw).what
            raise CregraphError(f"`{self.file}`:{line}: a key must be a text, and this is {what}", f'write "{shown(raw)}":')
        if len(value) > MAX_KEY:
            raise CregraphError(f"`{self.file}`:{line}: a key of more than {MAX_KEY} characters")
        first = up.fields.get(value)
        if first is not None:
            field = f"{up.field}.{value}" if up.field else value
            self.problems.append(
                Problem(file=self.file, line=line, field=field, text=f"stated twice; the first is on line {first.line}")
            )
        return value, line, column

    def value(self, event: yaml.NodeEvent, line: int) -> tuple[_Value, str]:
        if isinstance(event, yaml.SequenceStartEvent):
            return [], ""
        if not isinstance(event, yaml.ScalarEvent):
            return {}, ""
        text: str = event.value
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise CregraphError(f"`{self.file}`:{line}: a text that holds NUL or half of a surrogate pair")
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
