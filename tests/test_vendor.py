"""`cregraph vendor`: everything that a lock needs as plain trees, from which it is built without any other source."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import beside, find
from cregraph.kinds.image import vendor_images as images
from cregraph.kinds.r import vendor_cran as cran_tree
from cregraph.lock.pins import Artifact, Pin
from cregraph.sources import cran
from cregraph.store import Store
from cregraph.store.atomic_file import file_digest
from cregraph.vendor.vendor_files import Tree, VendorAccess
from cregraph.vendor.vendor_folder import url_paths, url_section
from tests.faults import HTTPFS, WHEEL, Demo, flipped, refused
from tests.made_images import Made, entry, tar
from tests.small_registry import SmallRegistry

FRAMES = "conda/demo/linux-64/r-demoframes-1.2.0-demo_0.conda"


def contents(folder: Path) -> dict[str, str]:
    """Every file below `folder`, by its sha256."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def own(own: Demo) -> Demo:
    """With a second lock, of R packages besides."""
    own.ok("lock", "with-cran.yaml")
    return own


def vendored(demo: Demo, *words: str, folder: str = "vendor") -> dict[str, Any]:
    found: dict[str, Any] = demo.ok("vendor", folder, *(words or ("demo.yaml",)), "--json").json
    return found


def apart(demo: Demo, folder: Path) -> Demo:
    """The project's own files elsewhere: no sources, no store, no sources.yaml."""
    shutil.copytree(demo.folder, folder, symlinks=True)
    for name in ("sources", "cache", "image"):
        shutil.rmtree(folder / name)
    (folder / "sources.yaml").unlink()
    (folder / "cache").mkdir()
    return Demo(folder=folder, reference=demo.reference)


def alone() -> tuple[str, ...]:
    """What runs a command without any network."""
    prefix = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--net")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    return prefix


def test_a_build_from_it_without_network_on_a_cold_store_gives_the_same_digest(own: Demo, tmp_path: Path) -> None:
    said = vendored(own)
    assert said["sources"] == "vendor/sources.yaml"
    assert said["added"] == said["files"]
    away = tmp_path / "moved"
    shutil.copytree(own.folder / "vendor", away)  # not linked to this store; and it may be moved as a whole
    other = apart(own, tmp_path / "elsewhere")
    sources = ("--sources", str(away / "sources.yaml"))
    assert other.ok("lock", "demo.yaml", "--check").out == "locks/demo.lock.json is fresh\n"
    done = other.run("build", "demo.yaml", "--output", "oci:image", *sources, prefix=alone())
    assert (done.code, done.out) == (0, own.reference), done.err
    other.is_whole()


def test_locking_against_it_pins_the_same_bytes(own: Demo, tmp_path: Path) -> None:
    vendored(own, "demo.yaml", "with-cran.yaml")
    other = apart(own, tmp_path / "elsewhere")
    for name in ("demo", "with-cran"):
        lock = other.folder / "locks" / f"{name}.lock.json"
        before = lock.read_bytes()
        sources = ("--sources", str(own.folder / "vendor" / "sources.yaml"))
        done = other.run("lock", f"{name}.yaml", "--upgrade", *sources, prefix=alone())
        assert done.code == 0, done.err
        assert lock.read_bytes() == before
        lock.unlink()  # and without a lock to keep to; the base is found by its name
        done = other.run("lock", f"{name}.yaml", *sources, prefix=alone())
        assert done.code == 0, done.err
        assert lock.read_bytes() == before


def test_equal_locks_give_equal_bytes_in_whatever_order_they_come(own: Demo) -> None:
    vendored(own, "demo.yaml", "with-cran.yaml", folder="one")
    vendored(own, "with-cran.yaml", folder="two")
    vendored(own, "demo.yaml", folder="two")
    assert contents(own.folder / "one") == contents(own.folder / "two")
    again = vendored(own, "with-cran.yaml", "demo.yaml", folder="one")
    assert again["added"] == 0
    assert contents(own.folder / "one") == contents(own.folder / "two")


def test_files_of_other_locks_stay_until_they_are_pruned(own: Demo) -> None:
    vendored(own, folder="one")
    vendored(own, "demo.yaml", "with-cran.yaml", folder="two")
    kept = vendored(own, folder="two")
    assert kept["removed"] == 0
    assert (own.folder / "two" / "cran" / "2025-06-01" / "src" / "contrib" / "demostats_1.0-3.tar.gz").is_file()
    pruned = vendored(own, "demo.yaml", "--prune", folder="two")
    assert pruned["removed"] == 2
    assert contents(own.folder / "one") == contents(own.folder / "two")


def test_what_was_damaged_there_is_put_there_anew(own: Demo) -> None:
    vendored(own)
    before = contents(own.folder / "vendor")
    for path in (FRAMES, f"simple/demo-greeting/{WHEEL}"):
        file = own.folder / "vendor" / path
        data = flipped(file.read_bytes())
        file.unlink()  # the store's own file lies there
        file.write_bytes(data)
    (own.folder / "vendor" / "simple" / "demo-greeting" / "index.html").write_text("<a href=evil.whl>evil</a>")
    assert vendored(own)["added"] == 2
    assert contents(own.folder / "vendor") == before


def test_a_damaged_source_is_refused_and_nothing_of_it_is_kept(made: Demo, tmp_path: Path) -> None:
    demo = made.copy(tmp_path / "p", cold=True)
    path = demo.folder / "sources" / "channel" / "linux-64" / FRAMES.rpartition("/")[2]
    good = path.read_bytes()
    path.write_bytes(flipped(good))
    done = demo.run("vendor", "vendor", "demo.yaml")
    assert (done.code, done.out) == (2, "")
    assert "but the lock pins sha256:" in done.err
    assert not (demo.folder / "vendor" / FRAMES).exists()
    assert not (demo.folder / "vendor" / "sources.yaml").exists()
    path.write_bytes(good)
    vendored(demo)
    assert contents(demo.folder / "vendor")[FRAMES] == hashlib.sha256(good).hexdigest()


def test_a_run_that_is_killed_is_gone_on_with(made: Demo, tmp_path: Path) -> None:
    demo = made.copy(tmp_path / "p")
    vendored(demo, folder="whole")
    for delay in (0.25, 0.4, 0.5, 0.6):
        process = demo.start("vendor", "vendor", "demo.yaml")
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for path in (demo.folder / "vendor").rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                assert (
                    hashlib.sha256(path.read_bytes()).hexdigest()
                    == contents(demo.folder / "whole")[path.relative_to(demo.folder / "vendor").as_posix()]
                )
    vendored(demo)
    assert contents(demo.folder / "vendor") == contents(demo.folder / "whole")


def test_a_folder_that_holds_something_else_is_left_as_it_is(own: Demo) -> None:
    (own.folder / "mine").mkdir()
    (own.folder / "mine" / "thesis.txt").write_text("x")
    refused(
        own.run("vendor", "mine", "demo.yaml"),
        "error: `mine` holds `thesis.txt`, which `cregraph vendor` did not write; cregraph does not change it\n"
        "hint: name a folder that is new, empty or a vendor folder\n",
    )
    assert [path.name for path in (own.folder / "mine").iterdir()] == ["thesis.txt"]


def test_files_and_a_sources_yaml_of_somebody_else_are_left_as_they_are(own: Demo) -> None:
    """Folders that have the names of ours, but nothing says that they are."""
    photo = own.folder / "mine" / "images" / "photo.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_text("x")
    refused(
        own.run("vendor", "mine", "demo.yaml", "--prune"),
        "error: `mine` has files without sources.yaml, so `cregraph vendor` may not have written them; nothing was removed\n"
        "hint: run once without `--prune` if an interrupted run left them, or name another folder\n",
    )
    assert contents(own.folder / "mine").keys() == {"images/photo.jpg"}
    (own.folder / "mine" / "sources.yaml").write_text("pypi: https://mirror.example/simple\n")
    refused(
        own.run("vendor", "mine", "demo.yaml"),
        "error: `mine/sources.yaml` was not written by `cregraph vendor`; cregraph does not change it\n"
        "hint: name a folder that is new, empty or a vendor folder\n",
    )
    assert contents(own.folder / "mine").keys() == {"images/photo.jpg", "sources.yaml"}
    vendored(own, "demo.yaml", "--prune")  # a new one
    vendored(own, "demo.yaml", "--prune")


# -- the trees, as other tools read them ---------------------------------------------------------------------------------------


def test_pip_and_uv_install_from_the_index(own: Demo, tmp_path: Path) -> None:
    vendored(own)
    index = (own.folder / "vendor" / "simple").as_uri()
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    places = ("--default-index", index, "--cache-dir", str(tmp_path / "cache"), "--target", str(tmp_path / "uv"))
    done = subprocess.run(
        [uv, "pip", "install", "--no-config", "--offline", *places, "--python", sys.executable, "demo-greeting"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "uv" / "demo_words").is_dir(), "what it needs came too"
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--no-cache-dir", "--index-url", index]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("no pip in this environment")
    done = subprocess.run([*pip, "--target", str(tmp_path / "pip"), "demo-greeting"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pip" / "demo_words").is_dir()


def test_rattler_reads_and_solves_the_channel(own: Demo) -> None:
    import rattler

    vendored(own)
    channel = rattler.Channel((own.folder / "vendor" / "conda" / "demo").as_uri())
    solved = asyncio.run(rattler.solve([channel], ["r-demoframes", "demo-report"], platforms=["linux-64", "noarch"]))
    names = {record.name.normalized: record for record in solved}
    pins = {pin.name: pin for target in own.plan().lock.targets if target.kind == "conda" for pin in target.pins}
    assert {"r-demoframes", "demo-report", "r-base"} <= set(names)
    for name, record in names.items():
        assert record.sha256.hex() == pins[name].artifact.sha256
        assert record.md5 is not None


def test_the_layout_is_one_that_names_its_images(own: Demo) -> None:
    from tests.read_layout import Layout

    vendored(own)
    folder = own.folder / "vendor" / "images"
    (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
    base = own.plan().lock.base
    assert entry["digest"] == f"sha256:{base.artifact.sha256}"
    manifest = Layout.open(folder).manifest(entry["annotations"]["org.opencontainers.image.ref.name"])
    for blob in (manifest.config, *manifest.layers):
        Layout.open(folder).blob(blob)


def test_images_of_a_registry_are_copied_and_one_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    made = Made(tar(entry("a", os.urandom(3_000_000))), tar(entry("b")))
    pin = Artifact(kind="image", source="registry:team", file="team/base:1", sha256=made.digest[7:], size=1)
    blobs = tmp_path / "vendor" / "images" / "blobs" / "sha256"
    with SmallRegistry() as registry:
        registry.hold("team/base", "1", made)

        def routes(section: str, _name: str) -> tuple[str, ...]:
            return (f"http://{registry.host}",) if section == "registry" else ()

        def copied() -> set[str]:
            image = find(pin, routes=routes, project=tmp_path, store=Store(tmp_path / "store"))
            (tmp_path / "vendor").mkdir(exist_ok=True)
            access = VendorAccess(fetch=lambda _artifact: Path(), image=lambda _artifact: image)
            return images.put(Tree(tmp_path / "vendor", lambda _name, _size: None), {images.vendor_path(pin): pin}, access)

        find(pin, routes=routes, project=tmp_path, store=Store(tmp_path / "store")).config()
        registry.cut = 1000
        with pytest.raises(CregraphError):
            copied()
        assert all(path.name.startswith(".") or file_digest(path) == path.name for path in blobs.iterdir())
        registry.cut = 0
        partial = blobs / f".{str(made.layers[0]['digest'])[7:]}.partial"
        partial.write_bytes(b"not how it begins")  # and what is kept is not trusted
        assert copied() == {f"images/blobs/sha256/{digest[7:]}" for digest in made.blobs}
    images.write_index(tmp_path / "vendor", [Pin(name="base", version="", artifact=pin)])
    assert {path.name for path in blobs.iterdir()} == {digest[7:] for digest in made.blobs}
    assert all(file_digest(path) == path.name for path in blobs.iterdir())
    away = {"image": (str(tmp_path / "vendor" / "images"),), "registry": ("reg.example",)}
    again = find(pin, routes=lambda section, _: away.get(section, ()), project=tmp_path, store=Store(tmp_path / "cold"))
    assert b"".join(again.open_layer(again.manifest.layers[1])) == made.blobs[str(made.layers[1]["digest"])]
    assert again.home == ("reg.example", "team/base"), "a registry may still mount its layers from there"
    assert beside("registry:team", "team/base:1", away["image"]) is not None
    assert beside("registry:team", "team/base:2", away["image"]) is None


def test_a_cran_lists_the_newest_and_archives_the_others(own: Demo, tmp_path: Path) -> None:
    profile = own.folder / "with-cran.yaml"
    older = own.folder / "older.yaml"
    older.write_text(profile.read_text().replace("demostats", "demostats ==1.0-2").replace("demoplots", "demostats ==1.0-2"))
    if "demostats ==1.0-2" not in older.read_text():
        older.write_text(profile.read_text() + '\nextras: {cran: ["demostats ==1.0-2"], cran_snapshot: "2025-06-01"}\n')
    own.ok("lock", "older.yaml")
    vendored(own, "older.yaml")
    contrib = own.folder / "vendor" / "cran" / "2025-06-01" / "src" / "contrib"
    assert (contrib / "demostats_1.0-2.tar.gz").is_file()
    vendored(own, "with-cran.yaml")
    assert (contrib / "Archive" / "demostats" / "demostats_1.0-2.tar.gz").is_file()
    index = cran.parse_index((contrib / "PACKAGES.gz").read_bytes(), date="2025-06-01", what="it")
    newest = index.find("demostats")
    assert newest is not None
    assert newest.version == "1.0-3"
    assert newest.md5 == hashlib.md5((contrib / "demostats_1.0-3.tar.gz").read_bytes(), usedforsecurity=False).hexdigest()
    assert vendored(own, "older.yaml", "with-cran.yaml")["added"] == 0
    other = apart(own, tmp_path / "elsewhere")
    lock = other.folder / "locks" / "older.lock.json"
    before = lock.read_bytes()
    lock.unlink()
    done = other.run("lock", "older.yaml", "--sources", str(own.folder / "vendor" / "sources.yaml"), prefix=alone())
    assert done.code == 0, done.err
    assert lock.read_bytes() == before, "what is archived is found there"


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("2025-08-09/zoo_1.8-12.tar.gz", "cran/2025-08-09/src/contrib/zoo_1.8-12.tar.gz"),
        ("2025-08-09/4.5.0/Recommended/nlme_3.1-168.tar.gz", "cran/2025-08-09/src/contrib/4.5.0/Recommended/nlme_3.1-168.tar.gz"),
        ("jammy/4.2/2025-08-09/zoo_1.8-12.tar.gz", "cran-binary/jammy/4.2/2025-08-09/src/contrib/zoo_1.8-12.tar.gz"),
        (
            "jammy/4.5/2025-08-09/4.5.0/Recommended/nlme_3.1-168.tar.gz",
            "cran-binary/jammy/4.5/2025-08-09/src/contrib/4.5.0/Recommended/nlme_3.1-168.tar.gz",
        ),
    ],
)
def test_r_packages_lie_where_sources_yaml_leads(file: str, place: str) -> None:
    """Source and built packages of one name apart; found again by the addresses that sources.yaml states."""
    assert cran_tree.vendor_path(replace(artifact(""), kind="r", source="cran", file=file)) == place
    root = "file:///v/cran-binary/{distribution}/{r}/{date}" if place.startswith("cran-binary") else "file:///v/cran/{date}"
    assert f"file:///v/{place}" in cran.locations((root,), file)


@pytest.mark.parametrize("file", ["zoo_1.tar.gz", "2025-08-09/../zoo_1.tar.gz", "2025-08-09/zoo.zip", "/etc/passwd", ""])
def test_a_lock_that_names_no_file_of_a_cran_is_refused(file: str) -> None:
    with pytest.raises(CregraphError, match="is not a file of source `cran`"):
        cran_tree.vendor_path(replace(artifact(""), kind="r", source="cran", file=file))


# -- files by URL --------------------------------------------------------------------------------------------------------------


def artifact(url: str, content: str = "x") -> Artifact:
    return Artifact(kind="url", source=url, file="", sha256=hashlib.sha256(content.encode()).hexdigest(), size=1)


@pytest.mark.parametrize(
    "url",
    [
        "https://h.example/a/../../etc/passwd",
        "https://h.example/a//b",
        "https://h.example/",
        "https://h.example/x?token=1",
        "https://h.example/x%2fy",
        "https://h.example/%2e%2e/x",
        "https://[::1]/x",
        "https://h.example/.hidden",
        "https://h.example/" + "x" * 400,
        "https://h.example/a b",
        "https://..:1/x",
    ],
)
def test_a_url_that_makes_no_path_lies_by_its_sha256(url: str) -> None:
    one = artifact(url)
    (path,) = url_paths({url: one})
    head, _, name = path.rpartition("/")
    assert head == f"files/by-sha256/{one.sha256}"
    assert name
    assert not name.startswith(".")
    assert url_section(Path("/nowhere"), {path: one}, {}) == {url: f"./{path}"}


def test_urls_of_which_one_would_lie_below_another_both_have_a_place() -> None:
    given = {url: artifact(url, url) for url in ("https://h.example/a", "https://h.example/a/b", "http://h.example:81/a")}
    placed = url_paths(given)
    assert sorted(placed.values()) == sorted(given)
    assert "files/https/h.example/a" in placed
    assert "files/http/h.example+81/a" in placed
    assert sum(path.startswith("files/by-sha256/") for path in placed) == 1


def test_a_file_by_url_is_found_where_sources_yaml_leads(own: Demo) -> None:
    vendored(own)
    folder = own.folder / "vendor"
    assert (folder / "files" / "https" / "files.invalid" / "v1" / "tool.gz").is_file()
    assert "https://files.invalid/: ./files/https/files.invalid/\n" in (folder / "sources.yaml").read_text()
    assert HTTPFS == "https://files.invalid/v1/tool.gz"
