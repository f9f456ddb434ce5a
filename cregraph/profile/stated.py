"""Values with the place that states them, and the problems of values that are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.text import printable

__all__ = ["BAD", "Place", "Problem", "Stated", "places", "plain", "refuse", "shown"]

MAX_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Place:
    """A field of a file. `line` counts from 1. `up` is the list or mapping around the field, `key` its index or name there."""

    file: str
    line: int
    up: Place | None = field(default=None, repr=False)
    key: str | int = ""

    @property
    def field(self) -> str:
        """Return the path from the top of the file, such as `extras.conda_r[0]`; empty for the whole file."""
        above = self.up.field if self.up is not None else ""
        if isinstance(self.key, int):
            return f"{above}[{self.key}]"
        return f"{above}.{self.key}" if above else self.key

    def __str__(self) -> str:
        """Return the place as locks and messages write it: `recipes/r.yaml:12: params.packages`."""
        return f"{self.file}:{self.line}: {self.field}"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stated:
    """A value and the place that states it.

    As read from a file, `value` is None, a boolean, a number, a text, a list of Stated or a mapping from text to Stated, and
    `raw` is a scalar as it was written. In a checked value there are no numbers.

    `by_profile`: a profile states it; it is not a recipe's default. `late`: a reference to a fact of the base, which stays as
    written. `bad`: the value was refused and is not to be used, so that one mistake gives one message.
    """

    value: bool | int | float | str | Sequence[Stated] | Mapping[str, Stated] | None
    place: Place
    raw: str = ""
    by_profile: bool = False
    late: bool = False
    bad: bool = False

    @property
    def where(self) -> str:
        return str(self.place)

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list | tuple)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.value, Mapping)

    @property
    def is_number(self) -> bool:
        """Return whether YAML reads this as a number. No field of cregraph takes one."""
        return isinstance(self.value, int | float) and not isinstance(self.value, bool)

    @property
    def items(self) -> Sequence[Stated]:
        """Return the items of a list; nothing for any other value."""
        return self.value if isinstance(self.value, list | tuple) else ()

    @property
    def fields(self) -> Mapping[str, Stated]:
        """Return the fields of a mapping; nothing for any other value."""
        return self.value if isinstance(self.value, Mapping) else {}

    @property
    def text(self) -> str:
        """Return the text; of any other value how it was written."""
        return self.value if isinstance(self.value, str) else self.raw

    @property
    def what(self) -> str:
        """Return what this is, for messages: `a list`, `the number 4.50`, `nothing`."""
        if self.value is None:
            return "nothing"
        if isinstance(self.value, bool):
            return f"the boolean {self.raw}"
        if isinstance(self.value, int | float):
            return f"the number {shown(self.raw)}"
        if isinstance(self.value, str):
            return "a text"
        return "a mapping" if self.is_mapping else "a list"

    def problem(self, text: str, hint: str | None = None, *, field: str | None = None) -> Problem:
        """Return what is wrong with this value."""
        place = self.place
        return Problem(file=place.file, line=place.line, field=place.field if field is None else field, text=text, hint=hint)

    def no_number(self) -> Problem:
        """Return what to say of a number: nothing in a profile or recipe is one."""
        raw = shown(self.raw)
        return self.problem(f"expected a text, but YAML reads {raw} as a number", f'quote it: "{raw}"')


#: A value that was refused.
BAD = Stated(value=None, place=Place(file="", line=0), bad=True)


def plain(value: Stated) -> Json:
    """Return a checked value as JSON. Raises ValueError if a part of it was refused."""
    if value.bad:
        raise ValueError("a refused value was used")
    if value.is_list:
        return [plain(item) for item in value.items]
    return {key: plain(item) for key, item in value.fields.items()} if value.is_mapping else value.value


def places(value: Stated, path: str) -> dict[str, str]:
    """Return, for `path` and everything below it (`specs[3]`, `packages.snowflakeR`), the place that states it."""
    found = {path: value.where}
    for index, item in enumerate(value.items):
        found |= places(item, f"{path}[{index}]")
    for key, item in value.fields.items():
        found |= places(item, f"{path}.{key}" if path else key)
    return found


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
        return f"{self.file}:{self.line}:{field} {self.text}"


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one CregraphError that holds all problems, one per line, by file and line. Do nothing without problems.

    The hint of a single problem is the error's. Of several, each stands in brackets on its own line.
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
    """Return `text` fit for a message: one line, at most 120 characters, nothing that moves a terminal's cursor."""
    return printable(text, 120)
