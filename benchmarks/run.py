"""`make bench`: what commands cost on the test environment, as ratios to programs that do only what cannot be left out.

    python benchmarks/run.py [--runs N] [--only NAME]... [--json FILE] [--folder DIR]

Measured are whole processes. Each run of a case comes right after a run of its floor, and the ratio is of the two: so what else
the machine does meets both. Floors:

    imports   Python with typer and yaml, started
    solve     py-rattler solving the lock's environments
    layers    the layers of base and build root: read, hashed, inflated, hashed
    bytes     what the image is made of: read, hashed, inflated, hashed, compressed, hashed; one thread, nothing written

The files lie in the page cache. The first call makes the test environment of tests/environment (Debian 12, root; minutes).
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import CASES, Case
from benchmarks.floors import FLOORS
from benchmarks.measure import Failed, Sample
from benchmarks.report import Row, as_json, floors, machine, table
from benchmarks.scene import Scene
from tests.environment import EnvironmentUnavailable, make


def main() -> int:
    cases = "\n".join(f"    {case.name:20}{case.about}" for case in CASES)
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=f"{__doc__}\nCases:\n\n{cases}\n",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--runs", type=int, default=3, metavar="N", help="runs of each case; quick ones get up to five times as many"
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="cases, by glob; may be given again")
    parser.add_argument("--json", metavar="FILE", help="write every sample there too")
    parser.add_argument("--folder", metavar="DIR", help="work below this folder (3 GB), instead of the system's temporary one")
    arguments = parser.parse_args()
    chosen = [c for c in CASES if not arguments.only or any(fnmatch.fnmatch(c.name, glob) for glob in arguments.only)]
    if not chosen or arguments.runs < 1:
        parser.error("nothing to run")
    try:
        environment = make(_talk)
    except EnvironmentUnavailable as why:
        _talk(f"the test environment cannot be made here: {why}")
        return 2
    on = machine()
    with tempfile.TemporaryDirectory(prefix="cregraph-bench-", dir=arguments.folder) as folder, environment.serve() as server:
        _talk("preparing")
        scene = Scene(Path(folder), environment)
        rows: list[Row] = []
        failed = False
        for case in chosen:
            for address in (None, server.address) if case.http else (None,):
                try:
                    rows += _rows(scene, case, address, arguments.runs * case.often)
                except (Failed, AssertionError) as why:  # a command that prepares a state is asserted to succeed
                    _talk(f"error: {case.name}: {why}")
                    failed = True
        content = scene.floor(FLOORS["bytes"](scene, None)).out.split() if scene.digest else None
    print(f"{on}\n\n{table(rows)}\n\n{floors(rows)}")
    if content:
        read, inflated, compressed = (int(n) / 1e6 for n in content)
        print(f"\nbytes: {read:.1f} MB read, {inflated:.1f} MB inflated, {compressed:.1f} MB compressed")
    if arguments.json:
        text = json.dumps(as_json(rows, machine=on), indent=1, sort_keys=True)
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")
    return 1 if failed else 0


def _rows(scene: Scene, case: Case, address: str | None, runs: int) -> list[Row]:
    """A row for each floor of the case. Before each run of the case every floor is run once."""
    over = "http" if address else "file"
    if case.built:
        scene.built()
    scene.project.route(address)
    try:
        programs = {name: FLOORS[name](scene, address) for name in case.floors}
        for program in programs.values():
            scene.floor(program)  # warms what is kept: bytecode, pages, repodata
        samples: list[Sample] = []
        others: dict[str, list[Sample]] = {name: [] for name in programs}
        for number in range(runs):
            _talk(f"{case.name} over {over}: {number + 1} of {runs}")
            for name, program in programs.items():
                others[name].append(scene.floor(program).sample)
            done = case.run(scene)
            samples.append(done.sample)
    finally:
        scene.project.route(None)
    return [
        Row(case=case.name, over=over, floor=name, made=done.made, samples=tuple(samples), floors=tuple(found))
        for name, found in others.items()
    ]


def _talk(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
