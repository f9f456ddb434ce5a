"""Measuring whole processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Failed", "Ran", "Sample", "measure"]

_WATCH = Path(__file__).with_name("watch.py")


class Failed(Exception):
    """A measured command did not do what it was to do; nothing that was measured of it counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What one run took: seconds by the clock and of the processors, KiB at its peak (`own`: of its first process alone)."""

    wall: float
    cpu: float
    peak: int
    own: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """One run, and what it wrote."""

    sample: Sample
    out: str
    err: str


def measure(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Ran:
    """Run a command to its end. Raises Failed, with what it said, when its exit status is not 0."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as told:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(_WATCH), str(write), *argv],
                cwd=cwd,
                env=dict(env),
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                pass_fds=(write,),
            )
        finally:
            os.close(write)
        line = told.readline()
    if not line:
        raise Failed(f"`{' '.join(argv)}` could not be started:\n{done.stderr}")
    found = json.loads(line)
    if found.pop("code") != 0:
        raise Failed(f"`{' '.join(argv)}` failed:\n{done.stderr}{done.stdout}")
    return Ran(sample=Sample(**found), out=done.stdout, err=done.stderr)
