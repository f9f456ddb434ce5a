"""From a profile and its recipes to stages in order, with steps whose references are substituted.

    composition = compose("examples/geo.yaml", read=read, find=find, names=names, kinds=kinds)

Pure: `read(path)` returns a profile's text, `find(name)` a recipe's, or None when there is none. Everything that is wrong is
said at once where it can be: first recipes one by one, then the graph, then fields, values and references together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cregraph.digest import Json
from cregraph.errors import nearest
from cregraph.kinds.base import Step
from cregraph.profile.profile_file import CORE, STANDARD, Profile, load_profile
from cregraph.profile.recipe import Kinds, Param, Recipe, read_recipe
from cregraph.profile.references import Scope
from cregraph.profile.stage_graph import find_cycle, ordered
from cregraph.profile.values import BAD, SINGLE, Sourced, places, plain, read_value
from cregraph.profile.yaml_marks import Marked, Problem, refuse, shown

__all__ = ["Check", "Composition", "Found", "Stage", "compose"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A recipe's text, the name that messages show (`recipes/r.yaml`), and the folder that `./x` in it starts from.

    `folder` is relative to the project (`examples/recipes`), or `standard:` for the recipes that cregraph ships.
    """

    text: str
    file: str
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What `cregraph test` runs in the image: code for `r` or `python`, or cells for a `kernel`, in order."""

    kind: str
    code: tuple[str, ...]
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A recipe as the profile uses it. `needs` is sorted; `env` holds what this stage sets, `gives` what others refer to.

    `where` says which line put it into the image: `examples/geo.yaml:3: with[0]`, or its recipe for a standard stage.
    """

    name: str
    about: str
    file: str
    needs: tuple[str, ...]
    steps: tuple[Step, ...]
    env: Mapping[str, str]
    checks: tuple[Check, ...]
    gives: Mapping[str, Json]
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """The whole image as asked for: stages in graph order and the variables of all of them. `recipes` are in the same order."""

    profile: Profile
    stages: tuple[Stage, ...]
    env: Mapping[str, str]
    recipes: tuple[Recipe, ...]

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises KeyError."""
        return {stage.name: stage for stage in self.stages}[name]


def compose(
    path: str,
    *,
    read: Callable[[str], str],
    find: Callable[[str], Found | None],
    kinds: Kinds,
    names: Iterable[str] = STANDARD,
) -> Composition:
    """The composition of the profile at `path`, which is relative to the project.

    `kinds` maps each kind to its fields; `names` are the recipes that there are, for messages. Raises CregraphError with a
    line for each thing that is wrong (see `formats.yaml_marks.refuse`), and nothing else.
    """
    profile, problems = load_profile(path, read=read)
    library = _Library(find=find, kinds=kinds, names=frozenset((*names, *STANDARD)))
    recipes: dict[str, Recipe] = {}
    for name, switch in profile.stages.items():
        recipe = library.recipe(name, switch.node if switch else None, problems)
        if recipe is not None:
            recipes[name] = recipe
    refuse(problems if len(recipes) < len(profile.stages) else ())
    order = _order(profile, recipes, library)
    problems += _unread(profile, recipes, library)
    stages: dict[str, Stage] = {}
    gives: dict[str, Mapping[str, Sourced]] = {}
    variables: dict[str, Sourced] = {}
    for name in order:
        recipe = recipes[name]
        scope = _scope(profile, recipe, recipes, gives, problems)
        gives[name] = {key: scope.give(key) for key in recipe.gives}
        stages[name] = _stage(profile, recipe, kinds, scope, gives[name], variables)
    refuse(problems)
    return Composition(
        profile=profile,
        stages=tuple(stages.values()),
        env={name: str(value.value) for name, value in sorted(variables.items())},
        recipes=tuple(recipes[name] for name in order),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Library:
    find: Callable[[str], Found | None]
    kinds: Kinds
    names: frozenset[str]

    def recipe(self, name: str, asked: Marked | None, problems: list[Problem]) -> Recipe | None:
        """The recipe of that name, which line `asked` asks for; None, with a problem, when there is none."""
        found = self.find(name)
        if found is not None:
            return read_recipe(found.text, file=found.file, folder=found.folder, name=name, kinds=self.kinds)
        if asked is not None:
            problems.append(self.none(name, asked, f"no recipe is called `{shown(name)}`"))
        else:
            problems.append(Problem(file="recipes", line=1, field=name, text="this standard recipe is missing"))
        return None

    def none(self, name: str, asked: Marked, text: str) -> Problem:
        near = nearest(name, self.names)
        return asked.problem(
            text, f"did you mean `{near}`?" if near else f"write it: recipes/{shown(name)}.yaml beside the profile"
        )


def _order(profile: Profile, recipes: Mapping[str, Recipe], library: _Library) -> tuple[str, ...]:
    problems: list[Problem] = []
    needs = {name: [node.text for node in recipe.needs] for name, recipe in recipes.items()}
    for name, recipe in recipes.items():
        for node in recipe.needs:
            need = node.text
            if need in recipes:
                continue
            if need in profile.off:
                by = profile.off[need]
                text = f"stage `{name}` needs `{need}`, which is switched off by {_by(by.how, by.node)}"
                problems.append(node.problem(text, f"switch `{need}` on, or `{name}` off too"))
            elif need in library.names:
                text = f"stage `{name}` needs `{need}`, which is not in this image"
                problems.append(node.problem(text, f"add `{need}` to `with` in `{profile.file}`"))
            else:
                problems.append(library.none(need, node, f"stage `{name}` needs `{shown(need)}`, and no recipe is called so"))
    refuse(problems)
    loop = find_cycle(needs)
    if loop:
        node = next(n for n in recipes[loop[0]].needs if n.text == loop[1])
        path = " needs ".join(f"`{name}`" for name in loop)
        refuse([node.problem(f"stages that need each other: {path}", "leave out one of these needs")])
    return ordered(needs, first=STANDARD)


def _by(how: str, node: Marked, file: str | None = None) -> str:
    return f"{how} on line {node.line}" + ("" if node.file == file else f" of `{node.file}`")


def _unread(profile: Profile, recipes: Mapping[str, Recipe], library: _Library) -> list[Problem]:
    """What the profile states and nobody reads."""
    problems: list[Problem] = []
    readers = {field: (r.name, p.name) for r in recipes.values() for p in r.params for field in p.fields}
    known = {*CORE, *readers}
    off = {
        field: name
        for name in sorted(profile.off)
        if (found := library.find(name)) is not None
        for p in read_recipe(found.text, file=found.file, folder=found.folder, name=name, kinds=library.kinds).params
        for field in p.fields
    }
    for section, key, node in profile.fields():
        field = section if key is None else f"{section}.{key}"
        if "." not in section and (section in readers or (key is not None and field in known)):
            continue
        if node.value is None and (
            field in off or (key is None and section in {*library.names, *(k.partition(".")[0] for k in known)})
        ):
            continue
        stage = off.get(field) or off.get(section) or (section if section in profile.off else None)
        if stage is not None:
            switch = profile.off[stage]
            if profile.levels.get(field, profile.levels[section]) >= switch.level:
                text = f"read by stage `{stage}`, which is switched off by {_by(switch.how, switch.node, node.file)}"
                problems.append(node.problem(text, "remove this field, or switch the stage on"))
            continue
        problems.append(_nobody(section, key, node, recipes, library, known))
    return problems


def _nobody(
    section: str, key: str | None, node: Marked, recipes: Mapping[str, Recipe], library: _Library, known: Iterable[str]
) -> Problem:
    field = section if key is None else f"{section}.{key}"
    sections = {name.partition(".")[0] for name in known}
    if field == "extras.cran_mirror":
        hint = "remove it, and write `cran: <address>` in sources.yaml"
        return node.problem("the address of a mirror belongs into sources.yaml, where no lock or image sees it", hint)
    if key is None and section in sections:
        return node.problem(
            f"a mapping of fields is needed here, and this is {node.what}", f"write `{section}: {{field: value}}`"
        )
    param = next((p for p in recipes[section].params if p.name == key), None) if section in recipes else None
    if param is not None:
        return node.problem(
            f"stage `{section}` reads its parameter `{key}` elsewhere", f"write {' or '.join(f'`{f}`' for f in param.fields)}"
        )
    if section in library.names and section not in recipes:
        return node.problem(f"stage `{section}` is not in this image", f"add `with: [{section}]`, or remove this field")
    near = nearest(field, [*known, *sections, "extends", "with", "without"] if key is None else known)
    return node.problem("no recipe reads this field", f"did you mean `{near}`?" if near else None)


def _scope(
    profile: Profile,
    recipe: Recipe,
    recipes: Mapping[str, Recipe],
    gives: Mapping[str, Mapping[str, Sourced]],
    problems: list[Problem],
) -> Scope:
    params = {param.name: _value(profile, recipe, param, problems) for param in recipe.params}
    records: dict[str, Mapping[str, Sourced]] = {}
    for param in recipe.params:
        if param.type == "choice":
            chosen = params[param.name].value
            some = next(iter(param.values.values()), {})
            records[param.name] = param.values[chosen] if isinstance(chosen, str) else dict.fromkeys(some, BAD)
    needs = {node.text for node in recipe.needs}
    return Scope(
        stage=recipe.name,
        params=params,
        records=records,
        gives=recipe.gives,
        needs={name: gives[name] for name in needs},
        bases=frozenset(name for name in needs if recipes[name].has_image),
        others=frozenset(recipes.keys() - needs - {recipe.name}),
        problems=problems,
        folder=recipe.folder,
    )


def _value(profile: Profile, recipe: Recipe, param: Param, problems: list[Problem]) -> Sourced:
    stated = [node for field in param.fields if (node := profile.field(field)) is not None]
    for node in stated:
        if node.value is not None:
            return read_value(node, param.type, problems=problems, choices=tuple(param.values))
    if not param.required:
        assert param.default is not None
        # a list whose items are all commented out is null too, and should change nothing; of a single value null says: none
        single = stated and param.type in SINGLE
        return Sourced(value=None, where=stated[0].where, stated=True) if single else param.default
    names = " or ".join(f"`{field}`" for field in param.fields)
    if param.fields[-1] != "cre.tag":  # its absence is said by the profile itself
        section = profile.sections.get(param.fields[0].partition(".")[0])
        line = section.line if section is not None and section.file == profile.file else 1
        text = f"{names} is missing; stage `{recipe.name}` needs it"
        problems.append(Problem(file=profile.file, line=line, field=param.fields[0], text=text, hint=param.about or None))
    return BAD


def _stage(
    profile: Profile,
    recipe: Recipe,
    kinds: Kinds,
    scope: Scope,
    gives: Mapping[str, Sourced],
    variables: dict[str, Sourced],
) -> Stage:
    problems = scope.problems
    steps = [_step(recipe, index, kinds, scope) for index in range(len(recipe.steps))]
    env: dict[str, str] = {}
    for name, node in recipe.env.items():
        value = scope.resolve(node)
        if value.bad or value.value is None:
            continue
        if not isinstance(value.value, str) or value.late:
            problems.append(node.problem(f"the value of a variable is a text, and this is {_what(value)}"))
            continue
        env[name] = value.value
        first = variables.setdefault(name, Sourced(value=value.value, where=node.where))
        if first.value != value.value:
            text = f"set to `{shown(value.value)}` here, and to `{shown(str(first.value))}` by {first.where}"
            problems.append(node.problem(text, "one image has one value; remove one of the two"))
    switch = profile.stages[recipe.name]
    return Stage(
        name=recipe.name,
        about=recipe.about,
        file=recipe.file,
        needs=tuple(sorted(node.text for node in recipe.needs)),
        steps=tuple(step for step in steps if step is not None),
        env=env,
        checks=tuple(check for kind, node in recipe.checks for check in _check(kind, node, scope)),
        gives={key: plain(value) for key, value in gives.items() if not value.bad},
        where=f"{recipe.file}:1: recipe" if switch is None else switch.node.where,
    )


def _step(recipe: Recipe, index: int, kinds: Kinds, scope: Scope) -> Step | None:
    written = recipe.steps[index]
    fields: dict[str, Json] = {}
    where = {"": f"{written.body.file}:{written.body.line}: steps[{index}]"}
    good = True
    for name, (kind, required) in kinds[written.kind].items():
        node = written.body.fields.get(name)
        if node is None:
            continue
        scope.paths = kind != "text"
        value = _typed(scope.resolve(node), kind, node, scope.problems)
        scope.paths = False
        if value.bad:
            good = False
        elif value.value is not None:
            fields[name] = plain(value)
            where |= places(value, name)
        elif required:
            scope.problems.append(node.problem(f"kind `{written.kind}` needs this field, and it is not set"))
            good = False
    return Step(kind=written.kind, stage=recipe.name, fields=fields, where=where) if good else None


def _typed(value: Sourced, kind: str, node: Marked, problems: list[Problem]) -> Sourced:
    """`value` as a field of type `kind`; a single text becomes a list where the field takes several."""
    if value.bad or value.value is None:
        return value
    if kind in ("texts", "paths") and isinstance(value.value, str):
        return Sourced(value=(value,), where=value.where)
    if kind in ("text", "path"):
        good, needed = isinstance(value.value, str), "a text"
    elif kind in ("texts", "paths"):
        good = isinstance(value.value, tuple) and all(isinstance(item.value, str) for item in value.value)
        needed = "a list of texts"
    else:
        good, needed = kind != "mapping" or isinstance(value.value, Mapping), "a mapping"
    if good:
        return value
    problems.append(node.problem(f"{needed} is needed here, and this is {_what(value)}"))
    return BAD


def _what(value: Sourced) -> str:
    if isinstance(value.value, bool):
        return "a boolean"
    if isinstance(value.value, str):
        return "known only after locking" if value.late else "a text"
    return "a list" if isinstance(value.value, tuple) else "a mapping"


def _check(kind: str, node: Marked, scope: Scope) -> Iterable[Check]:
    value = _typed(scope.resolve(node), "texts", node, scope.problems)
    if not value.bad and isinstance(value.value, tuple):
        yield Check(kind=kind, code=tuple(str(item.value) for item in value.value), where=node.where)
