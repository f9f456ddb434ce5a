"""Built R packages on real software: a dated shelf of what R really installed, locked, placed, compiled against and loaded."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.plan.planner import Plan, make_plan
from cregraph.session.project import Project
from cregraph.store import Store
from tests.environment import Environment
from tests.real_project import RealProject

pytestmark = [pytest.mark.environment]

DATE = "2025-08-09"
LIBRARY = "home/jupyter/micromamba/envs/workspace_env/lib/R/library"
#: bitops and zoo are compiled, iterators is not. caTools imports bitops; xts links to zoo, lmtest imports it.
SHELF = ("bitops", "iterators", "zoo")


@pytest.fixture(scope="module")
def shelved(built: RealProject, environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> RealProject:
    """The real project with three packages taken built, locked and built in the same store.

    `R CMD INSTALL --build` installs a package and packs its folder; what the project's tasks installed is packed here alike.
    """
    project = RealProject.make(tmp_path_factory.mktemp("binary") / "p", environment, store=Path(built.env["CREGRAPH_CACHE"]))
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, project.folder / name)
    contrib = project.folder / "shelf/__linux__/bookworm" / DATE / "src/contrib"
    contrib.mkdir(parents=True)
    versions = {p.name: p.version for p in library(built)}
    for name in SHELF:
        (contrib / f"{name}_{versions[name]}.tar.gz").write_bytes(packed(built, name))
    (project.folder / "shelf" / DATE).symlink_to(environment.cran / DATE)
    text = project.environment.sources(None)
    sources = [
        f"cran: {(project.folder / 'shelf').as_uri()}/{{date}}" if li.startswith("cran:") else li for li in text.splitlines()
    ]
    (project.folder / "sources.yaml").write_text("\n".join(sources) + "\n")
    project.edit(cran_binaries="bookworm")
    stale = project.run("lock", "team.yaml", "--check")
    assert (stale.code, "binaries: `null` became `bookworm`" in stale.err) == (1, True), stale.err
    project.ok("lock", "team.yaml")
    return project


def test_versions_stay_and_the_lock_says_which_are_built_and_why_the_others_are_not(
    built: RealProject, shelved: RealProject
) -> None:
    before, after = library(built), library(shelved)
    assert [(p.name, p.version) for p in after] == [(p.name, p.version) for p in before]
    forms = {p.name: p.data for p in after}
    assert {name for name, data in forms.items() if data.get("form") == "binary"} == set(SHELF)
    assert [forms[n]["platform"] for n in SHELF] == ["x86_64-pc-linux-gnu", "", "x86_64-pc-linux-gnu"]
    assert forms["zoo"]["built"] == "4.2.2"
    assert forms["xts"]["no_binary"] == "the repository does not have it"
    assert "no_binary" not in forms["snowflakeR"]  # a team's own tarball


def test_built_packages_have_no_task_and_what_needs_them_is_compiled_against_them(
    built: RealProject, shelved: RealProject
) -> None:
    """R loads what it installed, and with it the built packages that this needs: xts links to zoo."""
    plan = planned(shelved)
    keys = {s.name: s.key for s in plan.segments.values() if s.kind == "r"}
    tasks = {task.name: task for task in plan.tasks}
    assert not tasks.keys() & set(SHELF)
    assert keys["zoo"] in tasks["xts"].environment and keys["zoo"] in tasks["lmtest"].environment
    assert keys["zoo"] not in tasks["caTools"].environment
    done = shelved.ok("build", "team.yaml", "--json").json["images"][0]
    before = {task.key for task in planned(built).tasks}
    assert {task.name for task in plan.tasks if task.key not in before} == {"caTools", "doParallel", "foreach", "lmtest", "xts"}
    assert done["made"]["tasks"] == 5


def test_a_built_package_is_in_the_image_as_the_compiled_one_was(built: RealProject, shelved: RealProject) -> None:
    """They are packed from the same files, so they are to be equal to the byte, mode and owner."""
    built.ok("build", "team.yaml", "--output", "oci:image")
    shelved.ok("build", "team.yaml", "--output", "oci:image")
    one, other = files(built), files(shelved)
    for name in SHELF:
        below = {path: row for path, row in one.items() if path.startswith(f"{LIBRARY}/{name}/")}
        assert len(below) > 10
        assert below == {path: row for path, row in other.items() if path.startswith(f"{LIBRARY}/{name}/")}


def test_a_lock_with_built_packages_is_left_alone_and_its_digest_holds_from_a_cold_store(
    shelved: RealProject, environment: Environment, tmp_path: Path
) -> None:
    before = shelved.lock.read_bytes()
    shelved.ok("lock", "team.yaml")
    shelved.ok("lock", "team.yaml", "--check")
    assert shelved.lock.read_bytes() == before
    reference = shelved.ok("build", "team.yaml").out.strip()
    # All is fetched anew by its digest and assembled anew; what is compiled is taken from the first store.
    first, other = Store(Path(shelved.env["CREGRAPH_CACHE"])), Store(tmp_path / "store")
    for task in planned(shelved).tasks:
        other.put_record("tasks", task.key, record := first.record("tasks", task.key))
        other.add(first.path_of(record["sha256"]).read_bytes())
    done = shelved.ok("build", "team.yaml", env={"CREGRAPH_CACHE": str(other.root)})
    assert done.out.strip() == reference


@pytest.mark.docker
def test_packages_taken_built_load_in_the_image(shelved: RealProject) -> None:
    done = shelved.run("test", "team.yaml", "--json")
    assert done.code == 0, done.err + done.out
    loaded = {check["name"].split(" ")[1] for check in done.json["checks"] if check["name"].startswith("r: ") and check["ok"]}
    assert {"caTools", "doParallel", "xts", "lmtest"} <= loaded


def library(project: RealProject) -> tuple[locks.Pin, ...]:
    lock = locks.loads(project.lock.read_text(), name="team.lock.json", kinds=KINDS)
    (found,) = (t for t in lock.targets if t.kind == "r")
    return found.pins


def packed(project: RealProject, name: str) -> bytes:
    """The installed package as `R CMD INSTALL --build` packs it: its folder, under its own name, with some user's modes."""
    store = Store(Path(project.env["CREGRAPH_CACHE"]))
    (task,) = (task for task in planned(project).tasks if task.name == name)
    result = store.path_of(store.record("tasks", task.key)["sha256"])
    out = io.BytesIO()
    with tarfile.open(result) as made, tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info in made:
            data = made.extractfile(info)
            info.name = f"{name}/{info.name}".rstrip("/").removesuffix("/.")
            info.uid = info.gid = 1000
            info.uname = info.gname = "builder"
            info.mtime = 1_750_000_000
            info.mode |= 0o020
            tar.addfile(info, data)
    return gzip.compress(out.getvalue(), mtime=0)


def planned(project: RealProject) -> Plan:
    lock = locks.loads(project.lock.read_text(), name="team.lock.json", kinds=KINDS)
    return make_plan(lock, Project.of(str(project.folder / "team.yaml")).facts(lock.base))


def files(project: RealProject) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Every file and link of the image's own layers by path: type, mode, owner, content."""
    layout = project.folder / "image"
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    found = {}
    for layer in manifest["layers"][1:]:
        with tarfile.open(layout / "blobs/sha256" / layer["digest"][7:]) as tar:
            for m in tar:
                if m.name.startswith(LIBRARY) and not m.isdir():
                    data = r.read() if (r := tar.extractfile(m)) else m.linkname.encode()
                    found[m.name] = (int(m.type), m.mode, m.uid, m.gid, data)
    return found
