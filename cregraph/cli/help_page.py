"""The help page of a command: options and arguments from its declaration, longer texts from help.yaml, in 80 columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from cregraph.cli.app import GROUPS

__all__ = ["CommandWithPage", "GroupWithPage", "pages"]

_WIDTH = 80
_INDENT = 26  # where the text of an argument or option begins


@cache
def pages() -> dict[str, dict[str, Any]]:
    """Return help.yaml: for each command `about`, `examples`, `common` (options), `exits` and `see`. Only help reads it."""
    import yaml

    found: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "help.yaml").read_text(encoding="utf-8"))
    return found


class CommandWithPage(TyperCommand):
    """A command whose help is a page."""

    def get_help(self, ctx: Any) -> str:
        page = pages()[" ".join(ctx.command_path.split()[1:])]
        params: list[Any] = self.get_params(ctx)
        options = [one for one in params if one.param_type_name == "option"]
        arguments = [one for one in params if one.param_type_name == "argument"]
        common = [next(one for one in options if name in one.opts) for name in page["common"]]
        others = [one for one in options if one not in common]
        parts = [
            [f"Usage: {' '.join([ctx.command_path, '[OPTIONS]', *map(_shown, arguments)])}"],
            [f"  {self.help}"],
            _wrapped(page["about"]),
            _table("Examples", page["examples"]),
            _table("Arguments", [(one.metavar, one.help) for one in arguments], _INDENT),
            _table("Common options", list(map(_option, common)), _INDENT),
            _table("Other options" if common else "Options", list(map(_option, others)), _INDENT),
            _table("Exit codes", [(str(code), text) for code, text in page["exits"].items()]),
            _wrapped(f"See also: {page['see']}", indent=""),
        ]
        return "\n\n".join("\n".join(part) for part in parts if part)


class GroupWithPage(TyperGroup):
    """A group of commands whose help is one screen."""

    def get_help(self, ctx: Any) -> str:
        own = {name: self.commands[name].help or "" for name in self.list_commands(ctx)}
        lines = [f"Usage: {ctx.command_path} COMMAND [OPTIONS]", "", f"  {self.help}", ""]
        for title, names in (GROUPS if ctx.parent is None else {"Commands": own}).items():
            lines += [f"{'' if i else title + ':':<13}{name:<8}{about}" for i, (name, about) in enumerate(names.items())]
        options = ", ".join(_option(one)[0] for one in self.get_params(ctx))
        return "\n".join([*lines, "", f"{'Options:':<13}{options}", f"Run `{ctx.command_path} COMMAND --help` for examples."])


def _shown(argument: Any) -> str:
    text = argument.metavar if argument.required else f"[{argument.metavar}]"
    return f"{text}..." if argument.nargs == -1 else text


def _option(option: Any) -> tuple[str, str]:
    """Return the names of an option with its value, and what it does."""
    if "--help" in option.opts:
        return "-h, --help", "Show this help."
    return " ".join(filter(None, [", ".join(sorted(option.opts, key=len)), option.metavar])), option.help


def _table(title: str, rows: Sequence[Sequence[str]], indent: int = 0) -> list[str]:
    """Return the title and two columns; nothing without rows. `indent` is where the second column begins; 0 fits the first."""
    indent = indent or 4 + max(len(name) for name, _ in rows)
    texts = ["\n".join(_wrapped(text, " " * indent)).strip() for _, text in rows]
    lines = [f"  {name:<{indent - 2}}{text}" for (name, _), text in zip(rows, texts, strict=True)]
    return [f"{title}:", *lines] if rows else []


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    wrap = textwrap.TextWrapper(
        _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    whole = re.sub(r"\[[^]]*\]", lambda part: part[0].replace(" ", "\xa0"), text)  # `[default: x]` stays on one line
    return [line.replace("\xa0", " ") for line in wrap.wrap(whole)]
