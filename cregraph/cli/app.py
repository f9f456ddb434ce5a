"""The command line as typer knows it. Each command declares its options in the module of its own name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

__all__ = ["COMMANDS", "app_for", "command_of"]

_ABOUT = "Container images from one profile and one lock: the same lock, the same tag, the same digest."

#: What each command does, in the order of `cregraph --help`. The module cregraph.cli.NAME holds a function or a group of
#: commands called NAME. The texts stand here so that help does not have to import the modules.
COMMANDS = {
    "init": "Write a first profile with its sources.yaml and the files for git. Never overwrite a file.",
    "lock": "Pin every byte that the profile asks for; move nothing that nobody asked to move.",
    "plan": "What a build would fetch, make and reuse, and why. Opens no socket unless it is told to ask a registry.",
    "build": "Make the image of the lock. Prints its name with its digest.",
    "push": "Bring the image of the lock into a registry; only what is missing there moves. Prints its name with its digest.",
    "test": "Start the image: a real kernel, %%R, every asked-for package, the recipes' checks.",
    "diff": "What changes between two locks: packages, stages that rebuild, the tag. Exit 1 when they differ.",
    "why": "Print every path from the profile to a pin of the lock. Exit 1 when the lock has no such pin.",
    "export": "Write the image as text for another builder. Prints the command that builds it.",
    "verify": "What is in the image is what the lock says: packages, files, variables, labels. Exit 1 when it is not.",
    "vendor": "Copy everything that a lock needs into plain standard trees, with a sources.yaml that leads to them.",
    "doctor": "Whether a build can run here: engines, store, sources, credentials; with a way out for what is not well.",
    "shell": "Open the sandbox of a task, with all that the task sees. Ends with the status of what ran in it.",
    "demo": "A small project with its own little world: locked and built here, with no network, no Docker and no root.",
    "cache": "The store: what is in it, clearing it, checking it.",
}


def command_of(name: str) -> Callable[..., Any] | typer.Typer:
    """Return the function or group of one of COMMANDS. Imports its module, and no other command's."""
    found: Callable[..., Any] | typer.Typer = getattr(importlib.import_module(f"cregraph.cli.{name}"), name)
    return found


def app_for(words: Sequence[str] | None = None) -> typer.Typer:
    """Return the app for the command line `words`: of the other commands it knows only the names and what they do.

    Without `words`, and where a shell asks to complete a line, every command is loaded.
    """
    app = typer.Typer(
        name="cregraph",
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
            app.add_typer(command, name=name, help=about)
        else:
            app.command(name, help=about)(command)
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
