"""The stages of an image: the standard ones, switched on and off by `with`, `without` and `cre.adbc` of a profile."""

from __future__ import annotations

from dataclasses import dataclass

from cregraph.errors import did_you_mean
from cregraph.profile.stated import Problem, Stated, shown

__all__ = ["STANDARD", "Switch", "Switches"]

#: The stages of an image unless its profile says otherwise, in the order in which ties are broken.
STANDARD = ("snowbooks", "micromamba", "r", "cran", "tarballs", "adbc", "python", "hook")


@dataclass(frozen=True, kw_only=True, slots=True)
class Switch:
    """The line that switched a stage on or off. `level` counts from 0, the farthest parent."""

    how: str  # `without`, `with`, `cre.adbc`
    node: Stated
    level: int

    def by(self, file: str = "") -> str:
        """Return what switched the stage, for messages; the file is named unless it is `file`."""
        place = self.node.place
        return f"{self.how} on line {place.line}" + ("" if place.file == file else f" of `{place.file}`")


class Switches:
    """The stages that are on, and those that a profile left out, with what switched them. Files are taken farthest first."""

    def __init__(self, problems: list[Problem]) -> None:
        self.stages: dict[str, Switch | None] = dict.fromkeys(STANDARD)
        self.off: dict[str, Switch] = {}
        self._problems = problems

    def take(self, top: Stated, level: int) -> None:
        """Take one file's `with`, `without` and `cre.adbc` into account."""
        on, off = (
            {name: Switch(how=key, node=node, level=level) for name, node in self._names(top, key).items()}
            for key in ("with", "without")
        )
        adbc = top.fields["cre"].fields.get("adbc") if "cre" in top.fields else None
        if adbc is not None and isinstance(adbc.value, bool):
            self._adbc(Switch(how="cre.adbc", node=adbc, level=level), *((on, off) if adbc.value else (off, on)))
        for name, switch in off.items():
            self._switch_off(name, switch, on.get(name))
        for name, switch in on.items():
            if switch.how == "cre.adbc" and name in self.stages:
                continue
            self.off.pop(name, None)
            self.stages[name] = switch

    def _adbc(self, switch: Switch, side: dict[str, Switch], opposite: dict[str, Switch]) -> None:
        other = opposite.get("adbc")
        if other is not None:
            text = f"`{other.how}` on line {other.node.place.line} says the opposite"
            self._problems.append(switch.node.problem(text, "remove one of them"))
        side.setdefault("adbc", switch)

    def _switch_off(self, name: str, switch: Switch, on: Switch | None) -> None:
        if on is not None and "cre.adbc" not in (switch.how, on.how):
            text = f"`{shown(name)}` is in `with` too, on line {on.node.place.line}"
            self._problems.append(switch.node.problem(text, "remove one of them"))
        elif name in self.stages:
            del self.stages[name]
        elif name not in self.off:
            hint = did_you_mean(name, self.stages)
            self._problems.append(switch.node.problem(f"unknown stage `{shown(name)}`", hint))
            return
        self.off[name] = switch

    def _names(self, top: Stated, key: str) -> dict[str, Stated]:
        node = top.fields.get(key)
        if node is None or node.value is None:
            return {}
        if not node.is_list:
            hint = f"write `{key}: [{shown(node.raw)}]`" if isinstance(node.value, str) else None
            self._problems.append(node.problem(f"expected a list of stages, not {node.what}", hint))
        found: dict[str, Stated] = {}
        for item in node.items:
            if not isinstance(item.value, str):
                self._problems.append(item.problem(f"expected the name of a stage, not {item.what}"))
            elif item.value in found:
                self._problems.append(item.problem(f"`{shown(item.value)}` is listed twice"))
            else:
                found[item.value] = item
        return found
