"""The types of parameters, and reading a value of one.

| type | in YAML |
|---|---|
| text | a text of one line, not empty |
| texts | a list of such texts |
| path | `./x` or `x`: next to the file that states it; `/x`: a place in the image |
| boolean | true or false |
| choice | one of the names that the parameter lists; each carries a record |
| date | `2025-06-01` (ISO 8601, a calendar date) |
| conda-specs | a list of match specs: `r-fable=0.4.0` |
| r-packages | a list of `name`, `name==1.2.3`, `name>=1.2` |
| r-tarballs | a mapping from R package to https address or path |
| requirements | a list of requirements (PEP 508): `rpy2>=3.5,<4` |

`null` means none. For a list or mapping it means not stated, so that commenting out all items changes nothing. Paths are
resolved: `./examples/runtime.yaml` lies in the project, `standard:hook/x` next to the standard recipes.
"""

from __future__ import annotations

import datetime
import posixpath
import re
from collections.abc import Callable, Collection, Mapping

from cregraph.errors import CregraphError, did_you_mean
from cregraph.profile.package_texts import ADDRESS, is_r_name, r_package, r_tarball, requirement
from cregraph.profile.stated import BAD, Place, Problem, Stated, shown

__all__ = ["SINGLE", "TYPES", "beside", "read_value"]

TYPES = ("text", "texts", "path", "boolean", "choice", "date", "conda-specs", "r-packages", "r-tarballs", "requirements")
#: Types for which null means none. For the others it means not stated.
SINGLE = frozenset(("text", "path", "boolean", "choice", "date"))
_LISTS = frozenset(("texts", "conda-specs", "r-packages", "requirements"))

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def beside(folder: str, text: str) -> str | None:
    """Return where `./text` next to a recipe in `folder` leads: `./recipes/x` or `standard:x`; None if it leaves `folder`."""
    if not text.startswith("./") or ".." in text.split("/"):
        return None
    standard = folder.startswith("standard:")
    inside = posixpath.normpath(posixpath.join(folder.removeprefix("standard:"), text))
    return f"standard:{inside}" if standard else f"./{inside}"


def read_value(
    node: Stated,
    kind: str,
    *,
    problems: list[Problem],
    choices: Collection[str] = (),
    default_at: Place | None = None,
    folder: str = "",
) -> Stated:
    """Return the value of a parameter of type `kind`, checked. Add a problem for an invalid value, which is then `bad`.

    With `default_at`, the value is a default in a recipe of `folder` and has that place; else a profile states it.
    """
    reader = _Reader(kind, problems, choices, folder, by_profile=default_at is None)
    return reader.read(node, default_at or node.place)


_Check = Callable[[str], tuple[str, str | None] | None]
_Checked = str | bool | tuple[Stated, ...] | Mapping[str, Stated] | None


class _Reader:
    def __init__(self, kind: str, problems: list[Problem], choices: Collection[str], folder: str, *, by_profile: bool) -> None:
        self.kind = kind
        self.problems = problems
        self.choices = choices
        self.folder = folder
        self.by_profile = by_profile

    def read(self, node: Stated, place: Place) -> Stated:
        if node.value is None:
            return self.good(None, place)
        if self.kind == "boolean":
            if not isinstance(node.value, bool):
                what = f"the text `{shown(node.value)}`" if isinstance(node.value, str) else node.what
                return self.wrong(node, f"expected true or false, not {what}", "write true or false")
            return self.good(node.value, place)
        if self.kind in _LISTS:
            if not node.is_list:
                hint = f"write [{shown(node.raw)}]" if isinstance(node.value, str) and node.value else None
                return self.wrong(node, f"expected a list, not {node.what}", hint)
            items = tuple(
                self.text(item, self.inside(item, place, index), _CHECKS.get(self.kind, _any))
                for index, item in enumerate(node.items)
            )
            return self.good(items, place, bad=any(item.bad for item in items))
        if self.kind == "r-tarballs":
            return self.tarballs(node, place)
        return self.text(node, place, _CHECKS.get(self.kind, self.choice if self.kind == "choice" else _any))

    def inside(self, node: Stated, place: Place, key: str | int) -> Place:
        """The place of a part: for a default below the place that the default is said to stand at."""
        return node.place if self.by_profile else Place(file=place.file, line=node.place.line, up=place, key=key)

    def text(self, node: Stated, place: Place, check: _Check) -> Stated:
        if node.is_number:
            self.problems.append(node.no_number())
            return BAD
        if not isinstance(node.value, str):
            hint = f'quote it: "{shown(node.raw)}"' if isinstance(node.value, bool) else None
            return self.wrong(node, f"expected a text, not {node.what}", hint)
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
        return self.path(node, place, text) if self.kind == "path" else self.good(text, place)

    def choice(self, text: str) -> tuple[str, str | None] | None:
        if text in self.choices:
            return None
        return f"unknown value `{shown(text)}` (expected {', '.join(self.choices)})", did_you_mean(text, self.choices)

    def tarballs(self, node: Stated, place: Place) -> Stated:
        if not node.is_mapping:
            return self.wrong(
                node,
                f"expected a mapping from R package to address or path, not {node.what}",
                "write `name: https://…`",
            )
        found: dict[str, Stated] = {}
        for name, item in node.fields.items():
            if not is_r_name(name):
                found[name] = self.wrong(item, f"`{shown(name)}` is not the name of an R package", None)
            elif item.value is not None:
                there = self.inside(item, place, name)
                value = self.text(item, there, lambda text: _told(r_tarball, text))
                is_path = isinstance(value.value, str) and not ADDRESS.match(value.value)
                found[name] = self.path(item, there, item.text) if is_path and not value.bad else value
        return self.good(found, place, bad=any(item.bad for item in found.values()))

    def path(self, node: Stated, place: Place, text: str) -> Stated:
        if text.startswith("/"):
            if posixpath.normpath(text) != text:
                return self.wrong(
                    node, f"`{shown(text)}` is not in its shortest form", f"write {shown(posixpath.normpath(text))}"
                )
            return self.good(text, place)
        if not self.by_profile:
            found = beside(self.folder, text)
            if found is None:
                return self.wrong(node, f"`{shown(text)}` is not a path below the folder of the recipe", "write ./file")
            return self.good(found, place)
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(node.place.file), text))
        if inside.startswith("/") or inside.split("/")[0] == "..":
            return self.wrong(node, f"`{shown(text)}` leads out of the project", "move the file into the project")
        return self.good(f"./{inside}", place)

    def good(self, value: _Checked, place: Place, *, bad: bool = False) -> Stated:
        return Stated(value=value, place=place, by_profile=self.by_profile, bad=bad)

    def wrong(self, node: Stated, text: str, hint: str | None) -> Stated:
        self.problems.append(node.problem(text, hint))
        return BAD


def _any(text: str) -> tuple[str, str | None] | None:
    return None


def _date(text: str) -> tuple[str, str | None] | None:
    try:
        if _DATE.fullmatch(text):
            datetime.date.fromisoformat(text)
            return None
    except ValueError:
        pass
    return f"`{shown(text)}` is not a date", "write year, month and day: 2025-06-01"


def _told(check: Callable[[str], object], text: str) -> tuple[str, str | None] | None:
    try:
        check(text)
    except CregraphError as error:
        return error.message, error.hint
    return None


_CHECKS: Mapping[str, _Check] = {
    "date": _date,
    "r-packages": lambda text: _told(r_package, text),
    "requirements": lambda text: _told(requirement, text),
}
