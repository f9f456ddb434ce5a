"""The whole way on real software: real R, conda packages, CRAN sources, wheels and sdists, locked, compiled and assembled."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.plan.planner import make_plan
from cregraph.session.project import Project
from cregraph.store import Store
from tests.environment import Environment
from tests.real_project import RealProject

pytestmark = [pytest.mark.environment]


def copy_of(built: RealProject, folder: Path) -> RealProject:
    """The same project elsewhere, with the same store."""
    project = RealProject.make(folder, built.environment, store=Path(built.env["CREGRAPH_CACHE"]))
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, project.folder / name)
    return project


def reference(project: RealProject) -> str:
    return project.ok("build", "team.yaml").out.strip()


def test_a_moved_mirror_changes_neither_lock_nor_tag_nor_digest(
    built: RealProject, environment: Environment, tmp_path: Path
) -> None:
    other = RealProject.make(tmp_path / "elsewhere", environment)
    other.ok("lock", "team.yaml")  # over file://
    assert other.lock.read_bytes() == built.lock.read_bytes()
    assert "127.0.0.1" not in built.lock.read_text()
    assert str(environment.root) not in built.lock.read_text()


def test_a_fresh_lock_is_left_alone_without_opening_a_socket(built: RealProject, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    before = project.lock.read_bytes()
    project.route("http://127.0.0.1:9")  # nobody listens there
    trace = tmp_path / "sockets"
    for words in (("lock", "team.yaml"), ("lock", "team.yaml", "--check"), ("plan", "team.yaml")):
        prefix = ("strace", "-f", "-qq", "-e", "trace=socket", "-o", str(trace)) if shutil.which("strace") else ()
        done = project.ok(*words, prefix=prefix)
        if prefix:
            assert "AF_INET" not in trace.read_text(), (words, done.err)
    assert project.lock.read_bytes() == before


def test_one_lock_gives_one_digest_under_other_circumstances_and_from_a_cold_store(
    built: RealProject, environment: Environment, tmp_path: Path
) -> None:
    """Other time zone, locale, umask, user, home, folder, hash seed, number of workers; no network, no source but what `vendor`
    copied; everything compiled anew."""
    expected = reference(built)
    folder = tmp_path / "a folder, with: odd characters"
    project = RealProject.make(folder, environment)
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, project.folder / name)
    (folder / "environment").unlink()
    built.ok("vendor", str(folder / "vendor"), "team.yaml")
    (folder / "vendor" / "sources.yaml").rename(folder / "vendored.yaml")
    text = (folder / "vendored.yaml").read_text().replace("./", "./vendor/")
    (folder / "sources.yaml").write_text(text)
    home = tmp_path / "home"
    home.mkdir()
    umask = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    user = ("unshare", "--user", "--net", "--map-user=4242", "--map-group=4242")
    assert subprocess.run([*user, "true"], capture_output=True).returncode == 0, "no user namespaces here"
    env = {"TZ": "Asia/Kolkata", "LC_ALL": "C", "LANG": "tr_TR", "HOME": str(home), "PYTHONHASHSEED": "77", "USER": "other"}
    done = project.run("build", "team.yaml", "--jobs", "1", env=env, prefix=(*user, *umask))
    assert done.code == 0, done.err
    assert done.out.strip() == expected
    assert "tasks: 13 run, 0 reused" in done.err


def test_changing_the_hook_remakes_one_layer_and_compiles_nothing(built: RealProject, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    recipes = project.folder / "recipes"
    shutil.copytree(Path(__file__).parent.parent / "recipes", recipes)
    project.digest()  # the team's own copy of the recipes: same bytes
    hook = recipes / "hook" / "00-sfnb-enable-r.py"
    hook.write_text(hook.read_text() + "\n# changed\n")
    project.ok("lock", "team.yaml")
    done = project.ok("build", "team.yaml", "--json").json["images"][0]
    assert done["made"]["layers"] == 1
    assert done["made"]["tasks"] == 0


def test_changing_a_cran_package_compiles_it_and_its_dependents_only(built: RealProject, tmp_path: Path) -> None:
    """bitops 1.0-7 instead of 1.0-9: caTools imports it; nothing else does."""
    project = copy_of(built, tmp_path / "p")
    project.edit(cran=["doParallel", "caTools", "xts", "lmtest", "reshape2", "bitops==1.0-7"])
    project.ok("lock", "team.yaml")
    _forget(project, {"bitops", "caTools"})  # another test may have compiled the same in this store
    planned = project.ok("plan", "team.yaml", "--json").json
    assert sorted(planned["tasks"]["make"]) == ["bitops", "caTools"]
    done = project.ok("build", "team.yaml", "--json").json["images"][0]
    assert done["made"]["tasks"] == 2


def _forget(project: RealProject, names: set[str]) -> None:
    """Forget the image of the lock, and what the tasks `names` gave."""
    at = Project(profile=project.folder / "team.yaml")
    lock = at.read_lock()
    assert lock is not None
    plan, store = make_plan(lock, at.facts(lock.base)), Store(Path(project.env["CREGRAPH_CACHE"]))
    store.drop_record("images", plan.key)
    for task in plan.tasks:
        if task.name.split(" ")[0] in names:
            store.drop_record("tasks", task.key)
            for segment in plan.segments.values():
                if segment.task_key == task.key:
                    store.drop_record("segments", segment.key)


def test_adding_a_package_moves_no_pin_that_nobody_asked_to_move(built: RealProject, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    before = {(t.id, p.name): p.artifact.sha256 for t in _lock(project).targets for p in t.pins}
    project.edit(conda_r=["r-lme4=1.1-31", "r-codetools", "odd-noarch"])
    project.ok("lock", "team.yaml")
    after = {(t.id, p.name): p.artifact.sha256 for t in _lock(project).targets for p in t.pins}
    assert {key: after[key] for key in before if key in after and not key[1].startswith("file")} == {
        key: before[key] for key in before if key in after
    }
    assert {name for _, name in after.keys() - before.keys()} >= {"odd-noarch"}


def test_a_tarball_may_be_a_file_or_a_folder_of_the_project(built: RealProject, environment: Environment, tmp_path: Path) -> None:
    project = copy_of(built, tmp_path / "p")
    shutil.copyfile(environment.tarballs / "snowflakeR" / "v0.1.0" / "snowflakeR_0.1.0.tar.gz", project.folder / "sf.tar.gz")
    own = project.folder / "own"
    (own / "R").mkdir(parents=True)
    (own / "DESCRIPTION").write_text("Package: teamtools\nVersion: 1.0\nTitle: Ours\nImports: cli\nLicense: MIT\n")
    (own / "NAMESPACE").write_text("export(hello)\nimportFrom(cli,rule)\n")
    (own / "R" / "a.R").write_text("hello <- function() 'hello'\n")
    project.edit({"tarballs": {"snowflakeR": "./sf.tar.gz", "teamtools": "./own"}})
    project.ok("lock", "team.yaml")
    done = project.ok("build", "team.yaml", "--json").json["images"][0]
    assert done["made"]["tasks"] == 1  # snowflakeR has the same bytes as from its URL
    (own / "R" / "a.R").write_text("hello <- function() 'changed'\n")
    stale = project.run("build", "team.yaml")
    assert stale.code == 1
    assert "`./own` changed since it was locked" in stale.err


def test_packages_that_conda_has_are_not_installed_twice(built: RealProject) -> None:
    lock = _lock(built)
    library = next(t for t in lock.targets if t.kind == "r")
    conda = {p.name for t in lock.targets if t.kind == "conda" for p in t.pins}
    assert {p.name for p in library.pins} >= {"snowflakeR", "RSnowflake", "xts", "zoo", "caTools", "bitops"}
    assert not {f"r-{p.name.lower()}" for p in library.pins} & conda


def test_the_environment_in_the_image_reads_back_as_a_true_conda_environment(built: RealProject) -> None:
    """py-rattler reads every record in conda-meta, and each names files that are in the image."""
    import tarfile

    from rattler import PrefixRecord

    prefix = "home/jupyter/micromamba/envs/workspace_env/"
    files: set[str] = set()
    records = built.folder / "records"
    records.mkdir(exist_ok=True)
    manifest = _manifest(built)
    for layer in manifest["layers"]:
        path = built.folder / "image" / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")
        with tarfile.open(path) as tar:
            for member in tar:
                if not member.isdir() and member.name.startswith(prefix):
                    files.add(member.name.removeprefix(prefix))
                    if "/conda-meta/" in member.name and member.name.endswith(".json"):
                        reader = tar.extractfile(member)
                        assert reader is not None
                        (records / Path(member.name).name).write_bytes(reader.read())
    read = [PrefixRecord.from_path(path) for path in sorted(records.glob("*.json"))]
    pinned = {p.name for t in _lock(built).targets if t.id.endswith("/workspace_env") for p in t.pins}
    assert {record.name.normalized for record in read} == pinned
    assert all(str(file) in files for record in read for file in record.files)


def test_the_image_adds_layers_to_the_base_and_changes_none_of_its_own(built: RealProject, environment: Environment) -> None:
    index = json.loads((environment.base / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    base = json.loads((environment.base / "blobs" / "sha256" / digest).read_text())
    ours = _manifest(built)
    count = len(base["layers"])
    assert [layer["digest"] for layer in ours["layers"][:count]] == [layer["digest"] for layer in base["layers"]]
    assert len(ours["layers"]) > count


def _manifest(project: RealProject) -> dict[str, list[dict[str, str]]]:
    index = json.loads((project.folder / "image" / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    found: dict[str, list[dict[str, str]]] = json.loads((project.folder / "image" / "blobs" / "sha256" / digest).read_text())
    return found


def _lock(project: RealProject) -> locks.Lock:
    return locks.loads(project.lock.read_text(), name="team.lock.json", kinds=KINDS)
