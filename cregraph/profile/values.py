"""The types of parameters, and values that remember which line stated them.

| type | in YAML |
|---|---|
| text | a text of one line, not empty |
| texts | a list of such texts |
| path | `./x` or `x`: beside the file that states it; `/x`: a place in the image |
| boolean | true or false |
| choice | one of the names that the parameter lists; each carries a record |
| date | `2025-06-01` (ISO 8601, a calendar date) |
| conda-specs | a list of match specs: `r-fable=0.4.0` |
| r-packages | a list of `name`, `name==1.2.3`, `name>=1.2` |
| r-tarballs | a mapping from R package to https address or path |
| requirements | a list of requirements (PEP 508): `rpy2>=3.5,<4` |

`null` says: none; of a list or mapping: as if not stated, so that commenting out all items changes nothing. Paths become
such as all can find: `./examples/runtime.yaml` lies in the project, `standard:hook/x` beside the standard recipes.
"""

from __future__ import annotations

import datetime
import posixpath
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from cregraph.digest import Json
from cregraph.errors import CregraphError, nearest
from cregraph.profile.yaml_marks import Marked, Problem, shown

__all__ = [
    *("BAD", "SINGLE", "TYPES", "Sourced", "beside", "no_number", "places", "plain", "read_value"),
    *("is_r_name", "is_r_version", "plain_requirement", "r_package", "r_tarball"),
]

TYPES = ("text", "texts", "path", "boolean", "choice", "date", "conda-specs", "r-packages", "r-tarballs", "requirements")
#: Types of which null says: none. Of the others it says: as if not stated.
SINGLE = frozenset(("text", "path", "boolean", "choice", "date"))
_LISTS = frozenset(("texts", "conda-specs", "r-packages", "requirements"))

# "Writing R Extensions", 1.1.1: a name has two characters or more, a version two numbers or more.
_R_NAME = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,98}[A-Za-z0-9]")
_R_VERSION = re.compile(r"[0-9]+(?:[.-][0-9]+)+")
_R_PACKAGE = re.compile(rf"({_R_NAME.pattern})(?: *(==|>=) *({_R_VERSION.pattern}))?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sourced:
    """A checked value and the line that stated it (`my_team.yaml:20: extras.conda_r[0]`).

    `stated` is whether a profile stated it, not a default; `late` marks a reference to a fact of the base, which stays as
    written; `bad` a value that was refused, so that one mistake gives one message.
    """

    value: str | bool | tuple[Sourced, ...] | Mapping[str, Sourced] | None
    where: str
    stated: bool = False
    late: bool = False
    bad: bool = False


BAD = Sourced(value=None, where="", bad=True)


def plain(value: Sourced) -> Json:
    """The value alone. A refused part raises ValueError."""
    if value.bad:
        raise ValueError("a refused value was used")
    if isinstance(value.value, tuple):
        return [plain(item) for item in value.value]
    if isinstance(value.value, Mapping):
        return {key: plain(item) for key, item in value.value.items()}
    return value.value


def places(value: Sourced, path: str) -> dict[str, str]:
    """For `path` and everything below it (`specs[3]`, `packages.snowflakeR`) the line that stated it."""
    found = {path: value.where}
    if isinstance(value.value, tuple):
        for index, item in enumerate(value.value):
            found |= places(item, f"{path}[{index}]")
    elif isinstance(value.value, Mapping):
        for key, item in value.value.items():
            found |= places(item, f"{path}.{key}" if path else key)
    return found


def no_number(node: Marked) -> Problem:
    """What to say of a number, wherever it stands: nothing in a profile or recipe is one."""
    return node.problem(f"a text is needed here, and YAML reads {shown(node.raw)} as a number", f'quote it: "{shown(node.raw)}"')


def beside(folder: str, text: str) -> str | None:
    """Where `./text` beside a recipe in `folder` leads: `./recipes/x` in the project, `standard:x`; None when out of `folder`."""
    if not text.startswith("./") or ".." in text.split("/"):
        return None
    standard = folder.startswith("standard:")
    inside = posixpath.normpath(posixpath.join(folder.removeprefix("standard:"), text))
    return f"standard:{inside}" if standard else f"./{inside}"


def read_value(
    node: Marked,
    kind: str,
    *,
    problems: list[Problem],
    choices: Collection[str] = (),
    top: Marked | None = None,
    name: str = "",
    folder: str = "",
) -> Sourced:
    """The value of a parameter of type `kind`, checked; what is wrong is added to `problems`, and the value is then `bad`.

    With `top` the value is the default of the parameter `name` in a recipe of `folder`, else it is a field of a profile.
    """
    return _Reader(kind=kind, problems=problems, choices=choices, top=top, name=name, folder=folder).read(node)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reader:
    kind: str
    problems: list[Problem]
    choices: Collection[str]
    top: Marked | None
    name: str
    folder: str

    def read(self, node: Marked) -> Sourced:
        if node.value is None:
            return self.good(node, None)
        if self.kind == "boolean":
            if not isinstance(node.value, bool):
                return self.wrong(node, f"true or false is needed here, and this is {self.said(node)}", "write true or false")
            return self.good(node, node.value)
        if self.kind in _LISTS:
            if not node.is_list:
                return self.wrong(node, f"a list is needed here, and this is {node.what}", self.as_list(node))
            items = tuple(self.text(item, _CHECKS[self.kind]) for item in node.items)
            return self.good(node, items, bad=any(item.bad for item in items))
        if self.kind == "r-tarballs":
            return self.tarballs(node)
        return self.text(node, _CHECKS.get(self.kind, self.choice if self.kind == "choice" else _any))

    def text(self, node: Marked, check: Callable[[str], tuple[str, str | None] | None]) -> Sourced:
        if node.is_number:
            self.problems.append(no_number(node))
            return BAD
        if not isinstance(node.value, str):
            return self.wrong(node, f"a text is needed here, and this is {self.said(node)}", _as_text(node))
        text = node.value
        if not text.strip() or text != text.strip():
            return self.wrong(node, "an empty text" if not text.strip() else "white space before or after the text", None)
        if any(not c.isprintable() for c in text):
            return self.wrong(node, "a line break or control character in a text of one line", None)
        if "$(" in text:
            return self.wrong(node, f"`{shown(text)}`: references are for a recipe's steps, gives, env and checks", None)
        found = check(text)
        if found is not None:
            return self.wrong(node, *found)
        return self.path(node, text) if self.kind == "path" else self.good(node, text)

    def choice(self, text: str) -> tuple[str, str | None] | None:
        if text in self.choices:
            return None
        near = nearest(text, self.choices)
        return f"`{shown(text)}` is none of {', '.join(self.choices)}", f"did you mean `{near}`?" if near else None

    def tarballs(self, node: Marked) -> Sourced:
        if not node.is_mapping:
            return self.wrong(
                node,
                f"a mapping from R package to address or path is needed here, and this is {node.what}",
                "write `name: https://…`",
            )
        found: dict[str, Sourced] = {}
        for name, item in node.fields.items():
            if not is_r_name(name):
                found[name] = self.wrong(item, f"`{shown(name)}` is no name of an R package", None)
            elif item.value is not None:
                value = self.text(item, lambda text: _told(r_tarball, text))
                is_path = isinstance(value.value, str) and not _ADDRESS.match(value.value)
                found[name] = self.path(item, item.text) if is_path and not value.bad else value
        return self.good(node, found, bad=any(item.bad for item in found.values()))

    def path(self, node: Marked, text: str) -> Sourced:
        if text.startswith("/"):
            if posixpath.normpath(text) != text:
                return self.wrong(
                    node, f"`{shown(text)}` is not in its shortest form", f"write {shown(posixpath.normpath(text))}"
                )
            return self.good(node, text)
        if self.top is not None:
            found = beside(self.folder, text)
            if found is None:
                return self.wrong(node, f"`{shown(text)}` does not lead to a file beside the recipe", "write ./file")
            return self.good(node, found)
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(node.file), text))
        if inside.startswith("/") or inside.split("/")[0] == "..":
            return self.wrong(
                node, f"`{shown(text)}` leads out of the project", "keep the file in the project, so that all see the same"
            )
        return self.good(node, f"./{inside}")

    def good(
        self, node: Marked, value: str | bool | tuple[Sourced, ...] | Mapping[str, Sourced] | None, *, bad: bool = False
    ) -> Sourced:
        field = node.below(self.top, self.name) if self.top is not None else node.field
        return Sourced(value=value, where=f"{node.file}:{node.line}: {field}", stated=self.top is None, bad=bad)

    def wrong(self, node: Marked, text: str, hint: str | None) -> Sourced:
        self.problems.append(node.problem(text, hint))
        return BAD

    def said(self, node: Marked) -> str:
        return f"the text `{shown(node.value)}`" if isinstance(node.value, str) else node.what

    def as_list(self, node: Marked) -> str | None:
        return f"write [{shown(node.raw)}]" if isinstance(node.value, str) and node.value else None


def _as_text(node: Marked) -> str | None:
    return f'quote it: "{shown(node.raw)}"' if isinstance(node.value, bool) else None


def _any(text: str) -> tuple[str, str | None] | None:
    return None


def _date(text: str) -> tuple[str, str | None] | None:
    try:
        if _DATE.fullmatch(text):
            datetime.date.fromisoformat(text)
            return None
    except ValueError:
        pass
    return f"`{shown(text)}` is no date", "write year, month and day: 2025-06-01"


def is_r_name(text: str) -> bool:
    """Whether `text` can be the name of an R package."""
    return _R_NAME.fullmatch(text) is not None


def is_r_version(text: str) -> bool:
    """Whether R accepts `text` as the version of a package."""
    return _R_VERSION.fullmatch(text) is not None


def r_package(text: str) -> tuple[str, str, str]:
    """Name, operator and version of an `r-packages` item; the last two are empty for a bare name.

    Raises CregraphError, without the place, for what is none.
    """
    found = _R_PACKAGE.fullmatch(text)
    if found is None:
        raise CregraphError(
            f"`{shown(text)}` is no R package with a version",
            hint="write name, name==1.2.3 or name>=1.2, with a version of two numbers or more; a tarball goes under `tarballs`",
        )
    return found[1], found[2] or "", found[3] or ""


def r_tarball(text: str) -> str:
    """An address on the web, or a path of the project, where a source tarball lies: `text`.

    Raises CregraphError, without the place, for what can be neither.
    """
    address = _ADDRESS.match(text)
    host = text[address.end() :].split("/")[0] if address else ""
    if "@" in host:
        raise CregraphError(
            "an address with a user or password in it would put them into the lock", hint="keep them where curl does: ~/.netrc"
        )
    if (address and not (host and text.startswith(("https://", "http://")))) or text.startswith("/"):
        raise CregraphError(
            f"`{shown(text)}` is neither an address that tarballs are fetched from nor a path of the project",
            hint="write https://…, or ./file for a file beside the profile: everyone who locks must find it",
        )
    return text


def _told(check: Callable[[str], object], text: str) -> tuple[str, str | None] | None:
    try:
        check(text)
    except CregraphError as error:
        return error.message, error.hint
    return None


_CLAUSE = r"(?:==|>=|<=|<|>|!=) ?[0-9]+(?:\.[0-9]+)*"
_PLAIN_REQUIREMENT = re.compile(rf"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?) ?({_CLAUSE}(?:, ?{_CLAUSE})*)?")


def plain_requirement(text: str) -> tuple[str, list[str]] | None:
    """Name and version clauses of a requirement in the form that nearly all have; None for any other, and for what is none.

    To read it so is quick; packaging, which reads all, takes longer to load than most commands to run.
    """
    found = _PLAIN_REQUIREMENT.fullmatch(text)
    if found is None:
        return None
    clauses = [part.replace(" ", "") for part in found[2].split(",")] if found[2] else []
    return (found[1], clauses) if len(set(clauses)) == len(clauses) else None


def _requirement(text: str) -> tuple[str, str | None] | None:
    if plain_requirement(text) is not None:
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement:
        return f"`{shown(text)}` is no requirement of Python (PEP 508)", "write name, name==1.2.3 or name>=1.2,<2"
    return None


_CHECKS: Mapping[str, Callable[[str], tuple[str, str | None] | None]] = {
    "texts": _any,
    "conda-specs": _any,
    "date": _date,
    "r-packages": lambda text: _told(r_package, text),
    "requirements": _requirement,
}
