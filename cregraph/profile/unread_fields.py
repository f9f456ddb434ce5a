"""Fields that a profile states and no recipe reads: each is an error with the nearest name."""

from __future__ import annotations

from collections.abc import Mapping, Set

from cregraph.errors import did_you_mean
from cregraph.profile.profile_file import CORE, Profile
from cregraph.profile.recipe import Library, Recipe
from cregraph.profile.stated import Problem, Stated

__all__ = ["unread_fields"]


def unread_fields(profile: Profile, recipes: Mapping[str, Recipe], library: Library) -> list[Problem]:
    """Return a problem for each field of `profile` that none of `recipes`, those in use, reads."""
    known = {*CORE, *(field for recipe in recipes.values() for param in recipe.params for field in param.fields)}
    sections = {field.partition(".")[0] for field in known}
    off = {field: name for name in sorted(profile.off) for param in library.params(name) for field in param.fields}
    nullable = {*off, *library.names, *sections}  # null takes something away that a parent may state
    found = []
    for section, key, node in profile.fields():
        field = _name(section, key)
        if ("." not in section and not known.isdisjoint((section, field))) or (node.value is None and field in nullable):
            continue
        stage = off.get(field, off.get(section, section))
        switch = profile.off.get(stage)
        if switch is None:
            found.append(_unknown(section, key, node, recipes, library, known))
        elif profile.levels.get(field, profile.levels[section]) >= switch.level:  # else a parent stated it before
            text = f"read by stage `{stage}`, which is switched off by {switch.by(node.place.file)}"
            found.append(node.problem(text, "remove this field, or switch the stage on"))
    return found


def _unknown(
    section: str, key: str | None, node: Stated, recipes: Mapping[str, Recipe], library: Library, known: Set[str]
) -> Problem:
    sections = {name.partition(".")[0] for name in known}
    if _name(section, key) == "extras.cran_mirror":
        hint = "remove it, and write `cran: <address>` in sources.yaml"
        return node.problem("the address of a mirror belongs in sources.yaml, not in a profile", hint)
    if key is None and section in sections:
        return node.problem(f"expected a mapping of fields, not {node.what}", f"write `{section}: {{field: value}}`")
    param = next((p for p in recipes[section].params if p.name == key), None) if section in recipes else None
    if param is not None:
        hint = f"write {' or '.join(f'`{f}`' for f in param.fields)}"
        return node.problem(f"stage `{section}` reads its parameter `{key}` from another field", hint)
    if section in library.names and section not in recipes:
        return node.problem(f"stage `{section}` is not in this image", f"add `with: [{section}]`, or remove this field")
    names = {*known, *sections, "extends", "with", "without"} if key is None else known
    return node.problem("unknown field", did_you_mean(_name(section, key), names))


def _name(section: str, key: str | None) -> str:
    return section if key is None else f"{section}.{key}"
