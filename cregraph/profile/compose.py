"""Composition of a profile and its recipes to stages in order, with steps whose references are substituted.

    composition = compose("examples/geo.yaml", read=read, find=find, names=names, kinds=kinds)

Pure: `read(path)` returns a profile's text, `find(name)` a recipe's, or None for an unknown name. Problems are reported together
where possible: first those of each recipe, then of the graph, then of fields, values and references.
"""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.profile.params import Param
from cregraph.profile.profile_file import Profile, load_profile
from cregraph.profile.recipe import Found, Kinds, Library, Recipe
from cregraph.profile.references import BASE, Scope
from cregraph.profile.stated import BAD, Problem, Stated, places, plain, refuse, shown
from cregraph.profile.step import Step
from cregraph.profile.switches import STANDARD
from cregraph.profile.unread_fields import unread_fields
from cregraph.profile.values import SINGLE, read_value

__all__ = ["Composition", "Stage", "compose"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A recipe as the profile uses it. `needs` is sorted; `env` holds the variables that this stage sets.

    `checks` are `{"kind": "r", "code": [...]}`: code that `cregraph test` runs in the image, for `r` or `python`, or cells for a
    `kernel`, in order.
    """

    name: str
    needs: tuple[str, ...]
    steps: tuple[Step, ...]
    env: Mapping[str, str]
    checks: tuple[Json, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """The whole image as asked for: stages in graph order and the variables of all of them. `recipes` are in the same order."""

    profile: Profile
    stages: tuple[Stage, ...]
    env: Mapping[str, str]
    recipes: tuple[Recipe, ...]

    def stage(self, name: str) -> Stage:
        return {stage.name: stage for stage in self.stages}[name]


def compose(
    path: str,
    *,
    read: Callable[[str], str],
    find: Callable[[str], Found | None],
    kinds: Kinds,
    names: Iterable[str] = STANDARD,
) -> Composition:
    """Return the composition of the profile at `path`, which is relative to the project.

    Args:
        kinds: The fields of each kind.
        names: The names of all recipes, for messages.

    Raises:
        CregraphError: With a line for each problem (`cregraph.profile.stated.refuse`).
    """
    profile, problems = load_profile(path, read=read)
    library = Library(find=find, kinds=kinds, names=frozenset((*names, *STANDARD)))
    recipes: dict[str, Recipe] = {}
    for name, switch in profile.stages.items():
        recipe = library.recipe(name, switch.node if switch else None, problems)
        if recipe is not None:
            recipes[name] = recipe
    refuse(problems if len(recipes) < len(profile.stages) else ())
    base = _image_stage(profile, recipes)
    needs = {name: {n.text: base if n.text == BASE else n.text for n in recipe.needs} for name, recipe in recipes.items()}
    order = _order(profile, recipes, needs, library)
    problems += unread_fields(profile, recipes, library)
    stages: dict[str, Stage] = {}
    gives: dict[str, Mapping[str, Stated]] = {}
    variables: dict[str, Stated] = {}
    for name in order:
        recipe = recipes[name]
        scope = _scope(profile, recipe, recipes, needs[name], gives, problems)
        gives[name] = {key: scope.give(key) for key in recipe.gives}
        stages[name] = _stage(recipe, set(needs[name].values()), kinds, scope, variables)
    refuse(problems)
    return Composition(
        profile=profile,
        stages=tuple(stages.values()),
        env={name: str(value.value) for name, value in sorted(variables.items())},
        recipes=tuple(recipes[name] for name in order),
    )


def _image_stage(profile: Profile, recipes: Mapping[str, Recipe]) -> str:
    """The stage that brings the base image, which `base` in needs and references stands for."""
    found = [name for name, recipe in recipes.items() if recipe.has_image]
    if len(found) > 1:
        switch = profile.stages[found[1]]
        node = switch.node if switch else next(iter(profile.sections.values()))
        text = f"stages `{found[0]}` and `{found[1]}` both bring the base image"
        refuse([node.problem(text, f"remove one of them: `without: [{found[0]}]`")])
    return found[0] if found else BASE


def _order(
    profile: Profile, recipes: Mapping[str, Recipe], needs: Mapping[str, Mapping[str, str]], library: Library
) -> tuple[str, ...]:
    problems: list[Problem] = []
    for name, recipe in recipes.items():
        for node in recipe.needs:
            need = needs[name][node.text]
            if need in recipes:
                continue
            if need in profile.off:
                by = profile.off[need]
                text = f"stage `{name}` needs `{need}`, which is switched off by {by.by()}"
                problems.append(node.problem(text, f"switch `{need}` on, or `{name}` off too"))
            elif need in library.names or need == BASE:
                text = f"stage `{name}` needs `{need}`, which is not in this image"
                problems.append(node.problem(text, f"add `{need}` to `with` in `{profile.file}`"))
            else:
                problems.append(library.none(need, node, f"stage `{name}` needs `{shown(need)}`, which is an unknown recipe"))
    refuse(problems)
    graph = {name: list(wanted.values()) for name, wanted in needs.items()}
    try:
        return ordered(graph, first=STANDARD)
    except graphlib.CycleError as error:
        loop: list[str] = error.args[1][:0:-1]  # graphlib lists it from needed to needing, and the first name twice
    least = loop.index(min(loop))
    loop = [*loop[least:], *loop[:least], loop[least]]
    node = next(n for n in recipes[loop[0]].needs if needs[loop[0]][n.text] == loop[1])
    problem = node.problem(f"stages need each other: `{'` needs `'.join(loop)}`", "leave out one of these needs")
    raise CregraphError(str(problem), problem.hint)


def _scope(
    profile: Profile,
    recipe: Recipe,
    recipes: Mapping[str, Recipe],
    needs: Mapping[str, str],
    gives: Mapping[str, Mapping[str, Stated]],
    problems: list[Problem],
) -> Scope:
    """The scope of one stage. `needs` maps a name in its `needs` to the stage that it stands for."""
    params = {param.name: _value(profile, recipe, param, problems) for param in recipe.params}
    records: dict[str, Mapping[str, Stated]] = {}
    for param in recipe.params:
        if param.type == "choice":
            chosen = params[param.name].value
            some = next(iter(param.values.values()), {})
            records[param.name] = param.values[chosen] if isinstance(chosen, str) else dict.fromkeys(some, BAD)
    scope = Scope(
        stage=recipe.name,
        params=params,
        records=records,
        gives=recipe.gives,
        needs={name: gives[stage] for name, stage in needs.items()},
        bases={name: stage for name, stage in needs.items() if recipes[stage].has_image},
        others=frozenset(recipes.keys() - needs.keys() - {recipe.name}),
        problems=problems,
        folder=recipe.folder,
    )
    for param in recipe.params:
        if params[param.name] is param.default and "$(" in param.default.text:
            params[param.name] = scope.resolve(param.default)
    return scope


def _value(profile: Profile, recipe: Recipe, param: Param, problems: list[Problem]) -> Stated:
    stated = [node for field in param.fields if (node := profile.field(field)) is not None]
    for node in stated:
        if node.value is not None:
            return read_value(node, param.type, problems=problems, choices=tuple(param.values))
    if not param.required:
        assert param.default is not None
        # a list whose items are all commented out is null too, and should change nothing; of a single value null says: none
        single = stated and param.type in SINGLE
        return Stated(value=None, place=stated[0].place, by_profile=True) if single else param.default
    names = " or ".join(f"`{field}`" for field in param.fields)
    if param.fields[-1] != "cre.tag":  # its absence is said by the profile itself
        section = profile.sections.get(param.fields[0].partition(".")[0])
        line = section.place.line if section is not None and section.place.file == profile.file else 1
        text = f"{names} is missing; stage `{recipe.name}` needs it"
        problems.append(Problem(file=profile.file, line=line, field=param.fields[0], text=text, hint=param.about or None))
    return BAD


def _stage(recipe: Recipe, needs: Iterable[str], kinds: Kinds, scope: Scope, variables: dict[str, Stated]) -> Stage:
    steps = (_step(recipe, index, kinds, scope) for index in range(len(recipe.steps)))
    return Stage(
        name=recipe.name,
        needs=tuple(sorted(needs)),
        steps=tuple(filter(None, steps)),
        env=_env(recipe, scope, variables),
        checks=tuple(_checks(recipe, scope)),
    )


def _env(recipe: Recipe, scope: Scope, variables: dict[str, Stated]) -> dict[str, str]:
    """The variables that a stage sets. `variables` are those of all stages, which must not set one twice to other values."""
    env: dict[str, str] = {}
    for name, node in recipe.env.items():
        value = scope.resolve(node)
        if value.bad or value.value is None:
            continue
        if not isinstance(value.value, str) or value.late:
            scope.problems.append(node.problem(f"the value of a variable must be a text, not {_what(value)}"))
            continue
        env[name] = value.value
        first = variables.setdefault(name, Stated(value=value.value, place=node.place))
        if first.value != value.value:
            text = f"set to `{shown(value.value)}` here, and to `{shown(first.text)}` by {first.where}"
            scope.problems.append(node.problem(text, "remove one of the two, because a variable has one value"))
    return env


def _step(recipe: Recipe, index: int, kinds: Kinds, scope: Scope) -> Step | None:
    kind, body = recipe.steps[index]
    fields: dict[str, Json] = {}
    where = {"": f"{body.place.file}:{body.place.line}: steps[{index}]"}
    good = True
    for name, (type_, required) in kinds[kind].FIELDS.items():
        node = body.fields.get(name)
        if node is None:
            continue
        scope.paths = type_ != "text"
        value = _typed(scope.resolve(node), type_, node, scope.problems)
        scope.paths = False
        if value.bad:
            good = False
        elif value.value is not None:
            fields[name] = plain(value)
            where |= places(value, name)
        elif required:
            scope.problems.append(node.problem(f"kind `{kind}` needs this field, but it is not set"))
            good = False
    return Step(kind=kind, stage=recipe.name, fields=fields, where=where) if good else None


def _typed(value: Stated, kind: str, node: Stated, problems: list[Problem]) -> Stated:
    """`value` as a field of type `kind`; a single text becomes a list if the field takes several."""
    if value.bad or value.value is None:
        return value
    if kind in ("texts", "paths") and isinstance(value.value, str):
        return Stated(value=(value,), place=value.place)
    if kind in ("text", "path"):
        good, needed = isinstance(value.value, str), "a text"
    elif kind in ("texts", "paths"):
        good = value.is_list and all(isinstance(item.value, str) for item in value.items)
        needed = "a list of texts"
    else:
        good, needed = kind != "mapping" or value.is_mapping, "a mapping"
    if good:
        return value
    problems.append(node.problem(f"expected {needed}, not {_what(value)}"))
    return BAD


def _what(value: Stated) -> str:
    if isinstance(value.value, bool):
        return "a boolean"
    if isinstance(value.value, str):
        return "known only after locking" if value.late else "a text"
    return "a list" if value.is_list else "a mapping"


def _checks(recipe: Recipe, scope: Scope) -> Iterator[Json]:
    for kind, node in recipe.checks:
        value = _typed(scope.resolve(node), "texts", node, scope.problems)
        if not value.bad and value.is_list:
            yield {"kind": kind, "code": [item.text for item in value.items]}


def ordered(needs: Mapping[str, Iterable[str]], *, first: Sequence[str] = ()) -> tuple[str, ...]:
    """Return all names, each after what it needs; among those that could be next as in `first`, then by name.

    The order of `needs` and of what a name needs never shows. Raises graphlib.CycleError, a ValueError, for a cycle.
    """
    rank = {name: index for index, name in enumerate(first)}
    sorter = graphlib.TopologicalSorter({name: sorted(needs[name]) for name in sorted(needs)})
    sorter.prepare()
    order: list[str] = []
    ready: list[tuple[int, str]] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, (rank.get(name, len(rank)), name))
        order.append(heapq.heappop(ready)[1])
        sorter.done(order[-1])
    return tuple(order)
