"""Parts of the environment: folders that are made once, whole or not at all, and kept.

A part is made under a temporary name and renamed when it is complete, so a run that is interrupted goes on with the
parts it had finished. One lock on the whole environment: two runs never make it at the same time.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[str], None]

EPOCH = 1_704_067_200  # 2024-01-01T00:00:00Z, the time of everything that is made here


def words(text: str) -> list[str]:
    """The words of a text, for long lists of names."""
    return text.split()


class EnvironmentUnavailable(Exception):
    """This machine cannot make the test environment; the message says what is missing."""


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the lock of the environment at `root`, waiting for whoever has it."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep(root: Path) -> None:
    """Remove what interrupted runs left. Only for the holder of the lock."""
    for left in root.glob(".*.making"):
        shutil.rmtree(left, ignore_errors=True)


def part(root: Path, name: str, make: Callable[[Path], None], progress: Progress) -> Path:
    """The folder `root/name`, filled by `make` unless it is there."""
    final = root / name
    if final.exists():
        return final
    started = time.monotonic()
    making = root / f".{name.replace('/', '-')}.making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    progress(f"{name}: making")
    make(making)
    final.parent.mkdir(parents=True, exist_ok=True)
    making.replace(final)
    progress(f"{name}: made in {time.monotonic() - started:.1f} s")
    return final
