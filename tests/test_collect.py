"""Clearing the store: nothing that a root reaches goes, whoever works at the same time, and whatever is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cregraph.digest import sha256
from cregraph.errors import CregraphError
from cregraph.store import Store
from cregraph.store.gc.collect import RECORDS, TREES, Reached, collect, unreached
from cregraph.store.known import known
from cregraph.store.users import gc_lock, in_use
from tests.faults import GENEROUS, Demo, soon


def cleared(store: Store, reached: Reached, **how: float) -> None:
    time.sleep(0.12)  # what was put just now may be of who works now
    with gc_lock(store, patience=0) as users:
        collect(store, reached, users, **how)


#: What is nobody's root and no garbage: locks, guesses for later builds, what other programs keep.
BESIDES = ("locks", "users", "tmp", "repodata", "uv-cache", "history", "throughput")


def everything(store: Store) -> set[str]:
    """What is there, by path below the store, without its locks."""
    found = (path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file())
    return {name for name in found if name.split("/")[0] not in BESIDES}


# -- what goes and what stays --------------------------------------------------------------------------------------------------

KNOWN = sorted(RECORDS)
CONTENT = st.integers(0, 30).map(lambda number: f"content {number}".encode())
RECORD = st.tuples(st.sampled_from([*KNOWN, "of-a-later-version"]), st.integers(0, 12), st.lists(CONTENT, max_size=4))


@settings(max_examples=25, deadline=None)
@given(
    contents=st.lists(CONTENT, max_size=20),
    written=st.lists(RECORD, max_size=15),
    kept=st.sets(st.tuples(st.sampled_from(KNOWN), st.integers(0, 12)), max_size=6),
    wanted=st.sets(CONTENT, max_size=5),
    folders=st.sets(st.tuples(st.sampled_from(sorted(TREES)), st.integers(0, 5)), max_size=6),
    data=st.data(),
)
def test_what_is_reached_stays_and_all_else_goes(
    contents: list[bytes],
    written: list[tuple[str, int, list[bytes]]],
    kept: set[tuple[str, int]],
    wanted: set[bytes],
    folders: set[tuple[str, int]],
    data: st.DataObject,
) -> None:
    """Over random stores: objects, records that name them, trees; an object stays if and only if it is reached, or a record that
    stays names it."""
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        for content in {*contents, *(one for _, _, named in written for one in named)}:
            store.add(content)
        graph: dict[tuple[str, str], list[bytes]] = {}
        for section, number, named in written:
            key = sha256(f"key {number}".encode())
            graph[section, key] = named
            store.put_record(section, key, {"names": [f"sha256:{sha256(one)}" for one in named]})
        for section, number in folders:
            store.tree(section, sha256(f"key {number}".encode()), lambda folder: (folder / "file").write_text("x") and None)
        stays = data.draw(st.sets(st.sampled_from(sorted(folders)))) if folders else set()
        reached = Reached(
            objects=frozenset(sha256(one) for one in wanted),
            records=frozenset((section, sha256(f"key {number}".encode())) for section, number in kept),
            trees=frozenset((section, sha256(f"key {number}".encode())) for section, number in stays),
        )
        before = everything(store)
        cleared(store, reached)
        staying = {pair: named for pair, named in graph.items() if pair in reached.records or pair[0] not in RECORDS}
        objects = {sha256(one) for named in staying.values() for one in named} | set(reached.objects)
        expected = {f"sha256/{one[:2]}/{one}" for one in objects} & before
        expected |= {f"{section}/{key[:2]}/{key}.json" for section, key in staying}
        expected |= {f"{section}/{key[:2]}/{key}/file" for section, key in reached.trees}
        assert everything(store) == expected


def test_what_was_put_there_since_somebody_entered_stays(tmp_path: Path) -> None:
    """A running build writes an object first and the record that names it later."""
    store = Store(tmp_path)
    old, again = store.add(b"old"), store.add(b"again")
    time.sleep(0.12)
    with in_use(store, "build", locks=[]):
        new = store.add(b"new")
        assert store.add(b"again") == again
        cleared(store, Reached())
        assert [store.has(one) for one in (old, again, new)] == [False, True, True]
    cleared(store, Reached())
    assert [store.has(one) for one in (again, new)] == [False, False]


def test_what_only_helps_later_builds_stays_for_a_while_and_keeps_no_blob_that_a_registry_has(tmp_path: Path) -> None:
    """The file system's change time cannot be set, so the clock is."""
    store = Store(tmp_path)
    pushed, layer = store.add(b"a layer that was pushed"), store.add(b"what a task sees")
    store.put_record("pushed", "0" * 64, {"blobs": [f"sha256:{pushed}"]})
    store.put_record("task-layers", "1" * 64, {"sha256": layer})
    cleared(store, Reached())
    assert [store.has(one) for one in (pushed, layer)] == [False, True]
    assert store.record("pushed", "0" * 64) is not None
    later = time.time() + 40 * 86400
    assert {e.section for e in unreached(store, Reached(), now=later)} == {"task-layers", "sha256"}
    assert list(unreached(store, Reached(), now=later, idle=False)) == []
    assert {e.section for e in unreached(store, Reached(), now=later * 2)} == {"task-layers", "pushed", "sha256"}


def test_files_of_locks_that_nobody_holds_go_and_who_waits_for_one_is_still_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    inside: list[str] = []
    with store.lock("held"), store.lock("free"):
        pass

    def wait() -> None:
        with store.lock("held"):
            inside.append("second")
            time.sleep(0.2)
            inside.append("out")

    with store.lock("held"):
        waiting = [threading.Thread(target=wait) for _ in range(3)]
        for thread in waiting:
            thread.start()
        cleared(store, Reached())
        assert sorted(path.name for path in (tmp_path / "locks").iterdir() if path.name != "commit") == ["gc", "held"]
        (tmp_path / "locks" / "held").unlink()  # as one does that got it between two others
    for thread in waiting:
        thread.join(GENEROUS)
    assert inside == ["second", "out"] * 3


def test_what_was_touched_within_the_days_that_are_asked_for_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.add(b"recent")
    cleared(store, Reached(), older=3600)
    assert store.has(digest)
    cleared(store, Reached(), older=0)
    assert not store.has(digest)


def test_nothing_is_removed_while_somebody_does_not_know_what_it_needs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.add(b"old")
    said: list[int] = []
    with in_use(store, "lock"):
        with pytest.raises(CregraphError) as caught, gc_lock(store, patience=0.3, waiting=lambda user: said.append(user.pid)):
            raise AssertionError("nobody may be let in")
        assert str(caught.value) == (f"`cregraph lock` (process {os.getpid()}) uses the store, and its needs are not known yet")
    assert said == [os.getpid()]
    cleared(store, Reached())
    assert not store.has(digest)


HOLDER = """
import sys, time
from pathlib import Path
from cregraph.store import Store
from cregraph.store.users import in_use
with in_use(Store(Path(sys.argv[1])), "lock"):
    print("inside", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_is_not_waited_for(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    store = Store(tmp_path)
    with pytest.raises(CregraphError), gc_lock(store, patience=0):
        pass
    process.kill()
    process.communicate()
    with gc_lock(store, patience=5) as users:
        assert users == ()
    assert list((tmp_path / "users").iterdir()) == []


def test_who_enters_waits_until_what_is_being_removed_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    waited: list[str] = []
    order: list[str] = []

    def enter() -> None:
        with in_use(store, "build", locks=[b"text"], waiting=lambda: waited.append("said")):
            order.append("inside")

    with gc_lock(store, patience=0):
        thread = threading.Thread(target=enter)
        thread.start()
        soon(lambda: waited)
        time.sleep(0.1)
        order.append("removed")
    thread.join(GENEROUS)
    assert order == ["removed", "inside"]
    assert store.has(sha256(b"text"))


# -- locks as roots ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(made: Demo, tmp_path: Path) -> Demo:
    """A copy that its store knows as its own."""
    demo = made.copy(tmp_path / "own")
    shutil.rmtree(demo.folder / "cache" / "projects")
    demo.completes()
    time.sleep(0.12)
    return demo


def rebuilt(demo: Demo) -> dict[str, int]:
    made: dict[str, int] = demo.ok("build", "demo.yaml", "--json").json["images"][0]["made"]
    return made


def test_after_clearing_a_build_of_what_is_locked_makes_and_fetches_nothing(own: Demo) -> None:
    garbage = own.store.add(b"garbage")
    (own.folder / "cache" / "logs").mkdir(exist_ok=True)
    (own.folder / "cache" / "logs" / "other-0123456789ab.log").write_text("x")
    time.sleep(0.12)
    would = own.ok("cache", "gc", "--dry-run", "--json").json
    assert own.store.has(garbage)
    done = own.ok("cache", "gc", "--json").json
    assert {k: v for k, v in done.items() if k != "dry_run"} == {k: v for k, v in would.items() if k != "dry_run"}
    assert done["removed"]["sha256"] >= 1
    assert done["removed"]["logs"] == 1
    assert not own.store.has(garbage)
    assert rebuilt(own) == {"artifacts": 0, "segments": 0, "tasks": 0, "layers": 0}
    shutil.rmtree(own.folder / "sources" / "channel")
    shutil.rmtree(own.folder / "sources" / "simple")
    for section in ("segments", "layers", "images"):
        shutil.rmtree(own.folder / "cache" / section)
    own.completes()  # from artifacts alone


def test_what_is_in_the_store_is_told_by_kind(own: Demo) -> None:
    assert own.ok("cache", "path").out == f"{own.folder / 'cache'}\n"
    own.store.add(b"garbage")
    own.ok("lock", "with-cran.yaml")
    before = {kind["name"]: kind for kind in own.ok("cache", "ls", "--json").json["kinds"]}
    objects = [path for path in (own.folder / "cache" / "sha256").rglob("*") if path.is_file()]
    of_objects = ("artifacts", "segments", "layers", "task results", "task layers")
    assert sum(before[name]["count"] for name in of_objects) == len(objects)
    assert sum(before[name]["bytes"] for name in of_objects) == sum(path.stat().st_size for path in objects)
    assert before["layers"]["reached"] == len(own.plan().layers)
    assert before["artifacts"]["reached"] < before["artifacts"]["count"]
    time.sleep(0.12)
    freed = own.ok("cache", "gc", "--json").json["freed"]
    after = {kind["name"]: kind for kind in own.ok("cache", "ls", "--json").json["kinds"]}
    assert all(after[name]["reached"] == after[name]["count"] for name in of_objects)
    assert sum(before[name]["bytes"] - after[name]["bytes"] for name in of_objects) <= freed
    lines = own.ok("cache", "ls").out.splitlines()
    assert len(lines) == 1 + len(after)
    assert all(line.split("  ")[0] in after for line in lines[1:])


def test_what_was_last_built_is_kept_beside_what_is_locked_now(own: Demo) -> None:
    text = own.lock.read_bytes()
    profile = own.folder / "demo.yaml"
    before = profile.read_text()
    profile.write_text(before.replace("- r-demoframes ", "- r-demoframes =1.1.0 "))
    own.ok("lock", "demo.yaml")
    time.sleep(0.12)
    own.ok("cache", "gc")
    newer = own.lock.read_bytes()
    profile.write_text(before)
    own.lock.write_bytes(text)
    assert rebuilt(own) == {"artifacts": 0, "segments": 0, "tasks": 0, "layers": 0}
    assert newer != text


def test_a_lock_file_that_is_gone_keeps_nothing_unless_it_is_asked_for(own: Demo, tmp_path: Path) -> None:
    away = tmp_path / "away"
    for name in ("locks", "bases"):
        (own.folder / name).rename(tmp_path / f"{name}-away")
    away.mkdir()
    done = own.run("cache", "gc", "--keep-built", "--json")
    assert done.json["gone"] == [str(own.lock)]
    for name in ("locks", "bases"):
        (tmp_path / f"{name}-away").rename(own.folder / name)
    assert rebuilt(own) == {"artifacts": 0, "segments": 0, "tasks": 0, "layers": 0}, "the facts are in the store too"
    (own.folder / "locks").rename(tmp_path / "locks-away")
    done = own.ok("cache", "gc")
    assert f"`{own.lock}` does not exist any more: it keeps nothing\n" in done.err
    assert everything(own.store) == set()
    (tmp_path / "locks-away").rename(own.folder / "locks")
    own.completes()


@pytest.mark.parametrize("spoilt", ["conflict", "closed", "facts", "newer", "text", "record"])
def test_nothing_is_removed_while_a_lock_cannot_be_read(own: Demo, spoilt: str) -> None:
    project = known(own.store)[0]
    facts = next((own.folder / "bases").iterdir())
    if spoilt == "conflict":
        own.lock.write_text("<<<<<<< ours\n" + own.lock.read_text())
        why = f"{own.lock}:1: git's conflict markers are in the lock"
    elif spoilt == "closed":
        own.lock.unlink()
        own.lock.mkdir()
        why = f"`{own.lock}` cannot be read: Is a directory"
    elif spoilt == "facts":
        own.store.path_of(str(own.plan().lock.base.data["facts"])).unlink()
        facts.unlink()
        why = f"`{own.lock}`: the facts of its base are missing (`{facts}`)"
    elif spoilt == "newer":
        own.lock.write_text(own.lock.read_text().replace('"version": 1', '"version": 99', 1))
        why = f"{own.lock}:"
    elif spoilt == "text":
        assert project.built is not None
        own.store.path_of(project.built.text).unlink()
        own.lock.write_text(own.lock.read_text() + "\n")  # another text than what was built
        why = f"the last build of `{own.lock}` cannot be read: "
    else:
        record = next((own.folder / "cache" / "projects").rglob("*.json"))
        record.write_text("{")
        why = f"`{record}` does not name a lock file"
    before = everything(own.store)
    done = own.run("cache", "gc")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: cregraph deletes nothing, because it cannot read what these locks need\n  "), done.err
    assert why in done.err
    assert everything(own.store) == before
    listed = own.ok("cache", "ls", "--json").json
    assert {kind["reached"] for kind in listed["kinds"]} == {None}


def test_a_project_that_was_moved_keeps_what_its_locks_reach(own: Demo, tmp_path: Path) -> None:
    moved = own.copy(tmp_path / "moved")
    moved.env.pop("CREGRAPH_CACHE", None)
    own.folder.rename(tmp_path / "away")
    time.sleep(0.12)
    done = moved.ok("cache", "gc", "--json").json
    assert done["gone"] == [str(own.lock)]
    assert rebuilt(moved) == {"artifacts": 0, "segments": 0, "tasks": 0, "layers": 0}


def test_what_has_no_name_of_a_store_is_neither_listed_nor_removed(own: Demo) -> None:
    """A file that a program made which synchronises folders, and what was there before the store was."""
    cache = own.folder / "cache"
    record = next((cache / "segments").rglob("*.json"))
    strange = [
        record.with_name(f"{record.stem} (copy).json"),
        cache / "projects" / "ab" / "ab (1).json",
        cache / "logs" / "mail.log",
    ]
    strange += [cache / "quarantine" / "readme", cache / "partial" / "x", cache / "results" / "20" / "2024" / "thesis.txt"]
    before = own.ok("cache", "ls", "--json").json["kinds"]
    for path in strange:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (1, 1))
    after = own.ok("cache", "ls", "--json").json["kinds"]
    assert {kind["name"]: kind["count"] for kind in after} == {kind["name"]: kind["count"] for kind in before}
    time.sleep(0.12)
    own.ok("cache", "gc")
    own.ok("cache", "verify")
    assert all(path.is_file() for path in strange)
    own.completes()


@pytest.mark.parametrize("folder", ["projects", "sha256", "users"])
def test_a_folder_that_cannot_be_read_is_not_an_empty_one(own: Demo, folder: str) -> None:
    """Else nobody would be known to need anything, or every record to name what is not there."""
    away = own.folder / "cache" / "away"
    (own.folder / "cache" / folder).rename(away)
    (own.folder / "cache" / folder).symlink_to(folder)  # to itself
    before = everything(own.store)
    for command in ("gc", "verify"):
        done = own.run("cache", command)
        assert (done.code, done.out) == (2, ""), done.err
        assert "cannot be " in done.err
    assert everything(own.store) == before
    (own.folder / "cache" / folder).unlink()
    away.rename(own.folder / "cache" / folder)
    own.completes()


def test_a_cache_folder_on_a_disk_that_is_away_is_not_another_store(own: Demo, tmp_path: Path) -> None:
    """Else `gc` would clear the user's own."""
    own.env["XDG_CACHE_HOME"] = str(tmp_path / "users")
    (own.folder / "cache").rename(tmp_path / "disk")
    (own.folder / "cache").symlink_to(tmp_path / "away")
    assert own.ok("cache", "gc").out == f"0 B freed in {own.folder / 'cache'}: nothing to delete\n"
    done = own.run("build", "demo.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: the store at {own.folder / 'cache'} cannot be written to: ")
    assert not (tmp_path / "users").exists()


def test_a_store_that_cannot_be_written_to_is_named(own: Demo, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "locks").write_text("a file")
    own.env["CREGRAPH_CACHE"] = str(tmp_path / "closed")
    done = own.run("cache", "gc")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: the store at {tmp_path / 'closed'} cannot be written to: ")


def test_a_lock_that_is_given_by_name_is_kept_too(own: Demo, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    (own.folder / "locks").rename(tmp_path / "locks-away")
    (other / "locks").mkdir(parents=True)
    shutil.copy(tmp_path / "locks-away" / "demo.lock.json", other / "locks" / "demo.lock.json")
    shutil.copytree(own.folder / "bases", other / "bases")
    own.ok("cache", "gc", str(other / "demo.yaml"))
    (tmp_path / "locks-away").rename(own.folder / "locks")
    assert rebuilt(own) == {"artifacts": 0, "segments": 0, "tasks": 0, "layers": 0}
    done = own.run("cache", "gc", "no/such.yaml")
    assert (done.code, done.out) == (2, "")
    assert "such.lock.json` does not exist" in done.err


# -- with others at work -------------------------------------------------------------------------------------------------------


def test_clearing_again_and_again_disturbs_no_running_build(made: Demo, tmp_path: Path) -> None:
    """The lock file is taken away while its build runs, so that nothing but the running build keeps what it needs."""
    for attempt in range(2):
        demo = made.copy(tmp_path / str(attempt), cold=True)
        shutil.rmtree(demo.folder / "image")
        lock = demo.lock.read_bytes()
        build = demo.start("build", "demo.yaml", "--jobs", "1", "--output", "oci:image", program=("-c", SLOW))
        soon(lambda d=demo: list((d.folder / "cache" / "users").glob("*")))
        demo.lock.unlink()
        clearings = 0
        while build.poll() is None:
            demo.ok("cache", "gc")
            clearings += 1
        demo.lock.write_bytes(lock)
        out, err = build.communicate()
        assert (build.returncode, out) == (0, demo.reference), err
        assert clearings >= 2
        demo.completes()


#: A build that takes its time between what it does, so that others meet it at every moment.
SLOW = """
import os, runpy, sys, time
def hook(event, args):
    if event == "os.rename":
        time.sleep(0.03)
sys.addaudithook(hook)
sys.argv[0] = "cregraph"
runpy.run_module("cregraph", run_name="__main__")
"""


def test_builds_that_begin_while_things_are_removed_complete(own: Demo) -> None:
    for number in range(400):
        own.store.add(b"garbage %d" % number)
    time.sleep(0.12)
    clearing = own.start("cache", "gc", program=("-c", SLOW))
    builds = [own.start("build", "demo.yaml") for _ in range(2)]
    for build in builds:
        out, err = build.communicate(timeout=GENEROUS)
        assert (build.returncode, out) == (0, own.reference), err
    assert clearing.wait(GENEROUS) == 0
    clearing.communicate()


def test_a_clearing_that_is_killed_leaves_a_store_that_is_whole(own: Demo) -> None:
    seed = int(os.environ.get("CREGRAPH_TEST_SEED", "0")) or random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    lock = own.lock.read_bytes()
    for _ in range(5):
        own.lock.unlink()
        clearing = own.start("cache", "gc")
        time.sleep(chance.uniform(0.1, 0.6))
        os.killpg(clearing.pid, signal.SIGKILL)
        clearing.communicate()
        own.lock.write_bytes(lock)
        assert own.run("cache", "verify").code == 0
        own.completes()
        time.sleep(0.12)
