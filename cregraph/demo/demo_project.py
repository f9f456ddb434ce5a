"""The files of the demo's project, without those that commands write."""

from __future__ import annotations

import shutil
from pathlib import Path

from cregraph.demo.channel import write_channel
from cregraph.demo.cran import write_cran
from cregraph.demo.demo_base import write_base
from cregraph.demo.index import write_index
from cregraph.errors import CregraphError

__all__ = ["PROFILE", "SOURCES", "WITH_CRAN", "claim", "finish", "write_project"]

#: Names of the project's files. They lie in `project/` next to this module.
PROFILE, WITH_CRAN, SOURCES = "demo.yaml", "with-cran.yaml", "sources.yaml"

#: Marker file while the demo is written, so that an interrupted demo can be written again.
_UNFINISHED = ".unfinished"


def claim(folder: Path) -> None:
    """Create `folder`, or reuse an empty one or an interrupted demo, and mark it until `finish`.

    Raises CregraphError for any other folder, and changes nothing in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CregraphError(
            f"`{folder}` cannot be created: {error.strerror or error}", hint="name another folder: cregraph demo DIR"
        ) from None
    if held and _UNFINISHED not in held:
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        raise CregraphError(
            f"`{folder}` is not empty: `{held[0]}`{more} is in it; cregraph does not change it",
            hint="name a folder that is new or empty: cregraph demo DIR",
        )
    (folder / _UNFINISHED).touch()


def finish(folder: Path) -> None:
    """Remove the marker file: the demo is complete."""
    (folder / _UNFINISHED).unlink(missing_ok=True)


def write_project(folder: Path) -> tuple[int, int, int]:
    """Write sources and profiles into `folder`, over files of an interrupted run. The bytes are always equal.

    Return the numbers of conda packages, packages of CRAN and wheels.
    """
    sources = folder / "sources"
    write_base(sources / "base")
    counts = write_channel(sources / "channel"), write_cran(sources / "cran"), write_index(sources / "simple")
    for name in (PROFILE, WITH_CRAN, SOURCES):
        shutil.copyfile(Path(__file__).parent / "project" / name, folder / name)
    (folder / ".gitignore").write_text("cache/*\nimage*/\n", encoding="utf-8")
    (folder / "cache").mkdir(exist_ok=True)
    return counts
