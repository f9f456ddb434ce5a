"""Reader of `conda-lock.yml`, with the models of conda-lock (the extra `conda-lock`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cregraph.errors import CregraphError
from cregraph.init.carried import Carried
from cregraph.init.environment_yml import add_channel, add_conda
from cregraph.profile.package_texts import requirement
from cregraph.text import printable

__all__ = ["read_conda_lock"]

_PLATFORM = "linux-64"


def read_conda_lock(path: Path, into: Carried) -> None:
    """Add the channels, and the packages of linux-64 that no other package needs, each with its locked version.

    Python packages of conda are left out: the image's Python is that of its base, and pip's packages go there.
    """
    lock = _loaded(path, into.file)
    packages = sorted((one for one in lock.package if one.platform == _PLATFORM), key=lambda one: (one.name, one.manager))
    if not packages:
        raise CregraphError(f"{into.file}: it has no packages for {_PLATFORM}", hint=f"lock it for {_PLATFORM}")
    for channel in lock.metadata.channels:
        add_channel(channel.url, 0, into)
    asked = _asked(packages)
    pip = {one.name for one in asked if one.manager == "pip"}
    for one in asked:
        spec = f"{one.name}=={one.version}"
        if why := _left_out(one, pip):
            into.leave(0, spec, why)
        elif one.manager == "pip":
            into.add("extras.pip", spec, 0, requirement)
        else:
            add_conda(spec, 0, into)
    for platform in sorted({one.platform for one in lock.package} - {_PLATFORM}):
        into.leave(0, platform, f"an image is for {_PLATFORM}")
    into.leave(0, f"{len(packages) - len(asked)} packages that others need", "`cregraph lock` chooses their versions")


def _loaded(path: Path, name: str) -> Any:
    """The lock in the form of conda-lock's version 2. `name` is the file's, for messages."""
    try:
        from conda_lock.lockfile import parse_conda_lock_file
    except ImportError:
        raise CregraphError(
            f"{name}: conda-lock is not installed, and its models read this file",
            hint="install the extra: pip install 'cregraph[conda-lock]'",
        ) from None
    try:
        return parse_conda_lock_file(path)
    except Exception as error:  # pydantic, yaml and conda-lock have no common class
        raise CregraphError(f"{name}: conda-lock cannot read it: {printable(str(error), 200, keep=' ')}") from None


def _asked(packages: Sequence[Any]) -> list[Any]:
    """The packages that no other package of the same manager needs, and R and Python."""
    needed = {(one.manager, name) for one in packages for name in one.dependencies if name not in ("r-base", "python")}
    return [one for one in packages if (one.manager, one.name) not in needed]


def _left_out(one: Any, pip: Collection[str]) -> str | None:
    """The reason why a package is not carried over, if there is one. `pip` are the packages that pip locks."""
    if one.categories and "main" not in one.categories:
        return f"belongs to the category {', '.join(sorted(one.categories))}"
    if one.manager == "conda" and "python" in one.dependencies and not one.name.startswith("r-"):
        is_pips = "pip locks it too, and that version is carried over"
        return f"a Python package of conda; {is_pips if one.name in pip else 'add it to extras.pip'}"
    return None
