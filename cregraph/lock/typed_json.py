"""JSON files that people edit and git merges: the lock, its outputs, base facts.

`parse` refuses a file that is not complete. A `Field` returns typed values of it; its errors name file and place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from cregraph.digest import Json, is_sha256
from cregraph.errors import CregraphError
from cregraph.text import printable

__all__ = ["Field", "parse", "spaced"]

_CONFLICT = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)


class Field:
    """A value of a JSON file and its place, such as `targets[0].pins[3].size`."""

    __slots__ = ("_hint", "_name", "place", "value")

    def __init__(self, value: Json, place: str, *, name: str, hint: str) -> None:
        self.value = value
        self.place = place
        self._name = name
        self._hint = hint

    def wrong(self, why: str) -> CregraphError:
        """Return the error for this value, with the place and the file's hint."""
        return CregraphError(f"{self._name}: {printable(self.place) or 'the file'}: {why}", hint=self._hint)

    def called(self, name: str) -> Field:
        """Return this field with `name` in its place. A reader finds an item by its name, not its number."""
        return self._at(self.value, f"{self.place} ({name})")

    def fields(self, *required: str, **defaults: Json) -> dict[str, Field]:
        """Return the fields of an object. Refuses unknown and missing fields; those in `defaults` may be missing."""
        value = self.mapping()
        for key in value:
            if key not in required and key not in defaults:
                raise self._of(key, None).wrong("unknown field")
        for key in required:
            if key not in value:
                raise self._of(key, None).wrong("is missing")
        return {key: self._of(key, each) for key, each in {**defaults, **value}.items()}

    def entries(self) -> Iterator[tuple[str, Field]]:
        """Yield the fields of an object whose names are data."""
        return ((key, self._of(key, each)) for key, each in self.mapping().items())

    def items(self) -> Iterator[Field]:
        if not isinstance(self.value, list):
            raise self.wrong("expected a list")
        return (self._at(each, f"{self.place}[{number}]") for number, each in enumerate(self.value))

    def mapping(self) -> Mapping[str, Json]:
        if not isinstance(self.value, dict):
            raise self.wrong("expected an object")
        return self.value

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("expected a text")
        return self.value

    def texts(self) -> tuple[str, ...]:
        if not isinstance(self.value, list) or not all(isinstance(each, str) for each in self.value):
            raise self.wrong("expected a list of texts")
        return tuple(self.value)

    def number(self, least: int = 0) -> int:
        """Return a whole number from `least`."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < least:
            raise self.wrong(f"expected a whole number from {least}")
        return self.value

    def sha256(self) -> str:
        text = self.text()
        if not is_sha256(text):
            raise self.wrong(f"`{printable(text, 80)}` is not a sha256 (expected 64 lower-case hex digits)")
        return text

    def _of(self, key: str, value: Json) -> Field:
        return self._at(value, f"{self.place}.{key}" if self.place else key)

    def _at(self, value: Json, place: str) -> Field:
        return Field(value, place, name=self._name, hint=self._hint)


def parse(text: str, *, name: str, what: str, version: int, limit: int, hint: str, merge: str) -> Field:
    """Return the object that the file `name` holds.

    Floats are refused, because keys cover the content of these files. `what` names the content in messages ("lock"). `version`
    is the newest supported one, `limit` a number of characters. `hint` is for broken files, `merge` for unfinished merges.

    Raises:
        CregraphError: The text is too long, not JSON, of a newer version, or an unfinished merge.
    """
    if len(text) > limit:
        raise CregraphError(f"{name}: larger than {limit >> 20} MiB", hint=hint)
    if conflict := _CONFLICT.search(text):
        line = text.count("\n", 0, conflict.start()) + 1
        raise CregraphError(f"{name}:{line}: git's conflict markers are in the {what}: a merge was not finished", hint=merge)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)
    except RecursionError:
        raise CregraphError(f"{name}: nested too deeply", hint=hint) from None
    except json.JSONDecodeError as error:
        raise CregraphError(f"{name}:{error.lineno}:{error.colno}: not readable as JSON: {error.msg}", hint=hint) from None
    except ValueError as error:
        raise CregraphError(f"{name}: {error}", hint=hint) from None
    top = Field(value, "", name=name, hint=hint)
    found = Field(top.mapping().get("version"), "version", name=name, hint=hint).number(1)
    if found > version:
        raise CregraphError(f"{name}: {what} version {found} (expected at most {version})", hint="upgrade cregraph")
    return top


def spaced(items: Sequence[Mapping[str, Json]]) -> list[str]:
    """Return the items of a list as lines, with empty lines between, so that git merges changes."""
    out = []
    for number, item in enumerate(items):
        out += ["", json.dumps(item, ensure_ascii=False) + ("," if number + 1 < len(items) else "")]
    return [*out, ""]


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the field `{printable(twice, 80)}` is given twice in one object")
    return found


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"`{text[:80]}` is not a whole number")
