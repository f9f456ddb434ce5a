"""What commands are measured against: programs that do the unavoidable part of the work and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.scene import Scene
from cregraph.kinds.base import PinContext
from cregraph.kinds.conda.conda_kind import virtual_packages
from cregraph.kinds.conda.conda_specs import normal_spec
from cregraph.lock import base_facts_json as facts_json
from cregraph.lock import lock_file as locks
from cregraph.lock.base_facts import BaseFacts
from cregraph.plan.planner import make_plan
from cregraph.store import Store
from cregraph.store.task_records import verified_result

__all__ = ["FLOORS", "Floor"]

_HERE = Path(__file__).parent

#: For a scene and an address (None: file://) the command line to measure.
Floor = Callable[[Scene, str | None], list[str]]


def imports(scene: Scene, address: str | None) -> list[str]:
    """Starting Python with the two libraries that every command needs."""
    return [sys.executable, "-c", "import typer, yaml"]


def solve(scene: Scene, address: str | None) -> list[str]:
    """The conda environments of the lock, solved by py-rattler alone; the cache of repodata is its own and kept."""
    lock = locks.loads(scene.project.lock.read_text(encoding="utf-8"), name="lock")
    facts = _facts(scene, lock)
    virtual = virtual_packages(PinContext(project=scene.project.folder, shipped=_HERE, facts=facts, targets=lock.targets))
    minor = ".".join(facts.python.version.split(".")[:2]) if facts.python else ""
    root = scene.environment.root
    request = {
        "channel": f"{address or root.as_uri()}/{scene.environment.conda.relative_to(root)}/conda-forge",
        "cache": str(scene.folder / "floor-repodata"),
        "solves": [
            {
                "specs": [normal_spec(str(a.what).replace("$(snowbooks.python.minor)", minor)) for a in target.asks],
                "virtual": [list(v) for v in virtual],
                "names": sorted(p.name for p in target.pins),
            }
            for target in lock.targets
            if target.kind == "conda"
        ],
    }
    return [sys.executable, str(_HERE / "floor_solve.py"), _kept(scene, "solve.json", request)]


def content(scene: Scene, address: str | None) -> list[str]:
    """Reading, hashing, inflating and compressing what the image is made of: artifacts, and results of tasks."""
    lock = locks.loads(scene.project.lock.read_text(encoding="utf-8"), name="lock")
    store = Store(scene.store)
    items: list[tuple[str, str]] = []
    for segment in make_plan(lock, _facts(scene, lock)).segments.values():
        if segment.artifact is not None:
            name = segment.artifact.file or segment.artifact.source
            form = next((f for f in ("conda", "tar.bz2", "whl") if name.endswith(f".{f}")), "as it is")
            items.append((form, str(store.path_of(segment.artifact.sha256))))
        elif segment.task_key is not None:
            items.append(("as it is", str(store.path_of(verified_result(store, segment.task_key) or ""))))
    return [sys.executable, str(_HERE / "floor_bytes.py"), _kept(scene, "bytes.json", items)]


def layers(scene: Scene, address: str | None) -> list[str]:
    """Reading, hashing and inflating the layers of base and build root, and hashing what is in them."""
    items = [
        ("gzip", str(path))
        for image in (scene.environment.base, scene.environment.build_root)
        for path in sorted((image / "blobs" / "sha256").iterdir())
    ]
    return [sys.executable, str(_HERE / "floor_bytes.py"), _kept(scene, "layers.json", items)]


FLOORS: dict[str, Floor] = {"imports": imports, "solve": solve, "layers": layers, "bytes": content}


def _facts(scene: Scene, lock: locks.Lock) -> BaseFacts:
    path = scene.project.folder / "bases" / f"{lock.base.artifact.sha256}.json"
    return facts_json.loads(path.read_text(encoding="utf-8"), name=path.name)


def _kept(scene: Scene, name: str, value: object) -> str:
    path = scene.folder / name
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)
