"""`make bench`: what commands cost on the real world, as ratios to programs that do only what cannot be left out.

    python benchmarks/run.py [--runs N] [--only NAME]... [--json FILE] [--folder DIR]

Measured are whole processes. Each run of a case comes right after a run of its floor, and the ratio is of the two: so what else
the machine does meets both. Floors: `imports` starts Python with typer and yaml; `solve` is py-rattler solving the lock's
environments; `bytes` reads, hashes, inflates and compresses what the image is made of (one thread, nothing written). The files
lie in the page cache. Needs the real world of tests/world, which is made on the first call (Debian 12, root; minutes).
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import CASES, Case
from benchmarks.floors import FLOORS
from benchmarks.measure import Failed
from benchmarks.report import Row, as_json, floors, machine, table
from benchmarks.scene import Scene
from tests.world import World, WorldUnavailable, make


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each case; quick ones get five times as many")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"cases, by glob: {', '.join(c.name for c in CASES)}")
    parser.add_argument("--json", metavar="FILE", help="write every sample there too")
    parser.add_argument("--folder", metavar="DIR", help="work below this folder (2 GB), instead of the system's temporary one")
    said = parser.parse_args()
    chosen = [c for c in CASES if not said.only or any(fnmatch.fnmatch(c.name, glob) for glob in said.only)]
    if not chosen or said.runs < 1:
        parser.error("nothing to run")
    try:
        world = make(_talk)
    except WorldUnavailable as why:
        _talk(f"the real world cannot be made here: {why}")
        return 2
    on = machine()
    try:
        with tempfile.TemporaryDirectory(prefix="cregraph-bench-", dir=said.folder) as folder:
            rows, content = _measured(Path(folder), world, chosen, said.runs)
    except Failed as why:
        _talk(f"error: {why}")
        return 1
    print(f"{on}\n\n{table(rows)}\n\n{floors(rows)}")
    if content:
        read, inflated, compressed = (int(n) / 1e6 for n in content.split())
        print(f"\nbytes: {read:.1f} MB read, {inflated:.1f} MB inflated, {compressed:.1f} MB compressed")
    if said.json:
        text = json.dumps(as_json(rows, machine=on, content=content), indent=1, sort_keys=True)
        Path(said.json).write_text(text + "\n", encoding="utf-8")
    return 0


def _measured(folder: Path, world: World, cases: list[Case], runs: int) -> tuple[list[Row], str]:
    """All rows, and what the floor of bytes said of their number."""
    content = ""
    _talk("preparing: lock" + (" and build" if any(c.name.startswith(("build", "plan")) for c in cases) else ""))
    scene = Scene(folder, world)
    rows = []
    with ExitStack() as held:
        server = held.enter_context(world.serve()) if any(c.http for c in cases) else None
        for case in cases:
            if case.name.startswith(("build", "plan")):
                scene.built()
            for over, address in [("file", None), *([("http", server.address)] if case.http and server else [])]:
                scene.project.route(address)
                argv = FLOORS[case.floor](scene, address)
                scene.floor(argv)  # warms what is kept: bytecode, pages, repodata
                samples, baseline, made = [], [], ""
                for number in range(runs * case.often):
                    _talk(f"{case.name} over {over}: {number + 1} of {runs * case.often}")
                    one = scene.floor(argv)
                    done = case.run(scene)
                    baseline.append(one.sample)
                    samples.append(done.sample)
                    made = done.made
                    content = one.out.strip() if case.floor == "bytes" else content
                rows.append(
                    Row(
                        case=case.name,
                        over=over,
                        floor=case.floor,
                        made=made,
                        samples=tuple(samples),
                        floors=tuple(baseline),
                    )
                )
            scene.project.route(None)
    return rows, content


def _talk(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
