"""The content of another tool's file in the fields of a profile, and the parts that could not be carried over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cregraph.errors import CregraphError
from cregraph.profile.stated import shown
from cregraph.text import redacted_text

__all__ = ["Carried"]


@dataclass(kw_only=True, slots=True)
class Carried:
    """Values for a profile by field, such as `extras.pip`, and a line for each thing that was left out.

    Attributes:
        file: The name that messages show.
        channels: Addresses of conda channels by name, for sources.yaml.
    """

    file: str
    fields: dict[str, str | bool | list[str] | dict[str, str]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    channels: dict[str, str] = field(default_factory=dict)

    def leave(self, line: int, text: str, why: str) -> None:
        """Record that the text on `line` is not carried over. Line 0 stands for the whole file."""
        place = f"{shown(self.file)}:{line}" if line else shown(self.file)
        self.left.append(f"{place}: `{shown(redacted_text(text))}`: {why}")

    def add(self, name: str, text: str, line: int, check: Callable[[str], object]) -> None:
        """Add `text` to the list `name`, or leave it out if `check` refuses it."""
        try:
            check(text)
            if not text.isprintable():
                raise ValueError("holds a character that cannot be printed")
        except CregraphError as error:
            self.leave(line, text, error.message.removeprefix(f"`{shown(text)}` "))
        except ValueError as error:
            self.leave(line, text, str(error))
        else:
            listed = self.fields.setdefault(name, [])
            assert isinstance(listed, list)
            listed.append(text)
