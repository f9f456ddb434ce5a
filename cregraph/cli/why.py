"""`cregraph why`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from packaging.utils import canonicalize_name

from cregraph.cli.options import AsJson, Profile
from cregraph.cli.terminal_output import as_json, result, talk
from cregraph.errors import CregraphError, Refused, nearest
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Target
from cregraph.review import why as review
from cregraph.session.project import Project
from cregraph.text import printable

__all__ = ["why"]


def why(
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="Name of a package. conda:NAME, r:NAME or py:NAME selects one ecosystem.")
    ],
    profile: Profile = None,
    json: AsJson = False,
) -> None:
    """Show why the lock has a package."""
    project = Project.of(profile)
    lock = project.read_lock()
    if lock is None:
        raise CregraphError(f"{project.shown_lock}: the lock does not exist", hint=f"run `cregraph lock {project.profile}`")
    answers = review.why(lock, package, current=_current(project))
    meant = None if answers else nearest(package, review.names(lock))
    base = None if answers else _in_base(project, lock, package)
    if json:
        answer = {"lock": project.shown_lock, "package": package, "pins": review.as_json(answers)}
        as_json(answer if answers else {**answer, "nearest": meant, "base": base})
        if not answers:
            raise SystemExit(1)
        return
    if not answers:
        hint = f"write `{printable(meant)}` instead" if meant else None
        if base is not None:
            hint = f"the base image has it, version {printable(base)}; the lock pins only what is added to the base"
        raise Refused(f"`{project.shown_lock}` has no pin of `{printable(package)}`", hint=hint)
    for line in review.as_text(answers):
        result(printable(line))


def _current(project: Project) -> Sequence[Target]:
    """Return what the profile asks now; nothing, after a line on stderr, if it cannot be read."""
    try:
        return project.asked().targets
    except CregraphError as error:
        talk(f"cannot show line numbers: {printable(error.message.partition(chr(10))[0])}")
        return ()


def _in_base(project: Project, lock: Lock, package: str) -> str | None:
    """Return the version of the base's own Python package of that name, if the base facts name one."""
    try:
        python = project.facts(lock.base).python
    except CregraphError:
        return None
    return python.distributions.get(canonicalize_name(package.removeprefix("py:"))) if python else None
