"""What was damaged in the store is found before it is used, and made anew; a store that is full or closed says so."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

import pytest

from tests.faults import (
    Demo,
    damage,
    flipped,
    forget,
    refused,
)


def test_an_artifact_that_was_damaged_in_the_store_is_fetched_anew(own: Demo) -> None:
    pin = next(p for t in own.plan().lock.targets for p in t.pins if p.name == "r-demoframes")
    damage(own, pin.artifact.sha256)
    forget(own, "segments", "layers", "images")
    own.completes()


@pytest.mark.parametrize("which", ["layer", "segment", "index"])
def test_what_was_made_and_then_damaged_is_found_before_it_is_used_and_made_anew(own: Demo, which: str) -> None:
    plan = own.plan()
    if which == "layer":
        found = own.store.record("layers", plan.layers[-1].key)["digest"].removeprefix("sha256:")
        what = f"layer sha256:{found}"
        shutil.rmtree(own.folder / "image")
    else:
        segment = next(s for s in plan.segments.values() if s.name.startswith("r-demoframes"))
        found = own.store.record("segments", segment.key)["object" if which == "segment" else "index"]
        what = f"the index of segment {segment.key[:12]}"
        forget(own, "layers", "images")
    bad = damage(own, found)
    done = own.run("build", "demo.yaml", "--jobs", "1", "--output", "oci:image")
    if which == "segment":  # it is read once, while it is joined to a layer
        message = (
            f"error: segment {segment.key[:12]} in the store is damaged: its bytes are not those of sha256:{found}\n"
            "hint: run the command again to make it again, and check the disk\n"
        )
    else:
        message = (
            f"error: {what} in the store has sha256:{bad}, but its name says sha256:{found}\n"
            f"hint: run the command again to download or make it again, and check the disk. "
            f"The damaged file is {own.folder}/cache/quarantine/{found}.{bad[:12]}\n"
        )
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith(message), done.err
    assert own.store.has(found) == (which == "segment")
    own.completes()


@pytest.mark.parametrize("garbage", [b"", b"\xff\0{", b"[]", b'"text"', b'{"digest": 5}', b"[" * 50_000])
def test_records_that_are_garbage_are_as_good_as_none(own: Demo, garbage: bytes) -> None:
    for section in ("segments", "layers", "images"):
        for path in (own.folder / "cache" / section).rglob("*.json"):
            path.write_bytes(garbage)
    planned = own.ok("plan", "demo.yaml", "--json").json
    assert len(planned["layers"]["make"]) == planned["layers"]["all"]
    own.completes()


def test_another_digest_for_the_same_image_key_is_refused_and_nothing_is_published(own: Demo) -> None:
    key, digest = own.plan().key, "sha256:" + "0" * 64
    record = own.store.record("images", key)
    own.store.put_record("images", key, record | {"digest": digest})
    now = own.reference.strip().rpartition("@")[2]
    refused(
        own.run("build", "demo.yaml", "--output", "oci:another"),
        f"error: the image of key {key[:12]} was {digest} before and is {now} now; cregraph does not publish it\n"
        "hint: report it: a task gave other bytes than before. Another store ($CREGRAPH_CACHE) makes everything again\n",
    )
    assert not (own.folder / "another").exists()
    assert own.store.record("images", key)["digest"] == digest


def test_a_store_that_cannot_be_written_to_is_said_to_be_so(own: Demo) -> None:
    (own.folder / "file").write_text("")
    own.env["CREGRAPH_CACHE"] = str(own.folder / "file")
    refused(
        own.run("build", "demo.yaml"),
        f"error: the store at {own.folder}/file cannot be written to: Not a directory\n"
        "hint: set CREGRAPH_CACHE to your own folder\n",
    )


@pytest.mark.parametrize("room", [48, 160, 256, 400])
def test_a_full_disk_is_said_to_be_full_and_leaves_nothing_half_written(cold: Demo, room: int) -> None:
    """Full while fetching, while segments are made, while layers are joined: by the room in kB."""
    store = cold.folder / "cache"
    small = (
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o size={room}k none "{store}" && exec "$@"',
        "sh",
    )
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    refused(
        cold.run("build", "demo.yaml", "--jobs", "1", prefix=small),
        f"error: no space left for the store at {store}\n"
        "hint: free space there, or set CREGRAPH_CACHE to a folder with free space. Complete results are kept\n",
    )
    cold.completes()


def test_a_full_disk_while_the_image_is_written_leaves_no_image(own: Demo) -> None:
    shutil.rmtree(own.folder / "image")
    out = own.folder / "out"
    out.mkdir()
    small = ("unshare", "--map-root-user", "--mount", "sh", "-c", f'mount -t tmpfs -o size=64k none "{out}" && exec "$@"', "sh")
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    for words in (("build", "demo.yaml", "--output", "oci:out/image"), ("vendor", "out/vendor", "demo.yaml")):
        done = own.run(*words, prefix=small)
        assert (done.code, done.out) == (2, ""), done.err
        assert "No space left on device" in done.err
    own.completes()


# -- cache verify --------------------------------------------------------------------------------------------------------------


def checked(demo: Demo) -> list[dict[str, object]]:
    """What `cache verify` finds; a second look finds nothing."""
    done = demo.run("cache", "verify", "--json")
    found: list[dict[str, object]] = done.json["damaged"]
    assert (done.code, done.json["ok"]) == ((1, False) if found else (0, True)), done.err
    again = demo.run("cache", "verify", "--json")
    assert (again.code, again.json["damaged"]) == (0, [])
    return found


def test_a_store_that_is_whole_is_said_to_be(own: Demo) -> None:
    before = {path: path.read_bytes() for path in own.store.root.rglob("*") if path.is_file()}
    assert own.ok("cache", "verify").out == "the store is complete\n"
    assert {path: path.read_bytes() for path in own.store.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("which", ["artifact", "object", "index", "layer", "task", "text"])
def test_a_damaged_object_is_set_aside_and_what_depends_on_it_is_named_and_made_anew(own: Demo, which: str) -> None:
    own.completes()
    plan, store = own.plan(), own.store
    segment = next(s for s in plan.segments.values() if s.name.startswith("r-demoframes"))
    if which == "artifact":
        assert segment.artifact is not None
        found, named = segment.artifact.sha256, "conda r-demoframes 1.2.0"
    elif which in ("object", "index"):
        found, named = store.record("segments", segment.key)[which], f"segment {segment.name}"
    elif which == "layer":
        found, named = store.record("layers", plan.layers[-1].key)["digest"][7:], f"layer {plan.layers[-1].name}"
    elif which == "task":
        found, named = store.add(b"a result"), "tasks/"
        store.put_record("tasks", "0" * 64, {"sha256": found, "size": 8})
    else:
        found, named = hashlib.sha256(own.lock.read_bytes()).hexdigest(), "the text of "
    bad = damage(own, found)
    damaged = checked(own)
    (one,) = [one for one in damaged if one["name"] == found]
    assert one["what"] == "object"
    assert one["why"] == f"its bytes have sha256:{bad}"
    assert one["done"] == f"moved to quarantine/{found}.{bad[:12]}"
    assert any(named in str(text) for text in one["of"]), one  # type: ignore[attr-defined]
    assert not store.has(found)
    followed = [(one["what"], str(one["name"]).partition("/")[0]) for one in damaged if one["name"] != found]
    section = {"artifact": "", "object": "segments", "index": "segments", "layer": "layers", "task": "tasks", "text": "projects"}
    assert set(followed) == ({("record", section[which])} if section[which] else set())
    own.completes()


@pytest.mark.parametrize("garbage", [b"", b"[]", b'{"digest": 5}'])
def test_records_that_are_garbage_are_found_and_forgotten(own: Demo, garbage: bytes) -> None:
    own.completes()
    spoilt = []
    for section in ("segments", "layers", "images", "projects"):
        path = next((own.folder / "cache" / section).rglob("*.json"))
        path.write_bytes(garbage)
        spoilt.append(f"{section}/{path.stem}")
    damaged = checked(own)
    assert {one["name"] for one in damaged} == set(spoilt)
    assert {one["done"] for one in damaged} == {"forgotten"}
    own.completes()


def test_an_index_that_does_not_fit_its_segment_is_found(own: Demo) -> None:
    """Both objects are whole; the record pairs them wrongly."""
    plan, store = own.plan(), own.store
    one, two = [s for s in plan.segments.values() if s.artifact is not None][:2]
    first, second = store.record("segments", one.key), store.record("segments", two.key)
    store.put_record("segments", one.key, {**first, "index": second["index"], "entries": second["entries"]})
    (damaged,) = checked(own)
    assert damaged["name"] == f"segments/{one.key}"
    assert "its index does not match" in str(damaged["why"])
    assert damaged["of"] == [f"segment {one.name}"]
    own.completes()


def test_a_layer_whose_digests_do_not_fit_is_found(own: Demo) -> None:
    plan, store = own.plan(), own.store
    record = store.record("layers", plan.layers[0].key)
    store.put_record("layers", plan.layers[0].key, {**record, "diff_id": "sha256:" + "0" * 64})
    (damaged,) = checked(own)
    assert damaged["name"] == f"layers/{plan.layers[0].key}"
    assert damaged["why"] == "its plain bytes have another digest than stated"
    own.completes()


def test_a_file_that_was_changed_in_an_unpacked_tree_is_found_and_the_tree_removed(own: Demo) -> None:
    from cregraph.engines.trees import Trees
    from cregraph.image.model import segment as segments
    from cregraph.image.model.segment_files import unpack

    store, plan = own.store, own.plan()
    segment = next(s for s in plan.segments.values() if s.name.startswith("r-demoframes"))
    record = segments.read(store, segment.key)
    assert record is not None
    made = Trees(store, layers=lambda _digest: (), unpack=lambda _key, folder: unpack(store, record, folder))
    made.environment([segment.key])
    assert checked(own) == []
    file = next(path for path in (store.root / "segment-trees").rglob("*") if path.is_file() and path.stat().st_size > 10)
    file.chmod(0o644)
    file.write_bytes(flipped(file.read_bytes()))
    build = (
        "import sys, time; from pathlib import Path; from cregraph.store import Store; from cregraph.store.users import in_use\n"
    )
    build += "with in_use(Store(Path(sys.argv[1])), 'build', locks=[]): print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", build, str(store.root)], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        (left,) = own.run("cache", "verify", "--json").json["damaged"]
        running.kill()
    assert left["done"].startswith("not checked, because another command uses the store"), "a task may run over it"
    assert list((store.root / "environments").glob("*/*"))
    (damaged,) = checked(own)
    assert (damaged["what"], damaged["done"]) == ("tree", "removed, and the environments")
    assert not list((store.root / "segment-trees").glob("*/*"))
    assert not list((store.root / "environments").glob("*/*"))
