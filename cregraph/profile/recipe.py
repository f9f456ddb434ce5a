"""Reader of a recipe: a YAML file that states the requests of a stage and its gives.

    recipe: cran                      its name: that of the file
    about: R packages from a dated snapshot of CRAN
    needs: [r]                        the stages that come before it and that it may refer to
    params:                           what a profile may set
      packages: {type: r-packages, from: extras.cran, default: []}
    steps:                            what it asks for; each step is of one kind
      - r: {library: $(r.library), from: cran, packages: $(packages)}
    gives: {}                         what stages above may refer to
    env: {}                           variables of the image
    checks: []                        what `cregraph test` runs in the finished image

A parameter is read from the profile's field `<recipe>.<param>`, or from the first stated field that `from` names. It has
either a `default` or `required: true`. The module `values` lists the types; `references` explains `$(…)`. Pure: takes text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cregraph.errors import did_you_mean
from cregraph.profile.params import FIELD_NAME, RESERVED, Fields, Param, ParamReader
from cregraph.profile.references import BASE, references_in
from cregraph.profile.stated import Problem, Stated, refuse, shown
from cregraph.profile.step import StepRules
from cregraph.profile.yaml_reader import read_yaml

__all__ = ["CHECKS", "Found", "Kinds", "Library", "Recipe", "read_recipe"]

Kinds = Mapping[str, StepRules]

KEYS = ("recipe", "about", "needs", "params", "steps", "gives", "env", "checks")
#: What a check is written in: R, the notebook's Python, or cells of a kernel.
CHECKS = ("r", "python", "kernel")
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
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A recipe as written, checked as far as it can be without a profile. `folder` is where `./x` in it leads.

    `steps` are kinds with their fields, with references. `has_image`: a step brings the base, so other stages may refer to its
    facts (`$(name.python)`).
    """

    name: str
    about: str
    file: str
    folder: str
    needs: tuple[Stated, ...]
    params: tuple[Param, ...]
    steps: tuple[tuple[str, Stated], ...]
    gives: Mapping[str, Stated]
    env: Mapping[str, Stated]
    checks: tuple[tuple[str, Stated], ...]
    has_image: bool


def read_recipe(text: str, *, file: str, folder: str, name: str, kinds: Kinds) -> Recipe:
    """Return the recipe that `text` states; it must be called `name`. Raises CregraphError with everything wrong with it."""
    top = read_yaml(text, file=file)
    reader = _RecipeReader(kinds, folder)
    recipe = reader.recipe(top, name=name)
    refuse(reader.problems)
    return recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A recipe's text, the name that messages show (`recipes/r.yaml`), and the folder that `./x` in it starts from.

    `folder` is relative to the project (`examples/recipes`), or `standard:` for the recipes that cregraph ships.
    """

    text: str
    file: str
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """The recipes that a profile can use. `find` returns a recipe's text by its name, `names` are all names, for messages."""

    find: Callable[[str], Found | None]
    kinds: Kinds
    names: frozenset[str]

    def recipe(self, name: str, asked: Stated | None, problems: list[Problem]) -> Recipe | None:
        """Return the recipe of that name, which `asked` asks for; add a problem and return None for an unknown name."""
        found = self.find(name)
        if found is not None:
            return read_recipe(found.text, file=found.file, folder=found.folder, name=name, kinds=self.kinds)
        if asked is not None:
            problems.append(self.none(name, asked, f"unknown recipe `{shown(name)}`"))
        else:
            problems.append(Problem(file="recipes", line=1, field=name, text="this standard recipe is missing"))
        return None

    def params(self, name: str) -> tuple[Param, ...]:
        """Return the parameters of the recipe `name`, which need not be in use; nothing if there is no such recipe."""
        found = self.recipe(name, None, [])
        return found.params if found is not None else ()

    def none(self, name: str, asked: Stated, text: str) -> Problem:
        """Return the problem that there is no recipe `name`, with the nearest name."""
        otherwise = f"write recipes/{shown(name)}.yaml next to the profile"
        return asked.problem(text, did_you_mean(name, self.names, otherwise))


class _RecipeReader(Fields):
    def __init__(self, kinds: Kinds, folder: str) -> None:
        super().__init__()
        self.kinds = kinds
        self.folder = folder

    def recipe(self, top: Stated, *, name: str) -> Recipe:
        if not top.is_mapping:
            refuse([top.problem(f"a recipe must be a mapping, not {top.what}", f"begin with `recipe: {name}`")])
        self.known(top, KEYS, "a recipe has no key `{}`")
        self.name(top, name)
        reader = ParamReader(self.problems, recipe=name, folder=self.folder)
        params = tuple(reader.param(key, node) for key, node in self.mapping(top, "params").items())
        gives = self.mapping(top, "gives")
        for key, node in gives.items():
            self.give(key, node, {p.name for p in params})
        steps = tuple(step for node in self.list(top, "steps") for step in self.step(node))
        recipe = Recipe(
            name=name,
            about=self.text(top, "about") or "",
            file=top.place.file,
            folder=self.folder,
            needs=self.needs(top, name),
            params=params,
            steps=steps,
            gives=gives,
            env=self.env(top),
            checks=tuple(check for node in self.list(top, "checks") for check in self.check(node)),
            has_image=any(self.kinds[kind].GIVES_BASE for kind, _ in steps),
        )
        self.image(top, recipe)
        self.used(top, params, {n.text for n in recipe.needs})
        return recipe

    def image(self, top: Stated, recipe: Recipe) -> None:
        if recipe.name == BASE and not recipe.has_image:
            self.wrong(top, f"a recipe named `{BASE}` has an `image` step: other recipes refer to the base image by this name")
        if recipe.has_image and "python" in recipe.gives:
            self.wrong(recipe.gives["python"], "`python` is reserved, because it is a fact of the base image")

    def name(self, top: Stated, name: str) -> None:
        said = self.text(top, "recipe")
        if "recipe" not in top.fields:
            self.wrong(top, "the recipe's name is missing", f"begin with `recipe: {name}`")
        elif said is not None and said != name:
            self.wrong(top.fields["recipe"], f"`{shown(said)}` is not the name of the file", f"write `recipe: {name}`")
        if not _RECIPE_NAME.fullmatch(name) or name in RESERVED:
            self.wrong(top, f"invalid recipe name `{shown(name)}`", "use lower-case letters, digits, `_` and `-`, a letter first")

    def needs(self, top: Stated, name: str) -> tuple[Stated, ...]:
        found: dict[str, Stated] = {}
        for node in self.list(top, "needs"):
            if not isinstance(node.value, str):
                self.wrong(node, f"expected the name of a stage, not {node.what}")
            elif node.value in found:
                self.wrong(node, f"`{shown(node.value)}` is listed twice")
            elif node.value == name:
                self.wrong(node, "a recipe cannot need itself")
            else:
                found[node.value] = node
        return tuple(found.values())

    def step(self, node: Stated) -> Iterable[tuple[str, Stated]]:
        if len(node.fields) != 1:
            hint = f"write `- conda: {{…}}`; the kinds are {', '.join(sorted(self.kinds))}"
            self.wrong(node, "a step must have one kind with its fields", hint)
            return
        ((kind, body),) = node.fields.items()
        if kind not in self.kinds:
            meant = did_you_mean(kind, self.kinds, f"the kinds are {', '.join(sorted(self.kinds))}")
            self.wrong(body, f"unknown kind `{shown(kind)}`", meant)
        elif not body.is_mapping:
            self.wrong(body, f"the fields of kind `{kind}` are required here, not {body.what}")
        else:
            known = self.kinds[kind].FIELDS
            self.known(body, known, f"kind `{kind}` has no field `{{}}`")
            for name, (_, required) in known.items():
                if required and name not in body.fields:
                    self.wrong(body, f"kind `{kind}` needs the field `{name}`")
            yield kind, body

    def give(self, name: str, node: Stated, params: set[str]) -> None:
        if not FIELD_NAME.fullmatch(name):
            self.wrong(node, f"invalid name of a give `{shown(name)}`", "use letters, digits, `_` and `-`, a letter first")
        elif name in params and node.value != f"$({name})":
            self.wrong(
                node,
                f"`{name}` is a parameter too, so `$({name})` would be ambiguous",
                f"rename it, or give $({name})",
            )

    def env(self, top: Stated) -> Mapping[str, Stated]:
        found = self.mapping(top, "env")
        for name, node in found.items():
            if name in FORBIDDEN_ENV:
                self.wrong(node, f"an image may not set {name}: {FORBIDDEN_ENV[name]}", "remove it")
            elif not _VARIABLE.fullmatch(name):
                self.wrong(
                    node, f"`{shown(name)}` is not the name of a variable", "use letters, digits and `_`, and not a digit first"
                )
        return found

    def check(self, node: Stated) -> Iterable[tuple[str, Stated]]:
        kind = next(iter(node.fields), "")
        if len(node.fields) != 1:
            self.wrong(node, "a check must be r, python or kernel with its code", "write `- r: library(DBI)`")
        elif kind not in CHECKS:
            hint = did_you_mean(kind, CHECKS, f"write one of {', '.join(CHECKS)}")
            self.wrong(node.fields[kind], f"unknown check `{shown(kind)}`", hint)
        else:
            yield kind, node.fields[kind]

    def used(self, top: Stated, params: Iterable[Param], needs: set[str]) -> None:
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
            for text in references_in(param.default) if param.default else ():
                if text.partition(".")[0] not in needs or "." not in text:
                    self.wrong(node, f"`$({shown(text)})` in a default: no stage in `needs`", "write $(stage.give)")
            if param.type == "choice" and param.name in needs:
                self.wrong(
                    node, f"`{param.name}` is a stage in needs too, so `$({param.name}.x)` would be ambiguous", "rename it"
                )
