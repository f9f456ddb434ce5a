"""`make bench-buildkit`: the same image by cregraph and by BuildKit from a hand-written Dockerfile, in turn.

    python benchmarks/against_buildkit.py [--runs N] [--only NAME]... [--json FILE] [--folder DIR]

Both get the same artifacts, compile the same packages and leave an OCI image layout. The Dockerfile is that of
benchmarks/peer/recipe.py. BuildKit is the default builder of the Docker engine that $DOCKER_HOST leads to; its caches are warm
wherever a build came before, and base, build root and channel are with it from the start, also for a cold build. Measured
are seconds by the clock of the whole command (of `docker buildx build`, of `cregraph build`), without locking; and the bytes of
layers that the image before did not have, which is what a push moves.

    cold       nothing made yet: everything is unpacked, compiled, packed
    assembly   what compiles is made; the rest is not: all is unpacked and packed
    nothing    nothing changed
    hook       a line of the start-up hook changed
    conda      a conda package of R came in, which nothing compiles against
    cran       a package of CRAN moved, which another imports
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import Failed
from benchmarks.peer.recipe import write
from benchmarks.report import machine
from benchmarks.scene import Scene
from tests.environment import EnvironmentUnavailable, make

_PROFILE = "team.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One run of both: seconds, bytes of new layers, KiB at cregraph's peak."""

    buildkit: float
    cregraph: float
    buildkit_push: int
    cregraph_push: int
    peak: int


class Peer:
    """BuildKit, with a context of its own below `folder`."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene = scene
        self.context = folder / "context"
        self.out = folder / "buildkit"
        self.token = secrets.token_hex(4)

    def build(self, *, final: str = "", salt: dict[str, str] | None = None, words: tuple[str, ...] = ()) -> float:
        """Build the lock as it is; the seconds that it took. `final` is another cache for the image's own stage."""
        caches = (f"cregraph-bench-{self.token}", f"cregraph-bench-{final or self.token}")
        named = write(self.scene, self.context, caches=caches, salt=salt)
        contexts = [f"--build-context={name}={where}" for name, where in named.items()]
        output = f"--output=type=oci,tar=false,dest={self.out}"
        start = time.monotonic()
        done = subprocess.run(
            ["docker", "buildx", "build", "--provenance=false", *contexts, *words, output, str(self.context)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(f"BuildKit failed:\n{done.stderr[-3000:]}")
        return time.monotonic() - start


def layers(layout: Path) -> dict[str, int]:
    """The layers of a layout's last image: size by digest."""
    index = json.loads((layout / "index.json").read_bytes())

    def blob(digest: str) -> Any:
        return json.loads((layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes())

    found = blob(index["manifests"][-1]["digest"])
    if "manifests" in found:
        found = blob(found["manifests"][0]["digest"])
    return {layer["digest"]: layer["size"] for layer in found["layers"]}


def new_bytes(before: dict[str, int], after: dict[str, int]) -> int:
    return sum(size for digest, size in after.items() if digest not in before)


class Duel:
    """Runs a case with both, one after the other."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene = scene
        self.peer = Peer(scene, folder)
        self.out = folder / "cregraph"
        self.warm = False

    def warmed(self) -> None:
        """Have the project as it is built by both."""
        if not self.warm:
            self.scene.built()
            self.peer.build()
            self._cregraph(self.scene.store)
            self.warm = True

    def _cregraph(self, store: Path) -> tuple[float, int]:
        sample = self.scene.run(("build", _PROFILE, "--json", "--output", f"oci:{self.out}"), store=store).sample
        return sample.wall, sample.peak

    def pair(self, store: Path, **peer: Any) -> Pair:
        """Both, from where both are now."""
        had = [layers(where) if where.exists() else {} for where in (self.peer.out, self.out)]
        seconds = self.peer.build(**peer)
        mine, peak = self._cregraph(store)
        return Pair(
            buildkit=seconds,
            cregraph=mine,
            buildkit_push=new_bytes(had[0], layers(self.peer.out)),
            cregraph_push=new_bytes(had[1], layers(self.out)),
            peak=peak,
        )

    def cold(self) -> Pair:
        for out in (self.peer.out, self.out):
            shutil.rmtree(out, ignore_errors=True)
        self.peer.token = secrets.token_hex(4)
        with self.scene.empty_store() as store:
            return self.pair(store, words=("--no-cache",))

    def assembly(self) -> Pair:
        for out in (self.peer.out, self.out):
            shutil.rmtree(out, ignore_errors=True)
        with self.scene.unassembled():
            return self.pair(self.scene.store, final=secrets.token_hex(4), words=("--no-cache-filter=image",))

    def nothing(self) -> Pair:
        self.peer.build()
        return self.pair(self.scene.store)

    @contextlib.contextmanager
    def changed(self, change: Callable[[], None]) -> Iterator[None]:
        """From the unchanged image, in both: change the project, lock it; all is as before afterwards."""
        self.peer.build()
        self._cregraph(self.scene.store)
        with self.scene.restored():
            change()
            self.scene.project.ok("lock", _PROFILE)
            yield

    def hook(self) -> Pair:
        with self.changed(lambda: self.scene.change_hook(secrets.token_hex(4))):
            return self.pair(self.scene.store)

    def conda(self) -> Pair:
        with self.changed(lambda: self.scene.edit(conda_r=["r-lme4=1.1-31", "r-codetools", "r-cluster"])):
            return self.pair(self.scene.store, salt={"conda": secrets.token_hex(4)})

    def cran(self) -> Pair:
        wanted = ["doParallel", "caTools", "xts", "lmtest", "reshape2", "bitops==1.0-7"]
        with self.changed(lambda: self.scene.edit(cran=wanted)):
            return self.pair(self.scene.store, salt={"bitops": secrets.token_hex(4)})


CASES = ("assembly", "nothing", "hook", "conda", "cran", "cold")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks/against_buildkit.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2, metavar="N", help="runs of each case")
    parser.add_argument("--only", action="append", metavar="NAME", help="cases, by glob; may be given again")
    parser.add_argument("--json", metavar="FILE", help="write every sample there too")
    parser.add_argument("--folder", metavar="DIR", help="work below this folder (5 GB), instead of the system's temporary one")
    arguments = parser.parse_args()
    chosen = [name for name in CASES if not arguments.only or any(fnmatch.fnmatch(name, glob) for glob in arguments.only)]
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        parser.error("no Docker engine: set DOCKER_HOST")
    try:
        environment = make(_talk)
    except EnvironmentUnavailable as why:
        _talk(f"the test environment cannot be made here: {why}")
        return 2
    rows: dict[str, list[Pair]] = {}
    with tempfile.TemporaryDirectory(prefix="cregraph-bench-", dir=arguments.folder) as folder:
        _talk("preparing")
        duel = Duel(Scene(Path(folder), environment), Path(folder))
        duel.warmed()
        for name in chosen:
            for number in range(arguments.runs):
                _talk(f"{name}: {number + 1} of {arguments.runs}")
                rows.setdefault(name, []).append(getattr(duel, name)())
    print(f"{machine()}\n\n{table(rows)}")
    if arguments.json:
        found = {name: [asdict(pair) for pair in pairs] for name, pairs in rows.items()}
        Path(arguments.json).write_text(json.dumps({"machine": machine(), "cases": found}, indent=1) + "\n", encoding="utf-8")
    return 0


def table(rows: dict[str, list[Pair]]) -> str:
    """Medians: seconds, their ratio pair by pair, MB that a push moves."""
    lines = [
        "| case | BuildKit s | cregraph s | times faster | BuildKit pushes MB | cregraph pushes MB | peak MiB |",
        "|---" * 7 + "|",
    ]
    for name, pairs in rows.items():
        faster = median(p.buildkit / p.cregraph for p in pairs)
        lines.append(
            f"| `{name}` | {median(p.buildkit for p in pairs):.1f} | {median(p.cregraph for p in pairs):.2f} | {faster:.1f} "
            f"| {median(p.buildkit_push for p in pairs) / 1e6:.2f} | {median(p.cregraph_push for p in pairs) / 1e6:.2f} "
            f"| {median(p.peak for p in pairs) / 1024:.0f} |"
        )
    return "\n".join(lines)


def _talk(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
