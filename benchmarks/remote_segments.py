"""Measure what a fresh machine needs to complete an image, with and without segments in the remote cache.

    python benchmarks/remote_segments.py [--runs N] [--copies N] [--folder DIR]

The image is that of the test environment, made larger: every package of its conda channel is there `--copies` more times,
with the same files at other paths. One machine builds it and fills a remote cache. Then machines with an empty store build it,
in turn:

    results    task results come from the cache, artifacts from their sources; segments are made here
    segments   task results and segments come from the cache

Sources and cache answer over HTTP on loopback, each from a process of its own. The network costs nearly nothing there, which
favours the way that downloads more. Both ways must give the same digest.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import Sample, measure
from benchmarks.report import machine
from cregraph.image.model import layer as layers
from cregraph.image.model import segment as segments
from cregraph.plan.planner import make_plan
from cregraph.session.project import Project
from cregraph.store import Store
from cregraph.store.atomic_file import remove_tree
from tests.environment import Environment, EnvironmentUnavailable, conda, make, serve
from tests.real_project import RealProject
from tests.small_registry import SmallRegistry

_PROFILE = "team.yaml"
_WAYS = ("results", "segments")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One fresh machine: its process, bytes downloaded from the cache and from sources, and what it made."""

    sample: Sample
    from_cache: int
    from_sources: int
    made: dict[str, int]


def enlarged(environment: Environment, folder: Path, copies: int) -> Environment:
    """Copy what `environment` serves to `folder`, with every conda package `copies` more times under other names and paths."""
    for name in ("cran", "simple", "tarballs", "conda"):
        shutil.copytree(environment.root / name, folder / name, symlinks=True)
    for image in (environment.base, environment.build_root):
        (folder / image.name).symlink_to(image)
    channel = folder / "conda" / "conda-forge"
    names = []
    for package in sorted((channel / "linux-64").glob("*.conda")):
        files, recipe = _contents(package)
        for number in range(copies):
            name = f"copy{number}-{recipe['name']}"
            below = f"share/copy{number}"
            moved = {
                f"{below}/{path}": entry if entry.same_as is None else replace(entry, same_as=f"{below}/{entry.same_as}")
                for path, entry in files.items()
            }
            conda.pack(moved, conda.Recipe(name=name, version=recipe["version"], build=recipe["build"]), channel)
            names.append(name)
    conda.pack({}, conda.Recipe(name="r-copies", version="1", depends=tuple(names)), channel)
    conda.index(channel)
    return replace(
        environment,
        root=folder,
        base=folder / environment.base.name,
        build_root=folder / environment.build_root.name,
        **{name: folder / name for name in ("cran", "simple", "tarballs", "conda")},
    )


def _contents(package: Path) -> tuple[dict[str, conda.Entry], dict[str, str]]:
    import io
    import tarfile
    import zipfile

    import zstandard

    def tar(part: str) -> tarfile.TarFile:
        with zipfile.ZipFile(package) as archive:
            (name,) = [name for name in archive.namelist() if name.startswith(part)]
            raw = zstandard.ZstdDecompressor().stream_reader(archive.read(name)).read()
        return tarfile.open(fileobj=io.BytesIO(raw))

    with tar("info-") as info:
        index = info.extractfile("info/index.json")
        assert index is not None
        recipe = json.loads(index.read())
    files = {}
    with tar("pkg-") as payload:
        for member in payload:
            if member.issym():
                files[member.name] = conda.Entry(link=member.linkname)
            elif member.islnk():
                files[member.name] = replace(files[member.linkname], same_as=member.linkname)
            elif member.isreg():
                content = payload.extractfile(member)
                assert content is not None
                files[member.name] = conda.Entry(data=content.read(), executable=bool(member.mode & 0o100))
    return files, recipe


@contextmanager
def elsewhere(start: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """Run a server in a process of its own; gives its address."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def run() -> None:
        with start() as address:
            there.send(address)
            there.recv()

    process = context.Process(target=run, daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("end")
        process.join()


@contextmanager
def _registry() -> Iterator[str]:
    with SmallRegistry() as registry:
        yield registry.host


@contextmanager
def _sources(root: Path) -> Iterator[str]:
    with serve(root) as server:
        yield server.address


class Machines:
    """Fresh machines that build the project of `first`, whose image has `digest`, with the remote cache at `cache`."""

    def __init__(self, folder: Path, first: RealProject, cache: str, digest: str) -> None:
        self.folder = folder
        self.first = first
        self.cache = cache
        self.digest = digest

    def run(self, way: str) -> Run:
        """Build with an empty store. The way decides whether the cache is trusted, and so whether segments are taken."""
        folder = self.folder / "fresh"
        shutil.copytree(self.first.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("cache"))
        trusted = "true" if way == "segments" else "false"
        with (folder / "sources.yaml").open("a", encoding="utf-8") as sources:
            sources.write(f"cache: {{team: {{ref: {self.cache}, trusted: {trusted}}}}}\n")
        try:
            env = {**os.environ, "CREGRAPH_CACHE": str(folder / "cache")}
            env.pop("CREGRAPH_SOURCES", None)
            words = ("build", _PROFILE, "--cache", "team", "--json")
            done = measure([sys.executable, "-m", "cregraph", *words], cwd=folder, env=env)
            (answer,) = json.loads(done.out)["images"]
            assert answer["digest"] == self.digest, "another image"
            assert answer["made"]["tasks"] == 0 and not answer["cache"]["read"]["refused"], answer
            return Run(
                sample=done.sample,
                from_cache=answer["cache"]["read"]["bytes"],
                from_sources=_artifact_bytes(folder),
                made={**answer["made"], "segments taken": answer["cache"]["read"]["segments"]},
            )
        finally:
            remove_tree(folder)


def _artifact_bytes(folder: Path) -> int:
    lock = Project(profile=folder / _PROFILE).read_lock()
    assert lock is not None
    store = Store(folder / "cache")
    found = {pin.artifact.sha256 for target in lock.targets for pin in target.pins if store.has(pin.artifact.sha256)}
    return sum(store.path_of(sha256).stat().st_size for sha256 in found)


def _size(project: RealProject) -> tuple[int, int]:
    """The bytes of the layers over the base, compressed and as tars."""
    named = Project(profile=project.folder / _PROFILE)
    lock = named.read_lock()
    assert lock is not None
    store = Store(Path(project.env["CREGRAPH_CACHE"]))
    plan = make_plan(lock, named.facts(lock.base))
    record = store.record("images", plan.key)
    assert isinstance(record, dict) and isinstance(record["layers"], list)
    found = [layers.read(store, str(row[1])) for row in record["layers"] if isinstance(row, list)]
    packed = [segments.read(store, segment.key) for layer in plan.layers for segment in layer.segments]
    return sum(layer.size for layer in found if layer), sum(one.tar_size for one in packed if one)


def table(runs: dict[str, list[Run]], size: int) -> str:
    """Medians of each way, per GB of `size`, and the median of the ratios of pairs."""
    gigabytes = size / 1e9
    lines = [
        "| way | wall s | s per GB | CPU s | CPU s per GB | from the cache MB | from sources MB | downloaded GB per GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, found in runs.items():
        walls = [run.sample.wall for run in found]
        wall, cpu = median(walls), median(run.sample.cpu for run in found)
        cache, sources = median(run.from_cache for run in found), median(run.from_sources for run in found)
        lines.append(
            f"| {way} | {wall:.1f} ({min(walls):.1f} to {max(walls):.1f}) | {wall / gigabytes:.1f} "
            f"| {cpu:.1f} | {cpu / gigabytes:.1f} | {cache / 1e6:.0f} | {sources / 1e6:.0f} | {(cache + sources) / size:.2f} |"
        )
    pairs = list(zip(runs["results"], runs["segments"], strict=True))
    ratios = [
        median(getattr(with_segments.sample, what) / getattr(without.sample, what) for without, with_segments in pairs)
        for what in ("wall", "cpu")
    ]
    lines.append(f"\nsegments / results, median of {len(pairs)} pairs: wall {ratios[0]:.2f}, CPU {ratios[1]:.2f}; ")
    lines.append(f"saved: {1 - ratios[0]:.0%} of wall, {1 - ratios[1]:.0%} of CPU")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="pairs of runs")
    parser.add_argument("--copies", type=int, default=3, metavar="N", help="how many more times each conda package is there")
    parser.add_argument("--json", metavar="FILE", help="write every run there too")
    parser.add_argument("--folder", metavar="DIR", help="work below this folder (8 GB), instead of the system's temporary one")
    said = parser.parse_args()
    try:
        environment = make(_talk)
    except EnvironmentUnavailable as why:
        _talk(f"the test environment cannot be made here: {why}")
        return 2
    on = machine()
    with tempfile.TemporaryDirectory(prefix="cregraph-bench-", dir=said.folder) as name:
        folder = Path(name)
        _talk("making the channel")
        large = enlarged(environment, folder / "environment", said.copies)
        with elsewhere(lambda: _sources(large.root)) as address, elsewhere(_registry) as host:
            first = RealProject.make(folder / "first", large, address=address)
            first.edit(conda_r=["r-lme4=1.1-31", "r-codetools", "r-copies"])
            cache = f"{host}/bench/cache"
            _talk("building it once")
            first.ok("lock", _PROFILE)
            digest = first.ok("build", _PROFILE, "--cache-write", cache, timeout=3600).out.strip().rpartition("@")[2]
            size, tar_size = _size(first)
            machines = Machines(folder, first, cache, digest)
            runs: dict[str, list[Run]] = {way: [] for way in _WAYS}
            for number in range(said.runs):
                for way in _WAYS if number % 2 else reversed(_WAYS):
                    runs[way].append(machines.run(way))
                    _talk(f"{number + 1} of {said.runs}: {way}: {runs[way][-1]}")
    print(f"{on}\nlayers over the base: {size / 1e6:.0f} MB compressed, {tar_size / 1e6:.0f} MB as tars\n\n{table(runs, size)}")
    if said.json:
        found = {way: [asdict(run) for run in each] for way, each in runs.items()}
        text = json.dumps({"machine": on, "size": size, "tar_size": tar_size, "runs": found}, indent=1)
        Path(said.json).write_text(text + "\n", encoding="utf-8")
    return 0


def _talk(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
