"""Seconds that jobs took by size: hints for `plan`, never part of a key or a result.

The record `throughput/<subject>` holds five sums over all jobs: count, bytes, seconds, squares of bytes, bytes times seconds. A
line is fitted to them. An invalid record counts as absent.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from cregraph.store import Store

__all__ = ["Rate", "Throughput", "rates"]

_SECTION = "throughput"
_SUBJECTS = ("artifact", "segment", "layer", "push", "task")
#: From so many jobs on, old sums are halved, so that estimates follow a machine that became faster.
_ENTRIES = 400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Seconds for each job and for each of its bytes, in one thread."""

    each: float
    byte: float

    def seconds(self, size: int) -> float:
        return self.each + self.byte * size


def rates(store: Store) -> dict[str, Rate]:
    """Return the recorded rates by subject: `artifact`, `segment`, `layer`, `push`, `task`."""
    return {name: rate for name in _SUBJECTS if (rate := _rate(store.record(_SECTION, name))) is not None}


class Throughput:
    """Measurements of one run, from any thread. `save` adds them to the records."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sums: dict[str, list[float]] = {}

    def note(self, subject: str, seconds: float, size: int) -> None:
        """Add a job of `size` bytes that took `seconds`."""
        with self._guard:
            sums = self._sums.setdefault(subject, [0.0] * 5)
            for i, value in enumerate((1.0, size, seconds, float(size) * size, size * seconds)):
                sums[i] += value

    def save(self, store: Store) -> None:
        with self._guard:
            for subject, sums in self._sums.items():
                before = _sums(store.record(_SECTION, subject)) or [0.0] * 5
                fade = 0.5 if before[0] > _ENTRIES else 1.0
                store.put_record(_SECTION, subject, [round(fade * old + new, 6) for old, new in zip(before, sums, strict=True)])
            self._sums.clear()


def _sums(record: object) -> list[float] | None:
    if not isinstance(record, list) or len(record) != 5 or not all(isinstance(v, int | float) and 0 <= v < 1e40 for v in record):
        return None
    return [float(v) for v in record]


def _rate(record: object) -> Rate | None:
    """Return the line fitted by least squares. Neither coefficient is below zero."""
    sums = _sums(record)
    if sums is None or sums[0] < 1:
        return None
    n, x, y, xx, xy = sums
    spread = n * xx - x * x
    byte = (n * xy - x * y) / spread if n >= 3 and spread > 1e-9 * n * xx else y / x if x else 0.0
    byte = max(byte, 0.0)
    each = (y - byte * x) / n
    if each < 0:
        each, byte = 0.0, y / x if x else 0.0
    return Rate(each=each, byte=byte)
