"""The parameters of a recipe, and readers of the mappings in a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cregraph.errors import did_you_mean
from cregraph.profile.stated import Place, Problem, Stated, shown
from cregraph.profile.values import TYPES, read_value

__all__ = ["FIELD_NAME", "RESERVED", "Fields", "Param", "ParamReader"]

PARAM_KEYS = ("type", "default", "from", "required", "values", "about")
#: Names that mean something else at the top of a profile.
RESERVED = ("extends", "with", "without", "cre", "snowflake", "extras")
FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_PARAM_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MAX_NAMES = 100
#: Types whose default may refer to what a needed stage gives.
_REFERRING = ("text", "path")


@dataclass(frozen=True, kw_only=True, slots=True)
class Param:
    """A value that a profile passes to a recipe. It is read from the first of the profile's `fields` that is stated."""

    name: str
    type: str
    fields: tuple[str, ...]
    required: bool
    default: Stated | None
    values: Mapping[str, Mapping[str, Stated]]
    about: str


class Fields:
    """A reader of typed fields in mappings. It adds a problem for each invalid field to `problems`."""

    def __init__(self, problems: list[Problem] | None = None) -> None:
        self.problems: list[Problem] = [] if problems is None else problems

    def wrong(self, node: Stated, text: str, hint: str | None = None) -> None:
        self.problems.append(node.problem(text, hint))

    def known(self, node: Stated, names: Iterable[str], otherwise: str) -> None:
        names = tuple(names)
        for key, item in node.fields.items():
            if key not in names:
                self.wrong(item, otherwise.format(shown(key)), did_you_mean(key, names, f"it has {', '.join(names)}"))

    def text(self, node: Stated, key: str) -> str | None:
        item = node.fields.get(key)
        if item is None or item.value is None:
            return None
        if item.is_number:
            self.problems.append(item.no_number())
        elif not isinstance(item.value, str):
            self.wrong(item, f"expected a text, not {item.what}")
        else:
            return item.value
        return None

    def mapping(self, node: Stated, key: str) -> Mapping[str, Stated]:
        item = node.fields.get(key)
        if item is None or item.value is None:
            return {}
        if not item.is_mapping:
            self.wrong(item, f"expected a mapping, not {item.what}")
        if len(item.fields) > _MAX_NAMES:
            self.wrong(item, f"more than {_MAX_NAMES} names")
            return {}
        return item.fields

    def list(self, node: Stated, key: str) -> tuple[Stated, ...]:
        item = node.fields.get(key)
        if item is None or item.value is None:
            return ()
        if not item.is_list:
            self.wrong(item, f"expected a list, not {item.what}")
        return tuple(item.items)


class ParamReader(Fields):
    """A reader of the parameters of one recipe of `folder`."""

    def __init__(self, problems: list[Problem], *, recipe: str, folder: str) -> None:
        super().__init__(problems)
        self.recipe = recipe
        self.folder = folder

    def param(self, name: str, node: Stated) -> Param:
        if not _PARAM_NAME.fullmatch(name):
            self.wrong(node, f"invalid parameter name `{shown(name)}`", "use lower-case letters, digits and `_`, a letter first")
        if not node.is_mapping:
            self.wrong(node, f"a parameter must be a mapping, not {node.what}", "write {type: text, default: …}")
        self.known(node, PARAM_KEYS, "a parameter has no key `{}`")
        kind = self.type(node)
        values = self.values(node, kind)
        required = node.fields.get("required")
        if required is not None and required.value is not True:
            self.wrong(required, "expected `required: true`", "a parameter with a default cannot be required")
        default = node.fields.get("default")
        if node.is_mapping and (default is None) == (required is None):
            self.wrong(
                node,
                "a parameter needs either a default or `required: true`",
                "write `default: null` for a value that is not set",
            )
        checked = None
        if default is not None and kind in TYPES:
            place = Place(file=default.place.file, line=default.place.line, key=name)
            checked = Stated(value=default.value, place=place)
            if kind not in _REFERRING or "$(" not in default.text:
                choices = tuple(values)
                checked = read_value(default, kind, problems=self.problems, choices=choices, default_at=place, folder=self.folder)
        return Param(
            name=name,
            type=kind,
            fields=self.fields(node, f"{self.recipe}.{name}"),
            required=required is not None,
            default=checked,
            values=values,
            about=self.text(node, "about") or "",
        )

    def type(self, node: Stated) -> str:
        kind = self.text(node, "type") or ""
        if node.is_mapping and "type" not in node.fields:
            self.wrong(node, "the type is missing", f"write one of {', '.join(TYPES)}")
        elif kind and kind not in TYPES:
            hint = did_you_mean(kind, TYPES, f"write one of {', '.join(TYPES)}")
            self.wrong(node.fields["type"], f"unknown type `{shown(kind)}`", hint)
        return kind

    def fields(self, node: Stated, otherwise: str) -> tuple[str, ...]:
        stated = node.fields.get("from")
        if stated is None:
            return (otherwise,)
        for item in stated.items or (stated,):
            parts = item.value.split(".") if isinstance(item.value, str) else []
            if not 1 <= len(parts) <= 2 or not all(FIELD_NAME.fullmatch(p) for p in parts) or parts[0] in RESERVED[:3]:
                self.wrong(item, "expected a field of the profile", "write section.field, such as extras.cran")
        return tuple(item.text for item in stated.items or (stated,))

    def values(self, node: Stated, kind: str) -> Mapping[str, Mapping[str, Stated]]:
        stated = node.fields.get("values")
        if (stated is not None) != (kind == "choice"):
            self.wrong(stated or node, "only a choice has `values`", "write `type: choice` with `values: {NAME: {…}}`")
        if stated is None:
            return {}
        if not stated.is_mapping or not stated.fields:
            self.wrong(stated, f"expected a mapping from name to record, not {stated.what}")
        found: dict[str, Mapping[str, Stated]] = {}
        first: tuple[str, ...] | None = None
        for name, record in stated.fields.items():
            if record.value is not None and not record.is_mapping:
                self.wrong(record, f"a record must be a mapping, not {record.what}", "write {field: …}, or null for none")
            first = tuple(sorted(record.fields)) if first is None else first
            if tuple(sorted(record.fields)) != first:
                self.wrong(record, f"this record has other fields than the first, which has {', '.join(first) or 'none'}")
            found[name] = {key: self.record(item) for key, item in record.fields.items()}
        return found

    def record(self, node: Stated) -> Stated:
        if node.value is None:
            return Stated(value=None, place=node.place)
        kind = "boolean" if isinstance(node.value, bool) else "texts" if node.is_list else "text"
        return read_value(node, kind, problems=self.problems, default_at=node.place)
