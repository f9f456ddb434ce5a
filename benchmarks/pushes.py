"""What a push moves beside the package when one package of an image is bumped, over all packages of the test environment's image.

    python benchmarks/pushes.py [--project DIR --store DIR]

A bump moves the layer that holds the package, and the small layer with the embedded lock. Beside the package are the other
segments of its layer. From records of a built image; without --project one is built first, on the environment of the tests.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cregraph.image.model import layer as layers
from cregraph.image.model import segment as segments
from cregraph.plan.planner import EMBEDDED, make_plan
from cregraph.session.project import Project
from cregraph.store import Store
from tests.environment import EnvironmentUnavailable, make


def beside(project: Project, store: Store) -> list[int]:
    """For each package of the project's image the bytes that a push moves beside it once it is bumped."""
    lock = project.read_lock()
    assert lock is not None
    plan = make_plan(lock, project.facts(lock.base))
    found = []
    always = 0
    for each in plan.layers:
        layer = layers.read(store, each.key)
        assert layer is not None, "the image is not built"
        if any(segment.name == EMBEDDED for segment in each.segments):
            always = layer.size
            continue
        for segment in each.segments:
            record = segments.read(store, segment.key)
            assert record is not None
            found.append(layer.size - record.size)
    return [size + always for size in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--project", metavar="DIR", help="a folder with a built team.yaml")
    parser.add_argument("--store", metavar="DIR", help="its store")
    arguments = parser.parse_args()
    if arguments.project and arguments.store:
        found = beside(Project(profile=Path(arguments.project) / "team.yaml"), Store(Path(arguments.store)))
    else:
        from benchmarks.scene import Scene

        try:
            environment = make(lambda text: print(text, file=sys.stderr))
        except EnvironmentUnavailable as why:
            print(f"the test environment cannot be made here: {why}", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory(prefix="cregraph-bench-") as folder:
            scene = Scene(Path(folder), environment)
            scene.built()
            found = beside(Project(profile=scene.project.folder / "team.yaml"), Store(scene.store))
    tenths = quantiles(found, n=10)
    print(f"{len(found)} packages; moved beside the package, MB: median {median(found) / 1e6:.2f}, "
          f"nine of ten below {tenths[-1] / 1e6:.2f}, at most {max(found) / 1e6:.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
