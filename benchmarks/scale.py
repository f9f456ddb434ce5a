"""`make bench-scale`: a thousand profiles that share stages, planned; nothing is built.

    python benchmarks/scale.py [--profiles N] [--releases N] [--lock FILE] [--json FILE]

From one real lock (that of the test environment, unless --lock names one with its `bases/` beside `locks/`) come N locks, as
an organisation has them: teams stand on one of some releases of a common environment, and each has a few packages of its own.
From release to release every third package has another build. A team's own: three R packages of conda, one of CRAN with all that
compiles on it, and a file. Every lock is written, read, checked and planned as `cregraph` does; then distinct segments, tasks,
layers and their bytes are counted, by keys. Sizes of layers are those of their artifacts.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import machine
from cregraph.digest import sha256
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Lock, dumps, loads
from cregraph.lock.pins import Pin, Target
from cregraph.plan.planner import Plan, make_plan
from cregraph.session.project import Project
from tests.environment import EnvironmentUnavailable, make


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks/scale.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--profiles", type=int, default=1000, metavar="N")
    parser.add_argument("--releases", type=int, default=12, metavar="N", help="releases of the common environment in use")
    parser.add_argument("--lock", metavar="FILE", help="the lock to start from; its project has the base facts")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    try:
        lock, facts = _start(arguments.lock)
    except EnvironmentUnavailable as why:
        print(f"the test environment cannot be made here: {why}; name a lock with --lock", file=sys.stderr)
        return 2
    locks = [_of(lock, number, arguments.releases) for number in range(arguments.profiles)]
    found = count(locks, facts)
    print(f"{machine()}\n")
    for name, value in found.items():
        print(f"{name:44}{value:>14,.2f}" if isinstance(value, float) else f"{name:44}{value:>14,}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n", encoding="utf-8")
    return 0


def _start(named: str | None) -> tuple[Lock, BaseFacts]:
    if named:
        path = Path(named)
        project = Project(profile=path.parent.parent / f"{path.name.removesuffix('.lock.json')}.yaml")
        lock = project.read_lock()
        assert lock is not None, f"{named} is not there"
        return lock, project.facts(lock.base)
    from tests.real_project import RealProject

    with tempfile.TemporaryDirectory() as folder:
        environment = make(lambda text: print(text, file=sys.stderr))
        real = RealProject.make(Path(folder) / "project", environment)
        real.ok("lock", "team.yaml")
        return _start(str(real.lock))


def _of(lock: Lock, number: int, releases: int) -> Lock:
    """The lock of team `number`."""
    chance = random.Random(number)
    release = number % releases
    conda = [p.name for t in lock.targets if t.kind == "conda" for p in t.pins if p.name.startswith("r-")]
    cran = [p.name for t in lock.targets if t.kind == "r" for p in t.pins]
    own = {*chance.sample(conda, min(3, len(conda))), *chance.sample(cran, min(1, len(cran)))}

    def changed(pin: Pin) -> Pin:
        # The last release in which this package moved: every third package moves in each.
        moved = next((r for r in range(release, 0, -1) if random.Random(f"{pin.name} {r}").random() < 1 / 3), 0)
        salt = f"{moved} {number}" if pin.name in own else str(moved)
        if salt == "0":
            return pin
        return replace(pin, artifact=replace(pin.artifact, sha256=sha256(f"{pin.artifact.sha256} {salt}".encode())))

    def of_target(target: Target) -> Target:
        return target if target.kind == "image" else replace(target, pins=tuple(changed(p) for p in target.pins))

    identity = replace(lock.identity, name=f"team{number}", image=f"team{number}")
    return replace(lock, identity=identity, targets=tuple(of_target(t) for t in lock.targets))


def count(locks: list[Lock], facts: BaseFacts) -> dict[str, int | float]:
    """Write, read and plan each lock; what all of them make together."""
    texts, writing = _timed(lambda: [dumps(lock) for lock in locks])
    segments: dict[str, int] = {}
    tasks: set[str] = set()
    layers: dict[str, int] = {}
    artifacts: dict[str, int] = {}
    whole = {"segments": 0, "tasks": 0, "layers": 0, "bytes": 0}
    reading = planning = 0.0
    for text in texts:
        lock, seconds = _timed(lambda text=text: loads(text, name="lock"))  # type: ignore[misc]
        reading += seconds
        plan, seconds = _timed(lambda lock=lock: make_plan(lock, facts))  # type: ignore[misc]
        planning += seconds
        assert isinstance(plan, Plan)
        segments |= {key: segment.size for key, segment in plan.segments.items()}
        tasks |= {task.key for task in plan.tasks}
        sizes = {layer.key: sum(s.size for s in layer.segments) for layer in plan.layers}
        layers |= sizes
        artifacts |= {s.artifact.sha256: s.size for s in (*plan.segments.values(), *plan.hidden.values()) if s.artifact}
        whole["segments"] += len(plan.segments)
        whole["tasks"] += len(plan.tasks)
        whole["layers"] += len(plan.layers)
        whole["bytes"] += sum(sizes.values())
    return {
        "profiles": len(locks),
        "locks, MB": sum(len(text.encode()) for text in texts) / 1e6,
        "writing a lock, ms": writing / len(locks) * 1e3,
        "reading a lock, ms": reading / len(locks) * 1e3,
        "planning a lock, ms": planning / len(locks) * 1e3,
        "segments of all, each counted": whole["segments"],
        "segments, distinct": len(segments),
        "tasks of all, each counted": whole["tasks"],
        "tasks, distinct": len(tasks),
        "layers of all, each counted": whole["layers"],
        "layers, distinct": len(layers),
        "images without sharing, GB": whole["bytes"] / 1e9,
        "distinct layers, GB": sum(layers.values()) / 1e9,
        "distinct segments, GB": sum(segments.values()) / 1e9,
        "distinct artifacts, GB": sum(artifacts.values()) / 1e9,
        "peak of memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


_Made = TypeVar("_Made")


def _timed(work: Callable[[], _Made]) -> tuple[_Made, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
