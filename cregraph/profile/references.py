"""References in recipes: `$(…)`. A value is inserted as it is; nothing is computed.

    $(param)         a parameter of this recipe; for a choice, the name chosen
    $(choice.field)  a field of the record that the chosen name carries
    $(give)          what this recipe gives
    $(stage.give)    what a stage in `needs` gives; `base` is the stage that brings the image, whatever its name

A reference that is the whole value keeps its type. A list inside a list is spliced, and null inside a list is left out. Only
text can be inserted into text. One fact is known only after locking: `$(stage.python)` of a stage with an `image` step. It
stays as written and must be a whole value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cregraph.errors import nearest
from cregraph.profile.stated import BAD, Problem, Stated, shown
from cregraph.profile.values import beside

__all__ = ["BASE", "LATE", "Scope", "references_in"]

#: The name in `needs` and references of the stage that has the `image` step.
BASE = "base"
#: The facts of a base that a recipe may refer to.
LATE = ("python",)

#: What the references of one stage may bring in, in characters and items: a few lines can double a text thirty times.
MAX_SUBSTITUTED = 2_000_000

_REFERENCE = re.compile(r"\$\(([^()]*)\)?")
_NAME = re.compile(r"[a-z][a-z0-9_-]*(?:\.[A-Za-z][A-Za-z0-9_-]*)?")


def references_in(node: Stated) -> Iterator[str]:
    """Return the text between the brackets of each reference below `node`."""
    todo = [node]
    while todo:
        here = todo.pop()
        if isinstance(here.value, str):
            yield from _REFERENCE.findall(here.value)
        todo.extend(here.items)
        todo.extend(here.fields.values())


@dataclass(kw_only=True, slots=True)
class Scope:
    """The values that references of one stage can name. Problems are added to `problems`.

    Attributes:
        records: For each choice the record of the chosen value.
        gives: What this stage gives, as written.
        needs: For each needed stage what it gives. `bases` are those with an image: the name in `needs` to the stage's own.
        others: The stages of the image that this one does not need.
        paths: While true, a text that begins with `./` is a path next to the recipe, which lies in `folder`.
    """

    stage: str
    params: Mapping[str, Stated]
    records: Mapping[str, Mapping[str, Stated]]
    gives: Mapping[str, Stated]
    needs: Mapping[str, Mapping[str, Stated]]
    bases: Mapping[str, str]
    others: frozenset[str]
    problems: list[Problem]
    folder: str
    paths: bool = False
    _given: dict[str, Stated] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _size: int = 0

    def give(self, name: str) -> Stated:
        """Return what this stage gives under `name`."""
        if name not in self._given:
            self._open.append(name)
            value = self.resolve(self.gives[name])
            items = value.items if value.is_list else (value,)
            if not value.bad and not all(isinstance(item.value, str | bool) or item.value is None for item in items):
                value = self._wrong(self.gives[name], "a give must be a text, a boolean or a list of texts")
            self._given[name] = value
            self._open.pop()
        return self._given[name]

    def resolve(self, node: Stated) -> Stated:
        """Return the value of `node` with its references substituted; it is `bad` if one of them cannot be."""
        if node.is_number:
            self.problems.append(node.no_number())
            return BAD
        if isinstance(node.value, str):
            return self._text(node, node.value)
        if node.is_list:
            return self._list(node)
        if node.is_mapping:
            found = {}
            for key, item in node.fields.items():
                if "$(" in key:
                    found[key] = self._wrong(item, "a key cannot be a reference")
                else:
                    found[key] = self.resolve(item)
            return Stated(value=found, place=node.place, bad=any(item.bad for item in found.values()))
        assert node.value is None or isinstance(node.value, bool)
        return Stated(value=node.value, place=node.place)

    def _list(self, node: Stated) -> Stated:
        found: list[Stated] = []
        for item in node.items:
            value = self.resolve(item)
            if isinstance(item.value, str) and value.is_list:
                found.extend(value.items)
            elif value.bad or value.value is not None:
                found.append(value)
        return Stated(value=tuple(found), place=node.place, bad=any(item.bad for item in found))

    def _text(self, node: Stated, text: str) -> Stated:
        whole = _REFERENCE.fullmatch(text)
        if whole:
            return self._bounded(node, whole)
        parts: list[str] = []
        stated: Stated | None = None
        end = 0
        for match in _REFERENCE.finditer(text):
            value = self._bounded(node, match)
            if value.bad:
                return BAD
            if value.late:
                hint = "give it a value of its own"
                return self._wrong(node, f"`{match[0]}` is known only after locking and cannot stand inside text", hint)
            if not isinstance(value.value, str):
                return self._not_text(node, match[0], value)
            parts += (text[end : match.start()], value.value)
            end = match.end()
            if stated is None and value.by_profile:
                stated = value
        result = "".join(parts) + text[end:]
        if self.paths and text.startswith(("./", "../")):
            found = beside(self.folder, result)
            if found is None:
                return self._wrong(node, f"`{shown(result)}` is not a path below the folder of the recipe", "write ./file")
            result = found
        return Stated(value=result, place=(stated or node).place, by_profile=stated is not None)

    def _not_text(self, node: Stated, reference: str, value: Stated) -> Stated:
        if value.value is None:
            return self._wrong(node, f"`{reference}` stands inside text and is not set (see {value.where})")
        if value.is_list:
            return self._wrong(
                node, f"`{reference}` is a list and cannot stand inside text", "give it an item of its own in a list"
            )
        what = "a mapping" if value.is_mapping else "a boolean"
        return self._wrong(node, f"`{reference}` is {what} and cannot stand inside text")

    def _bounded(self, node: Stated, match: re.Match[str]) -> Stated:
        value = self._look_up(node, match)
        if isinstance(value.value, Sequence | Mapping):
            self._size += len(value.value)
        if self._size > MAX_SUBSTITUTED:
            return self._wrong(node, "the references of this recipe expand to too many values")
        return value

    def _look_up(self, node: Stated, match: re.Match[str]) -> Stated:
        name = match[1]
        if not match[0].endswith(")"):
            return self._wrong(node, f"`{shown(match[0])}` has no closing bracket", "write $(name)")
        if not _NAME.fullmatch(name):
            hint = "write $(param), $(give) or $(stage.give)"
            return self._wrong(node, f"`{shown(match[0])}` is not a reference", hint)
        head, dot, tail = name.partition(".")
        if not dot:
            return self._own(node, name)
        if head in self.records:
            return self._found(node, tail, self.records[head], f"the choice `{head}` has no field `{tail}`", f"{head}.")
        if head in self.needs:
            return self._given_by(node, head, tail)
        if head == self.stage and tail in self.gives:
            return self._wrong(node, f"`$({name})` is a give of this recipe", f"write $({tail})")
        if head in self.others:
            return self._wrong(node, f"stage `{self.stage}` does not need `{head}`", f"add `{head}` to its needs")
        near = nearest(head, [*self.needs, *self.records])
        known = f"write `$({near}.{tail})` instead" if near else None
        return self._wrong(node, f"unknown stage or choice `{head}`", known)

    def _own(self, node: Stated, name: str) -> Stated:
        if name in self.params:
            return self.params[name]
        if name in self._open:
            path = " needs ".join(f"`{n}`" for n in [*self._open[self._open.index(name) :], name])
            return self._wrong(node, f"a give refers to itself: {path}")
        if name in self.gives:
            return self.give(name)
        near = nearest(name, [*self.params, *self.gives])
        hint = f"write `$({near})` instead" if near else None
        return self._wrong(node, f"unknown parameter or give `{name}`", hint)

    def _given_by(self, node: Stated, stage: str, name: str) -> Stated:
        if stage in self.bases and name in LATE:
            return Stated(value=f"$({self.bases[stage]}.{name})", place=node.place, late=True)
        gives = self.needs[stage]
        known = {**gives, **dict.fromkeys(LATE, BAD)} if stage in self.bases else gives
        by = self.bases.get(stage, stage)
        add = f"add `{name}` to `gives` of the recipe `{by}`" if stage in self.bases else None
        return self._found(node, name, known, f"stage `{by}` gives no `{name}`", f"{stage}.", add)

    def _found(
        self, node: Stated, name: str, known: Mapping[str, Stated], otherwise: str, before: str, add: str | None = None
    ) -> Stated:
        if name in known:
            return known[name]
        near = nearest(name, known)
        hint = f"write `$({before}{near})` instead" if near else add or f"it has {', '.join(sorted(known))}" if known else None
        return self._wrong(node, otherwise, hint)

    def _wrong(self, node: Stated, text: str, hint: str | None = None) -> Stated:
        self.problems.append(node.problem(text, hint))
        return BAD
