"""`cregraph verify`: what another image has, lacks or changed is said by name. On the demo, in processes of their own."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cregraph.demo.demo_project import claim, write_project
from tests.made_images import digest, entry, folder, link, tar
from tests.real_project import Done
from tests.test_cli import run

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's project, locked and built into the layout `image`."""
    place = tmp_path_factory.mktemp("verify") / "it"
    claim(place)
    write_project(place)
    for words in (("lock", "demo.yaml"), ("build", "demo.yaml", "--output", "oci:image")):
        done = run(place, *words, CREGRAPH_CACHE=str(place / "cache"))
        assert done.code == 0, done.err
    return place


def blob(layout: Path, name: str) -> bytes:
    return (layout / "blobs" / "sha256" / name.removeprefix("sha256:")).read_bytes()


def put(layout: Path, data: bytes) -> str:
    (layout / "blobs" / "sha256" / digest(data).removeprefix("sha256:")).write_bytes(data)
    return digest(data)


def altered(project: Path, name: str, *layers: bytes, config: Change = lambda _: None, drop: int = 0) -> str:
    """The demo's image with `layers` above it (`drop` of its own left out), as `oci:NAME`."""
    target = project / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(project / "image", target)
    index = json.loads((target / "index.json").read_text())
    manifest = json.loads(blob(target, index["manifests"][0]["digest"]))
    inner = json.loads(blob(target, manifest["config"]["digest"]))
    if drop:
        del manifest["layers"][-drop:], inner["rootfs"]["diff_ids"][-drop:]
    for layer in layers:
        data = gzip.compress(layer, mtime=0)
        manifest["layers"].append(
            {"mediaType": manifest["layers"][-1]["mediaType"], "digest": put(target, data), "size": len(data)}
        )
        inner["rootfs"]["diff_ids"].append(digest(layer))
    config(inner["config"])
    data = json.dumps(inner).encode()
    manifest["config"] = {**manifest["config"], "digest": put(target, data), "size": len(data)}
    data = json.dumps(manifest).encode()
    index["manifests"] = [{**index["manifests"][0], "digest": put(target, data), "size": len(data)}]
    (target / "index.json").write_text(json.dumps(index))
    return f"oci:{name}"


def verify(project: Path, image: str, *words: str, store: str = "cache") -> Done:
    return run(project, "verify", image, "demo.yaml", *words, CREGRAPH_CACHE=str(project / store))


def found(project: Path, image: str, *words: str, store: str = "cache") -> set[tuple[str, str, str]]:
    """(what, subject, name) of everything that is said."""
    done = verify(project, image, "--json", *words, store=store)
    assert done.code in (0, 1), done.err
    answer = done.json
    assert answer["ok"] is (done.code == 0) is (not answer["findings"])
    return {(one["what"], one["subject"], one["name"]) for one in answer["findings"]}


def members(project: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Everything in the image's own layers."""
    index = json.loads((project / "image" / "index.json").read_text())
    manifest = json.loads(blob(project / "image", index["manifests"][0]["digest"]))
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(project / "image", layer["digest"])))) as archive:
            for info in archive:
                reader = archive.extractfile(info) if info.isreg() else None
                yield info, reader.read() if reader else b""


def path_of(project: Path, ending: str) -> tuple[tarfile.TarInfo, bytes]:
    return next((info, data) for info, data in members(project) if info.name.endswith(ending))


def test_the_built_image_is_what_the_lock_says_and_its_digest_is_enough(made: Path) -> None:
    done = verify(made, "oci:image")
    assert done.code == 0, done.err
    assert "same digest" in done.out
    assert verify(made, "oci:image", "--json").json["by"] == "digest"


def test_a_damaged_blob_is_found_though_the_digest_is_the_same(made: Path) -> None:
    shutil.copytree(made / "image", made / "damaged")
    layer = max((made / "damaged" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(layer.read_bytes())
    data[len(data) // 2] ^= 1
    layer.unlink()
    layer.write_bytes(data)
    done = verify(made, "oci:damaged")
    assert done.code == 2
    assert layer.name in done.err


def test_an_image_put_together_otherwise_is_held_against_the_lock_file_by_file(made: Path) -> None:
    """Another config, so another digest; every file is compared all the same."""
    done = verify(made, altered(made, "relabelled", config=lambda c: c["Labels"].update({"of.a.builder": "x"})), "--json")
    assert done.code == 0, done.out
    assert done.json["by"] == "content"
    assert done.json["packages"] >= 4
    assert done.json["files"] == sum(1 for info, _ in members(made) if not info.isdir()) - base_files(made)
    assert done.json["unread"] == 0


def base_files(project: Path) -> int:
    index = json.loads((project / "sources" / "base" / "index.json").read_text())
    manifest = json.loads(blob(project / "sources" / "base", index["manifests"][0]["digest"]))
    count = 0
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(project / "sources" / "base", layer["digest"])))) as archive:
            count += sum(1 for info in archive if not info.isdir())
    return count


def test_files_that_were_changed_added_and_deleted_are_named(made: Path) -> None:
    lock, text = path_of(made, "opt/cregraph/lock.json")
    history, _ = path_of(made, "conda-meta/history")
    here, _, name = history.name.rpartition("/")
    layer = tar(
        entry(lock.name, text + b" "),
        entry("opt/stray.txt", b"x"),
        entry(f"{here}/.wh.{name}"),
    )
    image = altered(made, "edited", layer)
    assert found(made, image) == {
        ("changed", "file", f"/{lock.name}"),
        ("extra", "file", "/opt/stray.txt"),
        ("missing", "file", f"/{history.name}"),
    }
    done = verify(made, image)
    assert done.code == 1
    assert f"changed       file /{lock.name}: has sha256:{hashlib.sha256(text + b' ').hexdigest()}" in done.out


def test_a_mode_an_owner_and_a_link_in_the_place_of_a_file_are_changes(made: Path) -> None:
    lock, text = path_of(made, "opt/cregraph/lock.json")
    for number, change in enumerate(
        (entry(lock.name, text, mode=0o600), entry(lock.name, text, uid=7), link(lock.name, "/etc/passwd"))
    ):
        image = altered(made, f"turned{number}", tar(folder("opt"), folder("opt/cregraph"), change))
        assert found(made, image) == {("changed", "file", f"/{lock.name}")}


def test_another_version_and_a_package_that_nobody_pinned_are_said_as_packages_and_not_file_by_file(made: Path) -> None:
    record, data = next((i, d) for i, d in members(made) if "/conda-meta/" in i.name and i.name.endswith(".json"))
    told = json.loads(data)
    here = record.name.rpartition("/")[0]
    other = json.dumps({**told, "version": "99"}).encode()
    extra = json.dumps({"name": "stowaway", "version": "1", "build": "0", "files": ["lib/stowaway"]}).encode()
    prefix = here.rpartition("/")[0]
    layer = tar(entry(record.name, other), entry(f"{here}/stowaway-1-0.json", extra), entry(f"{prefix}/lib/stowaway", b"x"))
    assert found(made, altered(made, "other", layer)) == {
        ("version", "package", told["name"]),
        ("extra", "package", "stowaway 1"),
    }


def test_a_package_that_is_not_there_is_missing_once(made: Path) -> None:
    record, data = next((i, d) for i, d in members(made) if "/conda-meta/r-" in i.name)
    told = json.loads(data)
    here, _, name = record.name.rpartition("/")
    layer = tar(entry(f"{here}/.wh.{name}"), *[entry(_whiteout(f"{here.rpartition('/')[0]}/{path}")) for path in told["files"]])
    assert found(made, altered(made, "lacking", layer)) == {("missing", "package", f"{told['name']} {told['version']}")}


def _whiteout(path: str) -> str:
    here, _, name = path.rpartition("/")
    return f"{here}/.wh.{name}"


def test_what_of_the_base_is_deleted_replaced_or_turned_is_said(made: Path) -> None:
    layer = tar(entry("etc/.wh.passwd"), folder("tmp", 0o755), entry("etc/hostname-of-mine", b"x"))
    assert found(made, altered(made, "dented", layer)) == {
        ("missing", "file", "/etc/passwd"),
        ("changed", "directory", "/tmp"),
        ("extra", "file", "/etc/hostname-of-mine"),
    }


def test_variables_labels_and_the_way_it_starts_are_compared(made: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["Env"] = [item for item in config["Env"] if not item.startswith("SFNB_CUSTOM_RUNTIME=")] + ["LD_PRELOAD=/x.so"]
        config["Labels"]["org.cregraph.key"] = "0" * 64
        config["User"] = "nobody"

    assert found(made, altered(made, "started", config=change)) == {
        ("missing", "variable", "SFNB_CUSTOM_RUNTIME"),
        ("extra", "variable", "LD_PRELOAD"),
        ("changed", "label", "org.cregraph.key"),
        ("changed", "config", "User"),
    }


def test_another_base_is_said_and_its_files_are_no_findings(made: Path) -> None:
    target = made / "rebased"
    image = altered(made, "rebased")
    index = json.loads((target / "index.json").read_text())
    manifest = json.loads(blob(target, index["manifests"][0]["digest"]))
    inner = json.loads(blob(target, manifest["config"]["digest"]))
    below = tar(entry("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"))
    data = gzip.compress(below, mtime=0)
    manifest["layers"][0] = {**manifest["layers"][0], "digest": put(target, data), "size": len(data)}
    inner["rootfs"]["diff_ids"][0] = digest(below)
    data = json.dumps(inner).encode()
    manifest["config"] = {**manifest["config"], "digest": put(target, data), "size": len(data)}
    data = json.dumps(manifest).encode()
    index["manifests"] = [{**index["manifests"][0], "digest": put(target, data), "size": len(data)}]
    (target / "index.json").write_text(json.dumps(index))
    assert {subject for _, subject, _ in found(made, image)} == {"base"}


def test_a_store_that_has_built_nothing_takes_the_images_records_at_their_word_and_says_so(made: Path) -> None:
    image = altered(made, "unknown", config=lambda c: c["Labels"].update(x="y"))
    done = verify(made, image, store="empty")
    assert done.code == 0, done.out + done.err
    assert "compared only the image's records" in done.err
    assert verify(made, image, "--json", store="empty").json["unread"] > 0
    record, data = next(
        (i, d) for i, d in members(made) if "/conda-meta/" in i.name and any(p["path_type"] == "hardlink" for p in _paths(d))
    )
    prefix = record.name.rpartition("/conda-meta/")[0]
    path = next(p["_path"] for p in _paths(data) if p["path_type"] == "hardlink")
    image = altered(made, "unknown-and-changed", tar(entry(f"{prefix}/{path}", b"other")))
    assert found(made, image, store="empty") == {("changed", "file", f"/{prefix}/{path}")}


def _paths(data: bytes) -> list[dict[str, str]]:
    try:
        found: list[dict[str, str]] = json.loads(data)["paths_data"]["paths"]
    except (ValueError, KeyError, TypeError):
        return []
    return found


def test_what_an_image_says_of_itself_can_be_anything(made: Path) -> None:
    record, _ = next((i, d) for i, d in members(made) if "/conda-meta/" in i.name and i.name.endswith(".json"))
    here = record.name.rpartition("/")[0]
    nasty = [
        b"[" * 100_000,
        b"{}",
        b"\xff\xfe",
        b'{"name": 1, "files": {}, "paths_data": {"paths": [1, {"_path": []}]}}',
        b"null",
    ]
    layer = tar(*[entry(f"{here}/n{i}-\x1b[31m.json", data) for i, data in enumerate(nasty)])
    done = verify(made, altered(made, "nasty", layer))
    assert done.code == 1
    assert "\x1b" not in done.out + done.err
    assert done.out.count("extra") == len(nasty)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (tar(entry("../../etc/shadow", b"x")), "leads out"),
        (b"no tar at all" * 100, "not a tar"),
        (tar(entry("a", b"x" * 2000))[:1000], "ends in the middle"),
    ],
    ids=["climbing", "none", "cut"],
)
def test_a_hostile_layer_is_refused_by_name(made: Path, layer: bytes, words: str) -> None:
    done = verify(made, altered(made, "hostile", layer))
    assert done.code == 2
    assert words in done.err
    assert "layer " in done.err


def test_what_is_no_image_is_no_answer(made: Path) -> None:
    for image in ("oci:nowhere", "registry:not a name", "docker:"):
        assert verify(made, image).code == 2
    assert run(made, "verify", "oci:image", "with-cran-not-there.yaml").code == 2
