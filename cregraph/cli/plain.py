"""Command lines that leave no doubt, read without typer's machinery.

Before it calls a command, typer builds every command with all of its options, and an adapter of pydantic for each option of the
one that is called: that takes longer than most commands do. What app.py declares stays the only declaration. This reads it, and
reads only what can be meant in one way; all else (help, a mistake, a short cut, a group of commands) is left to typer, which
also explains it. A test holds the two to the same answers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

__all__ = ["plain"]

_TEXT, _FLAG, _NUMBER, _TEXTS = "text", "flag", "number", "texts"
_FORMS = {str: _TEXT, str | None: _TEXT, bool: _FLAG, int: _NUMBER, list[str]: _TEXTS, list[str] | None: _TEXTS}

_UNUSUAL = ("callback", "envvar", "parser", "click_type", "default_factory", "max", "is_eager", "count", "prompt", "flag_value")


class _Doubt(Exception):
    """Something that typer is to decide."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    form: str
    info: ParameterInfo
    required: bool


def plain(app: typer.Typer, words: Sequence[str]) -> Callable[[], object] | None:
    """The call that the command line `words` asks for, or None where typer is to read it."""
    for info in app.registered_commands:
        function = info.callback
        if not words or function is None or (info.name or function.__name__.lower().replace("_", "-")) != words[0]:
            continue
        if info.context_settings or info.no_args_is_help:
            return None
        try:
            return functools.partial(function, **_read(_declared(function), list(words[1:])))
        except _Doubt:
            return None
    return None


def _declared(function: Callable[..., Any]) -> list[_Parameter]:
    found = []
    for one in inspect.signature(function, eval_str=True).parameters.values():
        kind, *more = get_args(one.annotation) if get_origin(one.annotation) is not None else (one.annotation,)
        infos = [each for each in more if isinstance(each, ParameterInfo)]
        form = next((form for known, form in _FORMS.items() if kind == known), None)
        if form is None or len(infos) != 1 or not _simple(infos[0]):
            raise _Doubt
        found.append(_Parameter(one.name, form, infos[0], one.default is inspect.Parameter.empty))
    return found


def _simple(info: ParameterInfo) -> bool:
    """Whether a parameter is one of those that are understood here. Not every version of typer has all of these fields."""
    return all(getattr(info, name, None) in (None, False) for name in _UNUSUAL)


def _read(declared: Sequence[_Parameter], words: list[str]) -> dict[str, Any]:
    options = {word: one for one in declared if isinstance(one.info, OptionInfo) for word in _names(one)}
    if any("/" in word or not word.startswith("-") for word in options):
        raise _Doubt
    values: dict[str, Any] = {}
    plain_words = []
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            plain_words.append(word)
            continue
        word, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        one = options.get(word)
        if one is None or (equals and one.form == _FLAG):
            raise _Doubt
        if one.form == _FLAG:
            values[one.name] = True
            continue
        if not equals:
            value = words.pop(0) if words else "-"
            if value.startswith("-"):
                raise _Doubt
        _take(values, one, value)
    for one in declared:
        if isinstance(one.info, ArgumentInfo):
            many = len(plain_words) if one.form == _TEXTS else 1
            for word in plain_words[:many]:
                _take(values, one, word)
            del plain_words[:many]
        if one.required and one.name not in values:
            raise _Doubt
    if plain_words:
        raise _Doubt
    return values


def _names(one: _Parameter) -> tuple[str, ...]:
    """What an option is called. In an annotation the first name stands where a default would."""
    first = (one.info.default,) if isinstance(one.info.default, str) else ()
    named = (*first, *(getattr(one.info, "param_decls", None) or ()))
    return named or (f"--{one.name.replace('_', '-')}",)


def _take(values: dict[str, Any], one: _Parameter, word: str) -> None:
    if one.form == _TEXTS:
        values.setdefault(one.name, []).append(word)
    elif one.form == _NUMBER:
        if not (word.isascii() and word.isdigit()) or (one.info.min is not None and int(word) < one.info.min):
            raise _Doubt
        values[one.name] = int(word)
    else:
        values[one.name] = word
