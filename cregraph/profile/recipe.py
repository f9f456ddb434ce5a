"""A recipe: a YAML file saying what a stage asks for and what it gives.

    recipe: cran                      its name: that of the file
    about: R packages from a dated snapshot of CRAN
    needs: [r]                        the stages that it stands on and may refer to
    params:                           what a profile may say
      packages: {type: r-packages, from: extras.cran, default: []}
    steps:                            what it asks for; each step is of one kind
      - r: {library: $(r.library), from: cran, packages: $(packages)}
    gives: {}                         what stages above may refer to
    env: {}                           variables of the image
    checks: []                        what `cregraph test` runs in the finished image

A parameter is read from the profile's field `<recipe>.<param>`, or from the field or fields that `from` names (the first
that is stated). It has either a `default` or `required: true`. `values` lists the types, `references` what
`$(…)` means. Pure: takes text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cregraph.errors import nearest
from cregraph.profile.references import references_in
from cregraph.profile.values import TYPES, Sourced, no_number, read_value
from cregraph.profile.yaml_marks import Marked, Problem, read_marks, refuse, shown

__all__ = ["CHECKS", "RESERVED", "Kinds", "Param", "Recipe", "StepText", "read_recipe"]

#: For each kind its fields: name to (type, required), as in `cregraph.kinds.base.Kind.FIELDS`.
Kinds = Mapping[str, Mapping[str, tuple[str, bool]]]

KEYS = ("recipe", "about", "needs", "params", "steps", "gives", "env", "checks")
PARAM_KEYS = ("type", "default", "from", "required", "values", "about")
#: What a check is written in: R, the notebook's Python, or cells of a kernel.
CHECKS = ("r", "python", "kernel")
#: Names that mean something else at the top of a profile.
RESERVED = ("extends", "with", "without", "cre", "snowflake", "extras")

#: Variables that no image may set, and why.
FORBIDDEN_ENV: Mapping[str, str] = {
    "PATH": "the base's own python and pip must stay first on it",
    "LD_LIBRARY_PATH": "every program of the base would load this image's libraries",
    "LD_PRELOAD": "every program of the base would load it",
    "R_HOME": "the kernel hook sets it, for the kernel's process only",
    "PYTHONPATH": "the base's Python would import other packages than its own",
    "PYTHONHOME": "the base's Python would no longer find its library",
    "HOME": "the base decides whose home a session has",
}

_RECIPE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_PARAM_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")
_MAX_NAMES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Param:
    """What a profile may say to a recipe. `fields` are the profile's fields it is read from, the first stated wins."""

    name: str
    type: str
    fields: tuple[str, ...]
    required: bool
    default: Sourced | None
    values: Mapping[str, Mapping[str, Sourced]]
    about: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StepText:
    """A step as written: its kind, and its fields with references in them."""

    kind: str
    body: Marked


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A recipe as written, checked as far as it can be without a profile. `folder` is where `./x` in it leads."""

    name: str
    about: str
    file: str
    folder: str
    needs: tuple[Marked, ...]
    params: tuple[Param, ...]
    steps: tuple[StepText, ...]
    gives: Mapping[str, Marked]
    env: Mapping[str, Marked]
    checks: tuple[tuple[str, Marked], ...]

    @property
    def has_image(self) -> bool:
        """Whether a step brings the base, so that `$(name.python)` may be referred to."""
        return any(step.kind == "image" for step in self.steps)


def read_recipe(text: str, *, file: str, folder: str, name: str, kinds: Kinds) -> Recipe:
    """The recipe that `text` states; it must be called `name`. Raises CregraphError naming everything wrong with it."""
    top = read_marks(text, file=file)
    reader = _Reader(kinds, folder)
    recipe = reader.recipe(top, name=name)
    refuse(reader.problems)
    return recipe


class _Reader:
    def __init__(self, kinds: Kinds, folder: str) -> None:
        self.kinds = kinds
        self.folder = folder
        self.problems: list[Problem] = []

    def wrong(self, node: Marked, text: str, hint: str | None = None) -> None:
        self.problems.append(node.problem(text, hint))

    def recipe(self, top: Marked, *, name: str) -> Recipe:
        if not top.is_mapping:
            refuse([top.problem(f"a recipe is a mapping, and this is {top.what}", f"begin with `recipe: {name}`")])
        self.known(top, KEYS, "a recipe has no key `{}`")
        said = self.text(top, "recipe")
        if "recipe" not in top.fields:
            self.wrong(top, "the recipe's name is missing", f"begin with `recipe: {name}`")
        elif said is not None and said != name:
            self.wrong(top.fields["recipe"], f"`{shown(said)}` is not the name of the file", f"write `recipe: {name}`")
        if not _RECIPE_NAME.fullmatch(name) or name in RESERVED:
            self.wrong(
                top, f"a recipe cannot be called `{shown(name)}`", "lower-case letters, digits, `_` and `-`, a letter first"
            )
        params = tuple(self.param(name, key, node) for key, node in self.mapping(top, "params").items())
        gives = self.mapping(top, "gives")
        for key, node in gives.items():
            self.give(key, node, {p.name for p in params})
        recipe = Recipe(
            name=name,
            about=self.text(top, "about") or "",
            file=top.file,
            folder=self.folder,
            needs=self.needs(top, name),
            params=params,
            steps=tuple(step for node in self.list(top, "steps") for step in self.step(node)),
            gives=gives,
            env=self.env(top),
            checks=tuple(check for node in self.list(top, "checks") for check in self.check(node)),
        )
        if recipe.has_image and "python" in gives:
            self.wrong(gives["python"], "`python` is a fact of the base, which its image gives")
        self.used(top, params, {n.text for n in recipe.needs})
        return recipe

    def known(self, node: Marked, names: Iterable[str], otherwise: str) -> None:
        names = tuple(names)
        for key, item in node.fields.items():
            if key not in names:
                near = nearest(key, names)
                self.wrong(
                    item, otherwise.format(shown(key)), f"did you mean `{near}`?" if near else f"it has {', '.join(names)}"
                )

    def text(self, node: Marked, key: str) -> str | None:
        item = node.fields.get(key)
        if item is None or item.value is None:
            return None
        if item.is_number:
            self.problems.append(no_number(item))
        elif not isinstance(item.value, str):
            self.wrong(item, f"a text is needed here, and this is {item.what}")
        else:
            return item.value
        return None

    def mapping(self, node: Marked, key: str) -> Mapping[str, Marked]:
        item = node.fields.get(key)
        if item is None or item.value is None:
            return {}
        if not item.is_mapping:
            self.wrong(item, f"a mapping is needed here, and this is {item.what}")
        if len(item.fields) > _MAX_NAMES:
            self.wrong(item, f"more than {_MAX_NAMES} names")
            return {}
        return item.fields

    def list(self, node: Marked, key: str) -> tuple[Marked, ...]:
        item = node.fields.get(key)
        if item is None or item.value is None:
            return ()
        if not item.is_list:
            self.wrong(item, f"a list is needed here, and this is {item.what}")
        return tuple(item.items)

    def needs(self, top: Marked, name: str) -> tuple[Marked, ...]:
        found: dict[str, Marked] = {}
        for node in self.list(top, "needs"):
            if not isinstance(node.value, str):
                self.wrong(node, f"the name of a stage is needed here, and this is {node.what}")
            elif node.value in found:
                self.wrong(node, f"`{shown(node.value)}` is needed twice")
            elif node.value == name:
                self.wrong(node, "a recipe cannot need itself")
            else:
                found[node.value] = node
        return tuple(found.values())

    def param(self, recipe: str, name: str, node: Marked) -> Param:
        if not _PARAM_NAME.fullmatch(name):
            self.wrong(
                node, f"a parameter cannot be called `{shown(name)}`", "lower-case letters, digits and `_`, a letter first"
            )
        if not node.is_mapping:
            self.wrong(node, f"a parameter is a mapping, and this is {node.what}", "write {type: text, default: …}")
        self.known(node, PARAM_KEYS, "a parameter has no key `{}`")
        kind = self.text(node, "type") or ""
        if node.is_mapping and "type" not in node.fields:
            self.wrong(node, "the type is missing", f"one of {', '.join(TYPES)}")
        elif kind and kind not in TYPES:
            near = nearest(kind, TYPES)
            hint = f"did you mean `{near}`?" if near else f"one of {', '.join(TYPES)}"
            self.wrong(node.fields["type"], f"no type is called `{shown(kind)}`", hint)
        values = self.values(node, kind)
        required = node.fields.get("required")
        if required is not None and required.value is not True:
            self.wrong(required, "only `required: true` means something here", "a parameter with a default is not required")
        default = node.fields.get("default")
        if node.is_mapping and (default is None) == (required is None):
            self.wrong(node, "a parameter has either a default or `required: true`", "`default: null` means: not set")
        checked = None
        if default is not None and kind in TYPES:
            checked = read_value(
                default, kind, problems=self.problems, choices=tuple(values), top=default, name=name, folder=self.folder
            )
        return Param(
            name=name,
            type=kind,
            fields=self.fields(node, f"{recipe}.{name}"),
            required=required is not None,
            default=checked,
            values=values,
            about=self.text(node, "about") or "",
            line=node.line,
        )

    def fields(self, node: Marked, otherwise: str) -> tuple[str, ...]:
        stated = node.fields.get("from")
        if stated is None:
            return (otherwise,)
        for item in stated.items or (stated,):
            parts = item.value.split(".") if isinstance(item.value, str) else []
            if not 1 <= len(parts) <= 2 or not all(_FIELD_NAME.fullmatch(p) for p in parts) or parts[0] in RESERVED[:3]:
                self.wrong(item, "a field of the profile is needed here", "write section.field, such as extras.cran")
        return tuple(item.text for item in stated.items or (stated,))

    def values(self, node: Marked, kind: str) -> Mapping[str, Mapping[str, Sourced]]:
        stated = node.fields.get("values")
        if (stated is not None) != (kind == "choice"):
            self.wrong(
                stated or node, "a choice, and nothing else, has `values`", "write `type: choice` with `values: {NAME: {…}}`"
            )
        if stated is None:
            return {}
        if not stated.is_mapping or not stated.fields:
            self.wrong(stated, f"a mapping from name to record is needed here, and this is {stated.what}")
        found: dict[str, Mapping[str, Sourced]] = {}
        first: tuple[str, ...] | None = None
        for name, record in stated.fields.items():
            if record.value is not None and not record.is_mapping:
                self.wrong(record, f"a record is a mapping, and this is {record.what}", "write {field: …}, or null for none")
            first = tuple(sorted(record.fields)) if first is None else first
            if tuple(sorted(record.fields)) != first:
                self.wrong(record, f"this record has other fields than the first, which has {', '.join(first) or 'none'}")
            found[name] = {key: self.record(item) for key, item in record.fields.items()}
        return found

    def record(self, node: Marked) -> Sourced:
        if node.value is None:
            return Sourced(value=None, where=node.where)
        kind = "boolean" if isinstance(node.value, bool) else "texts" if node.is_list else "text"
        return read_value(node, kind, problems=self.problems, top=node, name=node.field)

    def step(self, node: Marked) -> Iterable[StepText]:
        if len(node.fields) != 1:
            hint = f"write `- conda: {{…}}`; the kinds are {', '.join(sorted(self.kinds))}"
            self.wrong(node, "a step is one kind with its fields", hint)
            return
        ((kind, body),) = node.fields.items()
        if kind not in self.kinds:
            near = nearest(kind, self.kinds)
            hint = f"did you mean `{near}`?" if near else f"the kinds are {', '.join(sorted(self.kinds))}"
            self.wrong(body, f"no kind is called `{shown(kind)}`", hint)
        elif not body.is_mapping:
            self.wrong(body, f"the fields of kind `{kind}` are needed here, and this is {body.what}")
        else:
            known = self.kinds[kind]
            self.known(body, known, f"kind `{kind}` has no field `{{}}`")
            for name, (_, required) in known.items():
                if required and name not in body.fields:
                    self.wrong(body, f"kind `{kind}` needs the field `{name}`")
            yield StepText(kind=kind, body=body)

    def give(self, name: str, node: Marked, params: set[str]) -> None:
        if not _FIELD_NAME.fullmatch(name):
            self.wrong(
                node, f"what a recipe gives cannot be called `{shown(name)}`", "letters, digits, `_` and `-`, a letter first"
            )
        elif name in params and node.value != f"$({name})":
            self.wrong(
                node,
                f"`{name}` is a parameter too, so `$({name})` would mean two things",
                f"call it something else, or give $({name})",
            )

    def env(self, top: Marked) -> Mapping[str, Marked]:
        found = self.mapping(top, "env")
        for name, node in found.items():
            if name in FORBIDDEN_ENV:
                self.wrong(node, f"an image may not set {name}: {FORBIDDEN_ENV[name]}", "remove it")
            elif not _VARIABLE.fullmatch(name):
                self.wrong(node, f"`{shown(name)}` is no name of a variable", "letters, digits and `_`, no digit first")
        return found

    def check(self, node: Marked) -> Iterable[tuple[str, Marked]]:
        kind = next(iter(node.fields), "")
        if len(node.fields) != 1:
            self.wrong(node, "a check is one of r, python and kernel with its code", "write `- r: library(DBI)`")
        elif kind not in CHECKS:
            near = nearest(kind, CHECKS)
            hint = f"did you mean `{near}`?" if near else f"one of {', '.join(CHECKS)}"
            self.wrong(node.fields[kind], f"no check is called `{shown(kind)}`", hint)
        else:
            yield kind, node.fields[kind]

    def used(self, top: Marked, params: Iterable[Param], needs: set[str]) -> None:
        said = {
            text for key in ("steps", "gives", "env", "checks") if key in top.fields for text in references_in(top.fields[key])
        }
        heads = {text.partition(".")[0] for text in said}
        for param in params:
            node = top.fields["params"].fields[param.name]
            if param.name not in heads:
                self.wrong(
                    node, "no step, give, variable or check refers to this parameter", f"use $({param.name}), or leave it out"
                )
            if param.type == "choice" and param.name in needs:
                self.wrong(
                    node, f"`{param.name}` is a stage in needs too, so `$({param.name}.x)` would mean two things", "rename it"
                )
