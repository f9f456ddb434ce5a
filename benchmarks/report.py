"""What was measured, as a table and as JSON."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Sample

__all__ = ["Row", "as_json", "floors", "machine", "table"]

_HEAD = ("case", "over", "runs", "against", "ratio", "of processors", "seconds", "peak MiB", "made")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The runs of one case, each with the run of its floor that came right before it."""

    case: str
    over: str
    floor: str
    made: str
    samples: tuple[Sample, ...]
    floors: tuple[Sample, ...]

    def ratio(self, what: str) -> float:
        """The median of the ratios of pairs."""
        pairs = zip(self.samples, self.floors, strict=True)
        return float(median(getattr(one, what) / max(getattr(other, what), 1e-6) for one, other in pairs))


def machine() -> str:
    """What was measured on: processors, memory, kernel, Python. No names."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{len(os.sched_getaffinity(0))} cores of {found[1] if found else platform.machine()}, {memory:.0f} GiB, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}; load before: {load}"
    )


def table(rows: Iterable[Row]) -> str:
    """Markdown: a row a case, medians."""
    lines = [f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD)]
    for row in rows:
        wall = median(sample.wall for sample in row.samples)
        low, high = min(s.wall for s in row.samples), max(s.wall for s in row.samples)
        peak = median(sample.peak for sample in row.samples) / 1024
        cells = (
            f"`{row.case}`",
            row.over,
            len(row.samples),
            row.floor,
            f"{row.ratio('wall'):.1f}",
            f"{row.ratio('cpu'):.1f}",
            f"{wall:.2f} ({low:.2f} to {high:.2f})",
            f"{peak:.0f}",
            row.made,
        )
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def floors(rows: Sequence[Row]) -> str:
    """Markdown: what the floors took, over all rows."""
    lines = ["| floor | over | runs | seconds | peak MiB |", "|---|---|---|---|---|"]
    found: dict[tuple[str, str], list[Sample]] = {}
    for row in rows:
        over = row.over if row.floor == "solve" else ""
        found.setdefault((row.floor, over), []).extend(row.floors)
    for (name, over), samples in sorted(found.items()):
        walls = [s.wall for s in samples]
        peak = median(s.peak for s in samples) / 1024
        lines.append(
            f"| {name} | {over} | {len(samples)} | {median(walls):.2f} ({min(walls):.2f} to {max(walls):.2f}) | {peak:.0f} |"
        )
    return "\n".join(lines)


def as_json(rows: Sequence[Row], *, machine: str) -> dict[str, Any]:
    """Everything that was measured, for a program."""
    return {
        "machine": machine,
        "rows": [{**asdict(row), "ratio": {what: round(row.ratio(what), 3) for what in ("wall", "cpu", "peak")}} for row in rows],
    }
