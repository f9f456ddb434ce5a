"""Fields that a profile states and no recipe reads: each is an error with the nearest name."""

from __future__ import annotations

from collections.abc import Mapping

from cregraph.errors import did_you_mean
from cregraph.profile.profile_file import CORE, Profile
from cregraph.profile.recipe import Library, Recipe
from cregraph.profile.stated import Problem, Stated

__all__ = ["unread_fields"]


def unread_fields(profile: Profile, recipes: Mapping[str, Recipe], library: Library) -> list[Problem]:
    """Return a problem for each field of `profile` that none of `recipes`, those in use, reads."""
    names = _Names(profile, recipes, library)
    found = []
    for section, key, node in profile.fields():
        if not names.is_read(section, key) and not (node.value is None and names.can_be_null(section, key)):
            stage = names.stage_off(section, key)
            found.append(names.unknown(section, key, node) if stage is None else names.switched_off(stage, section, key, node))
    return [problem for problem in found if problem is not None]


class _Names:
    """Names of fields: `known` are those that are read, in `sections`; `off` those of stages that are switched off."""

    def __init__(self, profile: Profile, recipes: Mapping[str, Recipe], library: Library) -> None:
        self.profile = profile
        self.recipes = recipes
        self.library = library
        self.known = {*CORE, *(field for recipe in recipes.values() for param in recipe.params for field in param.fields)}
        self.sections = {field.partition(".")[0] for field in self.known}
        self.off = {field: name for name in sorted(profile.off) for param in library.params(name) for field in param.fields}

    def is_read(self, section: str, key: str | None) -> bool:
        return "." not in section and (section in self.known or (key is not None and _name(section, key) in self.known))

    def can_be_null(self, section: str, key: str | None) -> bool:
        """Whether null takes something away that a parent may state."""
        return (
            section in self.off or section in self.library.names | self.sections
            if key is None
            else _name(section, key) in self.off
        )

    def stage_off(self, section: str, key: str | None) -> str | None:
        """The stage that would read the field and is switched off."""
        stage = self.off.get(_name(section, key)) or self.off.get(section)
        return stage or (section if section in self.profile.off else None)

    def switched_off(self, stage: str, section: str, key: str | None, node: Stated) -> Problem | None:
        """None if the field was stated before the stage was switched off, farther up."""
        switch = self.profile.off[stage]
        if self.profile.levels.get(_name(section, key), self.profile.levels[section]) < switch.level:
            return None
        text = f"read by stage `{stage}`, which is switched off by {switch.by(node.place.file)}"
        return node.problem(text, "remove this field, or switch the stage on")

    def unknown(self, section: str, key: str | None, node: Stated) -> Problem:
        field = _name(section, key)
        if field == "extras.cran_mirror":
            hint = "remove it, and write `cran: <address>` in sources.yaml"
            return node.problem("the address of a mirror belongs in sources.yaml, not in a profile", hint)
        if key is None and section in self.sections:
            return node.problem(f"expected a mapping of fields, not {node.what}", f"write `{section}: {{field: value}}`")
        param = next((p for p in self.recipes[section].params if p.name == key), None) if section in self.recipes else None
        if param is not None:
            hint = f"write {' or '.join(f'`{f}`' for f in param.fields)}"
            return node.problem(f"stage `{section}` reads its parameter `{key}` from another field", hint)
        if section in self.library.names and section not in self.recipes:
            return node.problem(f"stage `{section}` is not in this image", f"add `with: [{section}]`, or remove this field")
        names = {*self.known, *self.sections, "extends", "with", "without"} if key is None else self.known
        return node.problem("unknown field", did_you_mean(field, names))


def _name(section: str, key: str | None) -> str:
    return section if key is None else f"{section}.{key}"
