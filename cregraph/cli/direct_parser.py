"""Command lines with one possible meaning, read without typer.

Before typer calls a command it builds every command with its options, and a pydantic adapter for each option of the one that it
calls. That takes longer than most commands run. The signatures of the commands stay the only declaration: `direct_call` reads
them, and answers only where there is no doubt. Everything else (help, mistakes, abbreviations, groups of commands) is left to
typer, which also explains it. A test compares the two.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from cregraph.cli.app import COMMANDS, command_of

__all__ = ["direct_call"]

_TEXT, _FLAG, _NUMBER, _TEXTS = "text", "flag", "number", "texts"
_FORMS = {str: _TEXT, str | None: _TEXT, bool: _FLAG, int: _NUMBER, list[str]: _TEXTS, list[str] | None: _TEXTS}

_UNUSUAL = ("callback", "envvar", "parser", "click_type", "default_factory", "max", "is_eager", "count", "prompt", "flag_value")


class _Doubt(Exception):
    """A command line that typer must read."""


class _Parameter(NamedTuple):
    name: str
    form: str
    info: ParameterInfo
    required: bool


def direct_call(words: Sequence[str]) -> Callable[[], object] | None:
    """Return the call that the command line `words` asks for, or None where typer must read it."""
    if not words or words[0] not in COMMANDS:
        return None
    command = command_of(words[0])
    if isinstance(command, typer.Typer):
        return None
    try:
        return functools.partial(command, **_read(_declared(command), list(words[1:])))
    except _Doubt:
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
    """Return whether this module understands a parameter. Not every version of typer has all of these fields."""
    return all(getattr(info, name, None) in (None, False) for name in _UNUSUAL)


def _read(declared: Sequence[_Parameter], words: list[str]) -> dict[str, Any]:
    options = {word: one for one in declared if isinstance(one.info, OptionInfo) for word in _names(one)}
    if any("/" in word or not word.startswith("-") for word in options):
        raise _Doubt
    values: dict[str, Any] = {}
    rest = _take_options(options, words, values)
    for one in declared:
        if isinstance(one.info, ArgumentInfo):
            count = len(rest) if one.form == _TEXTS else 1
            for word in rest[:count]:
                _take(values, one, word)
            rest = rest[count:]
        if one.required and one.name not in values:
            raise _Doubt
    if rest:
        raise _Doubt
    return values


def _take_options(options: Mapping[str, _Parameter], words: list[str], values: dict[str, Any]) -> list[str]:
    """Put the values of the options in `words` into `values`. Return the other words."""
    rest = []
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            rest.append(word)
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        one = options.get(name)
        if one is None or (equals and one.form == _FLAG):
            raise _Doubt
        if one.form == _FLAG:
            values[one.name] = True
        else:
            _take(values, one, value if equals else _value(words))
    return rest


def _value(words: list[str]) -> str:
    if not words or words[0].startswith("-"):
        raise _Doubt
    return words.pop(0)


def _names(one: _Parameter) -> tuple[str, ...]:
    """Return what an option is called. In an annotation the first name stands where a default would."""
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
