"""The command line as typer knows it. Each command declares its options in the module of its own name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

__all__ = ["COMMANDS", "GROUPS", "app_for", "command_of"]

_ABOUT = "Build container images for R and Python from one profile and one lock."

#: The commands in the groups and in the order of `cregraph --help`, with the first sentence of their help. The module
#: cregraph.cli.NAME holds a function or a group of commands called NAME. The sentences stand here so that help does not have to
#: import the modules.
GROUPS = {
    "Make": {
        "init": "Write a first profile, sources.yaml and the files for git.",
        "lock": "Write the lock of each profile.",
        "plan": "Show what a build would download and make, and why.",
        "build": "Build the image of each lock.",
        "test": "Start the image in Docker and check that it works.",
        "demo": "Write a small project, lock it and build it.",
    },
    "Review": {
        "diff": "Show what changes between two locks.",
        "why": "Show why the lock has a package.",
    },
    "Publish": {
        "push": "Push the image of the lock to a registry.",
        "verify": "Check that an image holds what the lock says.",
        "export": "Write the image as a Dockerfile or as a bake file.",
        "vendor": "Copy everything that the locks need into one folder.",
    },
    "Look after": {
        "cache": "Show, check and clean the store.",
        "doctor": "Check whether this machine can build.",
        "shell": "Open the sandbox of a task.",
    },
}
COMMANDS = {name: about for commands in GROUPS.values() for name, about in commands.items()}


def command_of(name: str) -> Callable[..., Any] | typer.Typer:
    """Return the function or group of one of COMMANDS. Imports its module, and no other command's."""
    found: Callable[..., Any] | typer.Typer = getattr(importlib.import_module(f"cregraph.cli.{name}"), name)
    return found


def app_for(words: Sequence[str] | None = None) -> typer.Typer:
    """Return the app for the command line `words`. It knows only names and first sentences of the other commands.

    Without `words`, and where a shell asks to complete a line, every command is loaded.
    """
    from cregraph.cli.help_page import CommandWithPage, GroupWithPage

    app = typer.Typer(
        name="cregraph",
        cls=GroupWithPage,
        help=_ABOUT,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=_ABOUT)(_top)
    every = words is None or "_CREGRAPH_COMPLETE" in os.environ
    for name, about in COMMANDS.items():
        command = command_of(name) if every or name in (words or ())[:1] else _other
        if isinstance(command, typer.Typer):
            for each in command.registered_commands:
                each.cls = CommandWithPage
            app.add_typer(command, name=name, help=about, cls=GroupWithPage)
        else:
            app.command(name, help=about, cls=CommandWithPage)(command)
    return app


def _other() -> None:
    """Stand for a command that the command line does not name."""


def _version(value: bool) -> None:
    if value:
        from cregraph import __version__

        print(f"cregraph {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Take the options that go without a command."""
