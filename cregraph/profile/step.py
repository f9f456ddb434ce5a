"""Steps: what profile/ makes and the kinds read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cregraph.digest import Json

__all__ = ["Step"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of a recipe as a profile uses it: early references are substituted, late ones (`$(snowbooks.python)`) stay.

    `fields` is the mapping under the kind's name, already checked for unknown fields and types against the kind's `FIELDS`.
    `where` gives for a path in `fields` (`specs[3]`, `packages.snowflakeR`, `` for the step itself) the line that stated the
    value: `my_team.yaml:20: extras.conda_r[0]`. Paths are resolved: `./x` lies in the project, `standard:x` beside the
    recipes that ship with cregraph.
    """

    kind: str
    stage: str
    fields: Mapping[str, Json]
    where: Mapping[str, str]

    def place_of(self, path: str) -> str:
        """The line that stated the value at `path`, or the nearest enclosing one."""
        while path and path not in self.where:
            path = path.rpartition(".")[0] if path.rfind(".") > path.rfind("[") else path.rpartition("[")[0]
        return self.where.get(path, self.where.get("", f"stage {self.stage}"))
