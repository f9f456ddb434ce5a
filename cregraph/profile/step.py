"""Steps, which profile/ makes and kinds read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cregraph.digest import Json

__all__ = ["Step", "StepRules"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step of a recipe as a profile uses it: references are substituted, except late ones (`$(snowbooks.python)`).

    Attributes:
        fields: The mapping under the kind's name, checked against the kind's `FIELDS`. Paths are resolved: `./x` lies in the
            project, `standard:x` next to the recipes that ship with cregraph.
        where: For a path in `fields` (`specs[3]`, `packages.snowflakeR`, "" for the step itself) the place that states the
            value: `my_team.yaml:20: extras.conda_r[0]`.
    """

    kind: str
    stage: str
    fields: Mapping[str, Json]
    where: Mapping[str, str]

    def place_of(self, path: str) -> str:
        """Return the place that states the value at `path`, else that of the nearest list or mapping around it."""
        while path and path not in self.where:
            path = path.rpartition(".")[0] if path.rfind(".") > path.rfind("[") else path.rpartition("[")[0]
        return self.where.get(path, self.where.get("", f"stage {self.stage}"))


class StepRules(Protocol):
    """The part of a kind that profile/ uses."""

    #: The fields of a step: name to (type, required). Types: text, texts, path, paths, json, mapping.
    FIELDS: Mapping[str, tuple[str, bool]]
    #: Whether a step of this kind brings the base image, so that stages may refer to the base's facts.
    GIVES_BASE: bool
