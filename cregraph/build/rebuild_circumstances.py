"""The circumstances of a second build: everything that must not decide bytes is different from this process.

The clock cannot be set, so a result that holds the date only differs on another day.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Circumstances", "other_circumstances"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """How another process is started.

    Attributes:
        described: What differs from this process, for people: name to value.
        prefix: Words before the command.
        env: The whole environment.
        processors: Numbers of the processors to run on; empty for all.
        jobs: Number of jobs at a time.
    """

    described: dict[str, str]
    prefix: list[str]
    env: dict[str, str]
    processors: list[int]
    jobs: int


def other_circumstances(folder: Path, store: Path, *, jobs: int, native: bool) -> Circumstances:
    """Return other circumstances than those of this process, which runs `jobs` jobs at a time.

    The store is the folder `store`; temporary files go into a new folder in `folder`. With `native`, tasks run in namespaces,
    so the user can be another one.
    """
    temporary = folder / "another folder for temporary files"
    temporary.mkdir()
    zone = "UTC" if os.environ.get("TZ") == "Asia/Kolkata" else "Asia/Kolkata"
    env = {
        **os.environ,
        "CREGRAPH_CACHE": str(store),
        "TZ": zone,
        "LC_ALL": "C",
        "LANG": "tr_TR.UTF-8",
        "TMPDIR": str(temporary),
        "USER": "somebody",
        "LOGNAME": "somebody",
        "PYTHONHASHSEED": "77",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))),
    }
    described = {"time zone": zone, "locale": "C", "umask": "077", "hash seed": "77"}
    processors: list[int] = []
    if hasattr(os, "sched_getaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        processors = mine[-1:] if len(mine) > 1 else []
        described["processors"] = f"{len(processors) or len(mine)} of {len(mine)}"
    prefix: list[str] = []
    unshare = shutil.which("unshare") if native and sys.platform == "linux" else None
    if unshare:
        user = ["--map-user=4242", "--map-group=4242"] if os.geteuid() == 0 else ["--map-root-user"]
        words = [unshare, "--user", *user]
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            prefix = words
            described["user"] = "4242, in a namespace" if os.geteuid() == 0 else "0, in a namespace"
    other_jobs = 1 if jobs > 1 else 2
    described["jobs"] = str(other_jobs)
    return Circumstances(described=described, prefix=prefix, env=env, processors=processors, jobs=other_jobs)
