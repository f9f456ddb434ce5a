"""Make the JSON Schema (2020-12) of a profile, for editors: the fields of the core and of the recipes in use, and no other.

An editor's schema is a help, not the judge: `compose` says more, such as which stage is switched off. What the schema
refuses, `compose` refuses too. Sections that no recipe in use has may stand (a team's own recipes); they are mappings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from cregraph.digest import Json
from cregraph.profile.profile_file import BASE_TYPES, CORE
from cregraph.profile.recipe import Param, Recipe
from cregraph.profile.switches import STANDARD

_TEXT: Mapping[str, Json] = {"type": "string", "pattern": r"\S"}
_STAGES: Mapping[str, Json] = {"type": ["array", "null"], "items": _TEXT, "uniqueItems": True}


def profile_schema(recipes: Iterable[Recipe]) -> dict[str, Json]:
    """The schema of profiles that use these recipes. The order of `recipes` does not show."""
    sections: dict[str, dict[str, Json]] = {}
    wholes: dict[str, Json] = {}
    for field, (kind, about) in CORE.items():
        section, _, key = field.partition(".")
        sections.setdefault(section, {})[key] = _typed(kind, BASE_TYPES, about)
    for recipe in sorted(recipes, key=lambda r: r.name):
        for param in sorted(recipe.params, key=lambda p: p.name):
            for field in param.fields:
                section, dot, key = field.partition(".")
                if not dot:
                    wholes[section] = _param(param, recipe)
                elif field not in CORE:
                    sections.setdefault(section, {})[key] = _param(param, recipe)
        sections.setdefault(recipe.name, {})
    properties: dict[str, Json] = {
        "extends": {"type": ["string", "null"], "description": "another profile, beside this file, that this one adds to"},
        "with": {**_STAGES, "description": "stages besides the standard ones"},
        "without": {**_STAGES, "description": f"stages to leave out; the standard ones are {', '.join(STANDARD)}"},
    }
    for section in sorted(sections):
        properties[section] = {
            "type": ["object", "null"],
            "properties": dict(sorted(sections[section].items())),
            "additionalProperties": False,
        }
    properties |= wholes
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A cregraph profile",
        "description": "One container image. Generated from the recipes; see docs/profile.md.",
        "type": "object",
        "properties": properties,
        "additionalProperties": {"type": ["object", "null"], "description": "the parameters of a team's own recipe"},
    }


def schema_text(recipes: Iterable[Recipe]) -> str:
    """The schema as it is committed: the same recipes, the same bytes."""
    return json.dumps(profile_schema(recipes), indent=2, ensure_ascii=False) + "\n"


def _param(param: Param, recipe: Recipe) -> dict[str, Json]:
    needed = " (required)" if param.required else ""
    about = param.about or param.name
    return _typed(param.type, tuple(param.values), f"{about}{needed}; read by stage {recipe.name}")


def _typed(kind: str, choices: Iterable[str], about: str) -> dict[str, Json]:
    if kind == "boolean":
        found: dict[str, Json] = {"type": ["boolean", "null"]}
    elif kind == "choice":
        found = {"enum": [*choices, None]}
    elif kind == "date":
        found = {"type": ["string", "null"], "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
    elif kind == "r-tarballs":
        found = {"type": ["object", "null"], "additionalProperties": {"type": ["string", "null"]}}
    elif kind in ("texts", "conda-specs", "r-packages", "requirements"):
        found = {"type": ["array", "null"], "items": _TEXT}
    else:
        found = {"type": ["string", "null"], "pattern": r"\S"}
    return {**found, "description": about}
