"""The files of the demo's project, without those that commands write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cregraph.demo.channel import write_channel
from cregraph.demo.cran import SNAPSHOT, write_cran
from cregraph.demo.demo_base import write_base
from cregraph.demo.index import write_index
from cregraph.errors import CregraphError

__all__ = ["PROFILE", "SOURCES", "WITH_CRAN", "SourceCounts", "claim", "finish", "write_project"]

#: Names of the project's files.
PROFILE, WITH_CRAN, SOURCES = "demo.yaml", "with-cran.yaml", "sources.yaml"

_DEMO = """\
# One file says what the image is. What it asks for is made up, the formats are not.
cre:
  name: demo_r
  image: demo-r
  tag: v1
  r_version: "4.5.2"
  snowbooks_tag: demo
  adbc: false                          # the sources of the demo do not have its driver

snowbooks: {image: "oci:sources/base", build_root: null}
micromamba: {channels: [demo]}
r: {packages: [demo-report]}           # instead of the tidyverse
python: {packages: ["demo-tables >=2"]}  # instead of rpy2; the base has it, so nothing is pinned

extras:
  conda_r:
    - r-demoframes                     # try r-demoframes =1.1.0
  pip:
    - demo-greeting >=1
"""

_WITH_CRAN = f"""\
# The same image with a package from CRAN. It can be locked here; building it compiles, which needs a true R.
extends: demo.yaml
cre: {{name: demo_r_cran, image: demo-r-cran, tag: v1}}
extras:
  cran_snapshot: {SNAPSHOT}
  cran: [demoplots]
"""

_SOURCES = """\
# Where names lead on this machine. A lock holds names only; this file can change without changing a digest.
conda: {demo: ./sources/channel}
cran: ./sources/cran
pypi: ./sources/simple
"""

_IGNORED = "cache/*\nimage*/\n"

#: Marker file while the demo is written, so that an interrupted demo can be written again.
_UNFINISHED = ".unfinished"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceCounts:
    """The number of packages written to each source."""

    conda: int
    cran: int
    wheels: int


def claim(folder: Path) -> None:
    """Create `folder`, or reuse an empty one or an interrupted demo, and mark it until `finish`.

    Raises CregraphError for any other folder, and changes nothing in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CregraphError(
            f"`{folder}` cannot be made: {error.strerror or error}", hint="name a folder that can: cregraph demo DIR"
        ) from None
    if held and _UNFINISHED not in held:
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        raise CregraphError(
            f"`{folder}` is not empty: `{held[0]}`{more} is in it; it is left as it is",
            hint="name a folder that is new or empty: cregraph demo DIR",
        )
    (folder / _UNFINISHED).touch()


def finish(folder: Path) -> None:
    """Remove the marker file: the demo is complete."""
    (folder / _UNFINISHED).unlink(missing_ok=True)


def write_project(folder: Path) -> SourceCounts:
    """Write sources and profiles into `folder`, over files of an interrupted run. The bytes are always equal."""
    sources = folder / "sources"
    write_base(sources / "base")
    counts = SourceCounts(
        conda=write_channel(sources / "channel"), cran=write_cran(sources / "cran"), wheels=write_index(sources / "simple")
    )
    for name, content in ((PROFILE, _DEMO), (WITH_CRAN, _WITH_CRAN), (SOURCES, _SOURCES), (".gitignore", _IGNORED)):
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    (folder / "cache").mkdir(exist_ok=True)
    return counts
