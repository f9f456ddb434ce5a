"""Bytes that arrive damaged, cut off or not at all: refused by name, or asked for again; the next run completes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environment.serving import Server
from tests.faults import (
    DIFFERS,
    FRAMES,
    HTTPFS,
    WHEEL,
    Demo,
    digest,
    flipped,
    refused,
)


@pytest.mark.parametrize("path", [f"channel/linux-64/{FRAMES}", f"simple/demo-greeting/{WHEEL}", "files/v1/tool.gz"])
def test_a_byte_that_is_flipped_on_its_way_is_refused_with_both_digests_and_the_source(
    cold: Demo, server: Server, path: str
) -> None:
    good = (cold.folder / "sources" / path).read_bytes()
    server.fault(f"/{path}", "flip")
    before = cold.lock.read_bytes()
    name = HTTPFS if path.startswith("files") else path.rpartition("/")[2]
    refused(
        cold.run("build", "demo.yaml", "--jobs", "1", "--output", "oci:image"),
        f"error: {name} has {digest(flipped(good))}, but the lock pins {digest(good)} ({len(good)} bytes)\n"
        f"  from {server.address}/{path}\n{DIFFERS}",
    )
    assert not cold.store.has(digest(good)[7:])
    assert not cold.store.has(digest(flipped(good))[7:])
    assert not (cold.folder / "image").exists()
    assert cold.lock.read_bytes() == before
    cold.completes()


@pytest.mark.parametrize("change", [flipped, lambda data: data + b"more", lambda data: data[:-1]])
def test_a_locked_file_that_changed_at_a_file_address_is_refused_until_it_is_back(
    made: Demo, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    demo = made.copy(tmp_path / "p", cold=True)
    path = demo.folder / "sources" / "channel" / "linux-64" / FRAMES
    good = path.read_bytes()
    bad = change(good)
    path.write_bytes(bad)
    found = digest(bad) if len(bad) <= len(good) else f"more than {len(good)} bytes"
    refused(
        demo.run("build", "demo.yaml", "--jobs", "1"),
        f"error: {FRAMES} has {found}, but the lock pins {digest(good)} ({len(good)} bytes)\n  from {path.as_uri()}\n{DIFFERS}",
    )
    path.write_bytes(good)
    demo.completes()


def test_a_warm_store_needs_no_source(own: Demo) -> None:
    shutil.rmtree(own.folder / "sources" / "channel")
    shutil.rmtree(own.folder / "sources" / "simple")
    own.completes()


def test_a_flipped_byte_in_a_layer_of_the_base_is_found_while_locking_and_while_writing_the_image(own: Demo) -> None:
    layer = json.loads(_manifest(own.folder / "sources" / "base").read_text())["layers"][0]
    path = own.folder / "sources" / "base" / "blobs" / layer["digest"].replace(":", "/")
    good = path.read_bytes()
    path.write_bytes(flipped(good))
    message = (
        f"error: oci:sources/base: a blob has {digest(flipped(good))} ({len(good)} bytes), "
        f"but its manifest says {digest(good)} ({len(good)})\nhint: copy the layout again: it is damaged\n"
    )
    refused(own.run("build", "demo.yaml", "--output", "oci:other"), message)
    assert not (own.folder / "other").exists()
    before = own.lock.read_bytes()
    own.lock.unlink()
    shutil.rmtree(own.folder / "bases")
    done = own.run("lock", "demo.yaml")
    assert (done.code, own.lock.exists(), list(own.folder.glob("bases/*"))) == (2, False, []), done.err
    path.write_bytes(good)
    own.ok("lock", "demo.yaml")
    assert own.lock.read_bytes() == before
    own.completes()


def test_a_cran_source_that_is_flipped_while_locking_is_refused_by_the_index(cold: Demo, server: Server) -> None:
    (cold.folder / "sources.yaml").write_text(
        f"conda: {{demo: ./sources/channel}}\ncran: {server.address}/cran\npypi: ./sources/simple\n"
        'url: {"https://files.invalid/": ./sources/files/}\n'
    )
    lock = cold.folder / "locks" / "with-cran.lock.json"
    lock.unlink()
    file = "demostats_1.0-3.tar.gz"
    good = (cold.folder / "sources" / "cran" / "src" / "contrib" / file).read_bytes()
    md5 = [hashlib.md5(data, usedforsecurity=False).hexdigest() for data in (flipped(good), good)]
    address = f"{server.address}/cran/src/contrib/{file}"
    server.fault(f"*/{file}", "flip")
    refused(
        cold.run("lock", "with-cran.yaml"),
        f"error: {file} has md5 {md5[0]}, but its index says {md5[1]}\n  from {address}\n"
        "hint: try again later, or name another mirror in sources.yaml: this one does not match its index\n",
    )
    assert not lock.exists()
    server.fault("*/PACKAGES.gz", "500", times=2)
    server.fault(f"*/{file}", "truncate")
    cold.ok("lock", "with-cran.yaml")
    assert digest(good)[7:] in lock.read_text()


def _manifest(layout: Path) -> Path:
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    return layout / "blobs" / entry["digest"].replace(":", "/")


def test_a_download_that_is_cut_off_goes_on_and_a_server_that_fails_twice_is_asked_again(cold: Demo, server: Server) -> None:
    server.fault(f"*/{FRAMES}", "truncate")
    server.fault("*/tool.gz", "500", times=2)
    server.fault(f"*/{WHEEL}", "500", times=2)
    cold.completes()
    assert [asked.status for asked in server.log if asked.path.endswith(FRAMES)] == [200, 206]
    for name in ("tool.gz", WHEEL):
        assert [asked.status for asked in server.log if asked.path.endswith(name)] == [500, 500, 200]


def test_a_channel_that_fails_twice_is_asked_again(cold: Demo, server: Server) -> None:
    cold.lock.unlink()
    (cold.folder / "sources.yaml").write_text(
        f"conda: {{demo: {server.address}/channel}}\npypi: ./sources/simple\n"
        "url: {'https://files.invalid/': ./sources/files/}\n"
    )
    server.fault("*/repodata.json*", "500", times=2)
    cold.ok("lock", "demo.yaml")
    assert cold.ok("build", "demo.yaml").out == cold.reference


def test_what_no_source_has_any_more_is_named_with_every_address(cold: Demo, server: Server) -> None:
    server.fault(f"*/{FRAMES}", "404", times=9)
    refused(
        cold.run("build", "demo.yaml", "--jobs", "1"),
        f"error: {FRAMES} does not exist\n  {server.address}/channel/linux-64/{FRAMES}: HTTP 404\n"
        "hint: check the name, or the address in sources.yaml\n",
    )
    server.clear()
    cold.completes()
