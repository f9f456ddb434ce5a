"""Base images and the facts that are made of their layers."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import secrets
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import BaseImage, ask, find
from cregraph.image.bases.facts_from_layers import facts_of, is_listed
from cregraph.image.media.docker_save import read_archive
from cregraph.image.model.reference import LayoutName, parse
from cregraph.lock import base_facts_json as facts_json
from cregraph.lock.base_facts import BaseFacts, DirFact
from cregraph.lock.pins import Artifact
from cregraph.store import Store
from tests.made_images import GZIP, PASSWD, PLAIN, ZSTD, Made, base_tars, digest, entry, folder, index, layout, link, tar

SITE = "/opt/python/cpython-3.11.9/lib/python3.11/site-packages"


def opened(tmp_path: Path, *images: Made, tags: tuple[str, ...] = ("1",), tag: str = "") -> BaseImage:
    where = f"layout{len(list(tmp_path.iterdir()))}"
    layout(tmp_path / where, *images, tags=tags)
    return ask(LayoutName(folder=where, tag=tag), project=tmp_path, store=Store(tmp_path / "store"))


def facts(tmp_path: Path, *tars: bytes, media_type: str = GZIP, path: str | None = None) -> BaseFacts:
    """The facts of an image with these layers, whose config states this PATH."""
    return facts_of(opened(tmp_path, Made(*tars, media_type=media_type, image={"Env": [f"PATH={path}"]} if path else None)))


# layouts and archives


def test_a_layout_with_one_image_needs_no_tag_and_one_with_several_does(tmp_path: Path) -> None:
    one, two = Made(tar(entry("a"))), Made(tar(entry("b")))

    assert opened(tmp_path, one).manifest.digest == one.digest
    assert opened(tmp_path, one, two, tags=("x", "reg.example/y:z"), tag="z").manifest.digest == two.digest
    with pytest.raises(CregraphError) as caught:
        opened(tmp_path, one, two, tags=("x", "y"))
    assert (
        str(caught.value) == "oci:layout3: holds several images"
        and caught.value.hint == "write `oci:layout3:TAG`; there are: x, y"
    )
    with pytest.raises(CregraphError, match="has no image with this tag; existing tags: x, y"):
        opened(tmp_path, one, two, tags=("x", "y"), tag="no")


def test_an_image_for_another_processor_is_refused(tmp_path: Path) -> None:
    arm = Made(tar(entry("a")), architecture="arm64")

    with pytest.raises(CregraphError, match="is an image for linux/arm64, not linux/amd64"):
        facts_of(opened(tmp_path, arm))


def test_a_nested_index_is_followed(tmp_path: Path) -> None:
    arm, amd = Made(tar(entry("a")), architecture="arm64"), Made(tar(entry("b")))
    inner = index(arm, amd)
    outer = {"manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(inner), "size": len(inner)}]}
    where = layout(tmp_path / "x", arm, amd)
    (where / "blobs/sha256" / digest(inner)[7:]).write_bytes(inner)
    (where / "index.json").write_text(json.dumps(outer))

    found = ask(LayoutName(folder="x"), project=tmp_path, store=Store(tmp_path / "store"))

    assert found.manifest.digest == amd.digest


def test_no_layout_is_said_with_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CregraphError) as caught:
        ask(LayoutName(folder="nowhere"), project=tmp_path, store=Store(tmp_path / "store"))

    assert str(caught.value) == "oci:nowhere: there is no OCI layout (No such file or directory)"


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_a_flipped_byte_in_a_layout_is_found_before_it_is_used(tmp_path: Path, which: str) -> None:
    made = Made(*base_tars())
    where = layout(tmp_path / "x", made)
    name = {"manifest": made.digest, "config": made.config["digest"], "layer": made.layers[1]["digest"]}[which]
    path = where / "blobs/sha256" / str(name)[7:]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(CregraphError) as caught:
        facts_of(ask(LayoutName(folder="x"), project=tmp_path, store=Store(tmp_path / "store")))

    assert "oci:x" in str(caught.value)


def test_a_plain_layer_that_is_not_its_diff_id_is_found(tmp_path: Path) -> None:
    made = Made(tar(entry("a")), diff_ids=["sha256:" + "0" * 64])

    with pytest.raises(
        CregraphError, match=r"layer 1 of 1 .* its plain bytes have sha256:[0-9a-f]{64}, but the config says sha256:000"
    ):
        facts_of(opened(tmp_path, made))


def test_a_pin_finds_its_own_image_and_no_other(tmp_path: Path) -> None:
    old, new = Made(tar(entry("a"))), Made(tar(entry("b")))
    layout(tmp_path / "x", new)
    pin = Artifact(kind="image", source="oci:x", file="1", sha256=old.digest[7:], size=1)

    with pytest.raises(CregraphError, match=f"holds sha256:[0-9a-f]+, but the lock pins {old.digest}"):
        find(pin, routes=lambda _s, _n: (), project=tmp_path, store=Store(tmp_path / "store"))


def test_what_the_store_has_is_not_asked_for_again(tmp_path: Path) -> None:
    made = Made(*base_tars())
    image = opened(tmp_path, made)
    image.config()
    with image.store.writer() as out:
        out.write(b"".join(image.open_layer(image.manifest.layers[0])))
    (tmp_path / "layout0").rename(tmp_path / "gone")
    pin = Artifact(kind="image", source="registry:nowhere", file="a:1", sha256=made.digest[7:], size=1)

    again = find(
        pin,
        routes=lambda _s, _n: ("reg.example",),
        project=tmp_path,
        store=image.store,
        offline=True,
    )

    assert again.config() == image.config()
    assert b"".join(again.open_layer(image.manifest.layers[0])) == made.blobs[str(made.layers[0]["digest"])]
    with pytest.raises(CregraphError, match=r"reg.example/a:1 is not in the store, and --offline is set"):
        list(again.open_layer(image.manifest.layers[1]))


@pytest.mark.parametrize("media_type", [GZIP, PLAIN, ZSTD])
def test_the_archive_of_an_old_engine_gives_the_same_image_each_time(tmp_path: Path, media_type: str) -> None:
    made = Made(*base_tars(), media_type=media_type)
    config = made.blobs[str(made.config["digest"])]
    layers = [made.blobs[str(layer["digest"])] for layer in made.layers]
    listed = [{"Config": "abc.json", "RepoTags": ["x:1"], "Layers": ["one/layer.tar", "two/layer.tar", "three/layer.tar"]}]
    archive = tar(
        entry("one/layer.tar", layers[0]),
        entry("two/layer.tar", layers[1]),
        link("three/layer.tar", "../two/layer.tar"),
        entry("abc.json", config),
        entry("manifest.json", json.dumps(listed).encode()),
    )

    first = read_archive(io.BytesIO(archive), Store(tmp_path / "a"), what="docker:x")
    again = read_archive(io.BytesIO(archive), Store(tmp_path / "b"), what="docker:x")

    assert first == again
    assert [layer.digest for layer in first.layers] == [digest(layers[0]), digest(layers[1]), digest(layers[1])]


def test_an_archive_whose_names_lead_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CregraphError, match=r"docker:x: the engine's archive: `\.\./evil` leads out of its folder"):
        read_archive(io.BytesIO(tar(entry("../evil", b"x"))), Store(tmp_path / "a"), what="docker:x")


def test_an_archive_with_a_blob_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    archive = tar(entry("blobs/sha256/" + "0" * 64, b"x"))

    with pytest.raises(CregraphError, match="the engine's archive has sha256:2d71"):
        read_archive(io.BytesIO(archive), Store(tmp_path / "a"), what="docker:x")


# facts


@pytest.mark.parametrize("media_type", [GZIP, PLAIN, ZSTD])
def test_the_facts_of_a_base_are_what_its_layers_add_up_to(tmp_path: Path, media_type: str) -> None:
    found = facts(tmp_path, *base_tars(), media_type=media_type)

    assert found.glibc == "2.36"
    assert found.users == {"root": (0, 0, "/root"), "jupyter": (1000, 1001, "/home/jupyter")}
    assert found.directories["/tmp"] == DirFact(mode=0o1777, uid=0, gid=0, mtime=1_700_000_000)
    assert found.directories["/home/jupyter"] == DirFact(mode=0o750, uid=1000, gid=1001, mtime=1_700_000_000)
    assert found.directories["/home"] == DirFact(mode=0o755, uid=0, gid=0, mtime=0)  # no layer lists it
    assert found.links["/lib"] == "usr/lib"
    assert "/home/jupyter/.bashrc" in found.files
    assert "/home/jupyter/old" not in found.files
    assert {"/var/cache/thing/b"} == {path for path in found.files if path.startswith("/var/cache/thing/")}
    assert "/usr/local/bin/entrypoint.sh" in found.files and "/usr/share/doc/x" not in found.files
    assert f"{SITE}/numpy/version.py" in found.files and f"{SITE}/numpy/core/include/deep.h" not in found.files
    assert [layer.media_type for layer in found.layers] == [media_type] * 2
    assert [layer.diff_id for layer in found.layers] == [digest(one) for one in base_tars()]


def test_the_python_of_a_base_is_found_through_links_with_what_it_holds(tmp_path: Path) -> None:
    python = facts(tmp_path, *base_tars()).python

    assert python is not None
    assert (python.version, python.executable) == ("3.11.9", "/opt/python/cpython-3.11.9/bin/python3.11")
    assert (python.prefix, python.site_packages) == ("/opt/python/cpython-3.11.9", SITE)
    assert python.scripts == "/opt/python/cpython-3.11.9/bin"
    assert python.distributions == {"added": "2", "foo-bar-baz": "1.10"}


def test_the_highest_python_below_opt_wins_by_number(tmp_path: Path) -> None:
    tars = [entry(f"opt/python/cpython-{v}/bin/python{v.rpartition('.')[0]}", f"{v}\0".encode()) for v in ("3.9.20", "3.10.15")]
    links = [link(f"opt/python/cpython-{v}/bin/python3", f"python{v.rpartition('.')[0]}") for v in ("3.9.20", "3.10.15")]
    python = facts(tmp_path, tar(*tars, *links)).python

    assert python is not None and python.version == "3.10.15"


def test_debians_own_python_installs_below_usr_local(tmp_path: Path) -> None:
    python = facts(
        tmp_path,
        tar(
            entry("usr/bin/python3.11", b"\0" + b"3.11.2\0"),
            link("usr/bin/python3", "python3.11"),
            entry("usr/lib/python3/dist-packages/six-1.16.0.egg-info", b"Name: six\nVersion: 1.16.0\n"),
            entry("usr/lib/python3/dist-packages/more.pth", b"# no\nimport os; os.system('no')\n/opt/more\n"),
            entry("opt/more/EGG.txt"),
            entry("usr/local/lib/python3.11/dist-packages/six-1.17.0.dist-info/METADATA", b"Name: six\nVersion: 1.17.0\n"),
        ),
    ).python

    assert python is not None
    assert (python.version, python.prefix) == ("3.11.2", "/usr")
    assert (python.site_packages, python.scripts) == ("/usr/local/lib/python3.11/dist-packages", "/usr/local/bin")
    assert python.distributions == {"six": "1.17.0"}


def conda_and_debian() -> bytes:
    return tar(
        entry("usr/bin/python3.11", b"\x003.11.2\0"),
        link("usr/bin/python3", "python3.11"),
        entry("opt/conda/bin/python3.12", b"\x003.12.9\0"),
        link("opt/conda/bin/python", "python3.12"),
        entry("opt/conda/lib/python3.12/site-packages/six-1.17.0.dist-info/METADATA", b"Name: six\nVersion: 1.17.0\n"),
    )


def test_a_python_in_the_images_path_is_found_and_its_order_decides(tmp_path: Path) -> None:
    with_link = tar(link("opt/conda/bin/python3", "python3.12"))
    first = facts(tmp_path, conda_and_debian(), with_link, path="/opt/conda/bin:/usr/local/bin:/usr/bin").python
    assert first is not None
    assert (first.version, first.executable) == ("3.12.9", "/opt/conda/bin/python3.12")
    assert (first.site_packages, first.scripts) == ("/opt/conda/lib/python3.12/site-packages", "/opt/conda/bin")
    assert first.distributions == {"six": "1.17.0"}
    last = facts(tmp_path, conda_and_debian(), with_link, path="relative:/usr/bin:/opt/conda/bin").python
    assert last is not None and last.executable == "/usr/bin/python3.11"


def test_a_program_named_python_is_the_last_choice_and_python_2_is_passed_over(tmp_path: Path) -> None:
    debian_first = facts(tmp_path, conda_and_debian(), path="/opt/conda/bin").python
    assert debian_first is not None and debian_first.executable == "/usr/bin/python3.11"
    gone = tar(entry("usr/bin/.wh.python3"), entry("usr/bin/python2.7", b""), link("usr/bin/python", "python2.7"))
    found = facts(tmp_path, conda_and_debian(), gone, path="/usr/bin:/opt/conda/bin").python
    assert found is not None and found.executable == "/opt/conda/bin/python3.12"


@pytest.mark.parametrize(
    ("name", "data", "version"),
    [
        ("opt/python/cpython-3.12.4/include/python3.12/patchlevel.h", b'#define PY_VERSION   "3.12.4+"\n', "3.12.4"),
        ("opt/python/cpython-3.12.4/lib/libpython3.12.so.1.0", b"x" * (1 << 20) + b"\x003.12.4\0", "3.12.4"),
        ("opt/python/cpython-3.12.4/nothing", b"", "3.12.4"),
    ],
)
def test_pythons_full_version_is_told_without_running_it(tmp_path: Path, name: str, data: bytes, version: str) -> None:
    found = facts(
        tmp_path,
        tar(
            entry(name, data),
            entry("opt/python/cpython-3.12.4/bin/python3.12", b"#!"),
            link("opt/python/cpython-3.12.4/bin/python3", "python3.12"),
        ),
    )

    assert found.python is not None and found.python.version == version


def test_a_python_without_any_version_is_an_error_and_no_python_is_none(tmp_path: Path) -> None:
    with pytest.raises(CregraphError, match=r"the version of its Python \(/usr/bin/python3\) cannot be read"):
        facts(tmp_path, tar(entry("usr/bin/python3", b"#!/bin/sh")))
    assert facts(tmp_path, tar(entry("a"))).python is None


def test_an_older_glibc_is_known_by_its_files_name(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        tar(entry("lib/x86_64-linux-gnu/libc-2.31.so", b"stripped"), link("lib/x86_64-linux-gnu/libc.so.6", "libc-2.31.so")),
    )

    assert found.glibc == "2.31"


# layers


def paths(found: BaseFacts) -> set[str]:
    return set(found.files) | set(found.links) | set(found.directories) - {"/"}


def test_whiteouts_hide_the_layers_below_and_never_their_own(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        tar(entry("a/x"), entry("a/y"), entry("b/x"), entry("c/x"), link("d", "a"), entry("e")),
        tar(
            entry("a/z"),
            entry("a/.wh..wh..opq"),
            entry("b/new"),
            entry(".wh.b"),
            entry(".wh.d"),
            entry("e"),
            entry(".wh.e"),
            entry(".wh.none"),
        ),
    )

    assert paths(found) == {"/a", "/a/z", "/b", "/b/new", "/c", "/c/x", "/e"}


def test_a_type_that_changes_replaces_what_was_there(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        tar(entry("a/x"), link("b", "a"), entry("c"), folder("d", 0o700)),
        tar(link("a", "b"), entry("b/y"), folder("c"), folder("d", 0o711)),
    )

    assert found.links == {"/a": "b"}
    assert paths(found) == {"/a", "/b", "/b/y", "/c", "/d"}
    assert found.directories["/d"].mode == 0o711


def test_names_in_every_form_of_tar_are_read(tmp_path: Path) -> None:
    long = "long/" + "n" * 150 + "/" + "m" * 200
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        members = [
            entry(long),
            link("l", long),
            entry("café", uid=3_000_000, mtime=1.5),
            entry("hard", type=tarfile.LNKTYPE, linkname=long),
        ]
        found = facts(tmp_path, tar(*members, format=format))
        assert {"/" + long, "/café", "/hard"} <= found.files
        assert found.links == {"/l": long}


def test_names_that_are_no_utf8_reach_the_file_and_come_back(tmp_path: Path) -> None:
    raw = bytearray(tar(entry("odd-X"), format=tarfile.USTAR_FORMAT))
    raw[4] = 0xFF
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 8 * 32 + sum(raw[156:512]))
    found = facts(tmp_path, bytes(raw))

    assert found.files == {"/odd-\udcff"}
    assert facts_json.loads(facts_json.dumps(found), name="x") == found


# hostile layers


def checked(raw: bytearray) -> bytes:
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 8 * 32 + sum(raw[156:512]))
    return bytes(raw)


def huge_header() -> bytes:
    raw = bytearray(tar(entry("x"), format=tarfile.USTAR_FORMAT))
    raw[156:157] = b"x"
    raw[124:136] = b"%011o\0" % (1 << 21)
    return checked(raw)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tar(entry("../../etc/passwd")), "`../../etc/passwd` leads out of its folder"),
        (tar(entry("a/../b")), "`a/../b` leads out of its folder"),
        (tar(entry("h", type=tarfile.LNKTYPE, linkname="../x")), "`../x` leads out of its folder"),
        (tar(entry("a/" * 3000 + "a")), "names a path of more than 4096 characters"),
        (huge_header(), r"has an extended header of 2097152 bytes \(maximum 1048576\)"),
        (tar(entry("a", b"x" * 5000))[:2000], "ends in the middle of a file"),
        (b"no tar at all " * 100, "is not a tar or is damaged"),
        (tar(entry("x", pax_headers={"size": "-1"})), "gives `x` a size or owner below zero"),
    ],
    ids=["climbs", "climbs-inside", "hard-link", "long", "huge-header", "cut", "no-tar", "bad-size"],
)
def test_hostile_layers_are_refused_with_the_layer_named(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CregraphError, match=rf"oci:layout0: layer 1 of 1 \(sha256:[0-9a-f]{{12}}…\): ({message})"):
        facts(tmp_path, data)


def test_devices_take_no_content_and_do_no_harm(tmp_path: Path) -> None:
    found = facts(
        tmp_path, tar(entry("dev/null", type=tarfile.CHRTYPE), entry("a/fifo", type=tarfile.FIFOTYPE), entry("a/b", b"x" * 600))
    )

    assert found.files == {"/a/fifo", "/a/b"}


def test_absolute_names_stay_below_the_root(tmp_path: Path) -> None:
    assert facts(tmp_path, tar(entry("/etc/x"), entry("./y"), entry(".//z"))).files == {"/etc/x", "/y", "/z"}


def test_a_cut_gzip_stream_is_found(tmp_path: Path) -> None:
    made = Made(tar(entry("a", secrets.token_bytes(100_000))), media_type=PLAIN)
    cut = gzip.compress(tar(entry("a", secrets.token_bytes(100_000))))[:-2000]
    layer = {"mediaType": GZIP, "digest": digest(cut), "size": len(cut)}
    manifest = json.dumps({"schemaVersion": 2, "config": made.config, "layers": [layer]}).encode()
    made.blobs = {**made.blobs, digest(cut): cut, digest(manifest): manifest}
    made.manifest, made.digest = manifest, digest(manifest)

    with pytest.raises(CregraphError, match="ends in the middle"):
        facts_of(opened(tmp_path, made))


def test_a_bomb_is_inflated_in_bounded_memory(tmp_path: Path) -> None:
    import tracemalloc

    big = tar(entry("zeros", bytes(200 << 20)))
    made = Made(big, media_type=ZSTD)
    image = opened(tmp_path, made)
    del big
    tracemalloc.start()
    assert facts_of(image).files == {"/zeros"}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 32 << 20


def test_what_unpacks_past_the_bounds_is_refused() -> None:
    from cregraph.formats.inflate import bounded
    from cregraph.formats.untrusted_tar import IMAGE

    block = bytes(1 << 30)
    with pytest.raises(CregraphError, match="x: unpacks to more than 1024 GiB"):
        for _ in bounded((block for _ in range(2000)), compressed=lambda: 1 << 40, what="x", policy=IMAGE):
            pass
    with pytest.raises(CregraphError, match="x: unpacks to more than 1100 times its size"):
        for _ in bounded((block for _ in range(20)), compressed=lambda: 1 << 20, what="x", policy=IMAGE):
            pass


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damaged_layer_gives_more_than_an_error_of_ours(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(tar(entry("a/b", b"x" * 700), link("l", "a"), entry("n" * 130), entry("etc/passwd", PASSWD)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    where = hashlib.sha256(raw).hexdigest()
    if (tmp_path / where).exists():
        return
    layout(tmp_path / where, Made(bytes(raw), media_type=PLAIN))
    with contextlib.suppress(CregraphError):
        facts_of(ask(LayoutName(folder=where), project=tmp_path, store=Store(tmp_path / "store")))


# the rule for files, and the file that facts are written to


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        ("/bin/sh", False),
        ("/lib64/ld.so", False),
        ("/usr/lib32/x", False),
        ("/usr/local/lib/x", True),
        ("/usr/libexec/x", False),
        ("/usr/shared", True),
        ("/library/x", False),  # begins as /lib* does
        ("/opt/x/lib/python3.11/site-packages/a/b", True),
        ("/opt/x/lib/python3.11/site-packages/a/b/c", False),
        ("/usr/local/lib/python3.11/dist-packages/a/b/c", False),
        ("/home/jupyter/x", True),
        ("/devil", True),
    ],
)
def test_files_are_listed_where_images_write(path: str, listed: bool) -> None:
    assert is_listed(path) is listed


def test_facts_come_back_from_their_file_and_equal_facts_are_equal_bytes(tmp_path: Path) -> None:
    found = facts(tmp_path, *base_tars())
    text = facts_json.dumps(found)

    assert facts_json.loads(text, name="x") == found
    assert facts_json.dumps(facts_json.loads(text, name="x")) == text
    assert text.isascii() and text.endswith("}\n")
    lines = text.splitlines()
    assert '  "/tmp": "1777 0 0 1700000000",' in lines
    assert '  "/lib": "usr/lib",' in lines
    assert '   ".bashrc"' in lines


def test_a_newer_file_is_refused_with_both_versions() -> None:
    with pytest.raises(CregraphError) as caught:
        facts_json.loads('{"version": 9}', name="bases/x.json")

    assert (str(caught.value), caught.value.hint) == (
        "bases/x.json: base facts version 9 (expected at most 1)",
        "upgrade cregraph",
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 1', '"version": "1"', "version: expected a whole number from 1"),
        ('"glibc": "2.36"', '"glibc": 2', "glibc: expected a version such as 2.36, or null"),
        ('"glibc": "2.36"', '"glibc": "2.36", "glibc": "2.30"', "the field `glibc` is given twice in one object"),
        ('"glibc": "2.36",', '"glibc": "2.36", "extra": 1,', "extra: unknown field"),
        ('"glibc": "2.36",', "", "glibc: is missing"),
        ('"1777 0 0 1700000000"', '"9777 0 0 1700000000"', 'directories./tmp: expected "<mode, octal> <uid> <gid> <mtime>"'),
        ('"/tmp": ', '"tmp": ', "directories.tmp: `tmp` is not an absolute path"),
        ('"/tmp": ', '"/a/../tmp": ', "directories./a/../tmp: `/a/../tmp` is not an absolute path"),
        ('".bashrc"', '"../x"', "files./home/jupyter: `../x` is not a file name"),
        ('"jupyter": [1000, 1001', '"jupyter": [true, 1001', "users.jupyter[0]: expected a whole number from 0"),
        ('"version": "3.11.9"', '"version": "3.11"', "python.version: expected a full version such as 3.11.2"),
        ('"size": ', '"size": -', "layers[0].size: expected a whole number from 0"),
        ('"diff_id": "sha256:', '"diff_id": "sha512:', "layers[0].diff_id: expected sha256:<64 hex digits>"),
        ('"version": 1,', '"version": 1.5,', "`1.5` is not a whole number"),
    ],
)
def test_a_file_that_was_edited_wrongly_is_refused_with_the_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = facts_json.dumps(facts(tmp_path, *base_tars()))
    assert old in text

    with pytest.raises(CregraphError) as caught:
        facts_json.loads(text.replace(old, new, 1), name="bases/x.json")

    assert str(caught.value) == f"bases/x.json: {message}"
    assert "run `cregraph lock`" in str(caught.value.hint)


def test_a_file_that_is_cut_off_or_was_merged_is_refused_with_the_line(tmp_path: Path) -> None:
    text = facts_json.dumps(facts(tmp_path, *base_tars()))
    for broken, words in (
        (text.removesuffix("}\n"), ": not readable as JSON: "),
        (text.replace(' "version"', '<<<<<<< ours\n "version"', 1), "2: git's conflict markers are in the base facts"),
    ):
        with pytest.raises(CregraphError) as caught:
            facts_json.loads(broken, name="bases/x.json")
        assert str(caught.value).startswith("bases/x.json:") and words in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", "", "{", '{"version": true}', "[" * 100_000])
def test_what_is_no_facts_file_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(CregraphError):
        facts_json.loads(text, name="bases/x.json")


def test_a_config_with_a_fraction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CregraphError, match="its config holds a fractional number"):
        facts_of(opened(tmp_path, Made(tar(entry("a")), image={"x": 1.5})))


def test_a_name_that_is_parsed_leads_to_its_layout(tmp_path: Path) -> None:
    made = Made(tar(entry("a")))
    layout(tmp_path / "bases/x", made, tags=("2.5.0",))

    assert ask(parse("oci:bases/x:2.5.0"), project=tmp_path, store=Store(tmp_path / "s")).manifest.digest == made.digest
