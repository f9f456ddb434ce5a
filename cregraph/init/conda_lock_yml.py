"""Read `conda-lock.yml` with the models of conda-lock (the extra `conda-lock`)."""

from __future__ import annotations

from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.init.carried import Carried
from cregraph.init.environment_yml import add_conda
from cregraph.profile.package_texts import requirement
from cregraph.text import printable

__all__ = ["read_conda_lock"]

_PLATFORM = "linux-64"


def read_conda_lock(path: Path, into: Carried) -> None:
    """Add the packages of linux-64 that no other package needs, each with its locked version."""
    try:
        from conda_lock.lockfile import parse_conda_lock_file
    except ImportError:
        raise CregraphError(
            f"`{into.file}`: conda-lock is not installed, and its models read this file",
            hint="install the extra: pip install 'cregraph[conda-lock]'",
        ) from None
    try:
        lock = parse_conda_lock_file(path)
    except Exception as error:  # pydantic, yaml and conda-lock have no common class
        raise CregraphError(f"`{into.file}`: conda-lock cannot read it: {printable(str(error), 200, keep=' ')}") from None
    packages = [one for one in lock.package if one.platform == _PLATFORM]
    if not packages:
        raise CregraphError(f"`{into.file}`: it has no packages for {_PLATFORM}", hint=f"lock it for {_PLATFORM}")
    needed = {name for one in packages for name in one.dependencies}
    for one in sorted(packages, key=lambda one: one.name):
        if one.name in needed and one.name != "r-base":
            continue
        if one.manager == "pip":
            into.add("extras.pip", f"{one.name}=={one.version}", 0, requirement)
        else:
            add_conda(f"{one.name}=={one.version}", 0, into)
    into.leave(0, f"{len(needed)} packages that others need", "`cregraph lock` chooses their versions")
