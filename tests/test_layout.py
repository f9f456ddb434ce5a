"""Layouts and archives: written whole or not at all, read with every byte verified, loaded by both kinds of engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cregraph.digest import ASSEMBLY, canonical, key_of
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import ask
from cregraph.image.media.docker_load import archive
from cregraph.image.media.oci_layout import blob_path, blobs, write
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.config import Image, compose
from cregraph.image.model.layer import assemble
from cregraph.image.model.manifest import Descriptor, Manifest
from cregraph.image.model.reference import LayoutName
from cregraph.image.model.segment import write as write_segment
from cregraph.image.model.tar_entry import Entry, from_bytes
from cregraph.lock.base_facts import BaseFacts, DirFact, LayerFact
from cregraph.plan.layer_split import Planner
from cregraph.plan.parts import Segment
from cregraph.store import Store
from tests.engine_names import image_name
from tests.read_layout import Layout

NAME = "registry.example/team/image:v1-0123456789ab"
CLASSIC = os.environ.get("CREGRAPH_TEST_CLASSIC_HOST")
OWNERS = {"/home/jupyter": (1000, 100)}
THEN = 1700000000

DIRECTORIES = {
    "/root": (0o700, 0, 0),
    "/tmp": (0o1777, 0, 0),
    "/home": (0o755, 0, 0),
    "/home/jupyter": (0o2750, 1000, 100),
    "/home/jupyter/private": (0o700, 1000, 100),
    "/usr": (0o755, 0, 0),
    "/usr/lib": (0o755, 0, 0),
    "/var": (0o755, 0, 0),
    "/var/shared": (0o3775, 3, 50),
}
FILES = {"/root/.profile": (0o600, 0, 0), "/usr/lib/libc.so.6": (0o755, 0, 0), "/home/jupyter/.bashrc": (0o640, 1000, 100)}
LINKS = {"/lib": "usr/lib", "/home/jupyter/link": "../../tmp"}


@dataclass(frozen=True)
class Base:
    """A made base image: its facts, and its only layer's bytes."""

    facts: BaseFacts
    layer: bytes

    def blob(self, wanted: Descriptor) -> Iterable[bytes]:
        assert wanted.digest == self.facts.layers[0].digest
        return (self.layer[:100], self.layer[100:])


@pytest.fixture
def base() -> Base:
    raw = b""
    for path, (mode, uid, gid) in DIRECTORIES.items():
        raw += tar.header(path=path[1:], type="directory", mode=mode, uid=uid, gid=gid, mtime=THEN)
    for path, (mode, uid, gid) in FILES.items():
        raw += tar.header(path=path[1:], mode=mode, uid=uid, gid=gid, size=4, mtime=THEN) + b"base" + tar.padding(4)
    for path, text in LINKS.items():
        raw += tar.header(path=path[1:], type="symlink", link=text, mtime=THEN)
    raw += tar.END
    layer = gzip.compress(raw, mtime=0)
    fact = LayerFact(
        digest=f"sha256:{hashlib.sha256(layer).hexdigest()}",
        diff_id=f"sha256:{hashlib.sha256(raw).hexdigest()}",
        size=len(layer),
        media_type="application/vnd.docker.image.rootfs.diff.tar.gzip",
    )
    facts = BaseFacts(
        digest="sha256:" + "0" * 64,
        config={"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/nothing"]}},
        layers=(fact,),
        glibc=None,
        users={"jupyter": (1000, 100, "/home/jupyter")},
        python=None,
        directories={path: DirFact(mode=m, uid=u, gid=g, mtime=THEN) for path, (m, u, g) in DIRECTORIES.items()},
        links=LINKS,
        files=frozenset(FILES),
    )
    return Base(facts=facts, layer=layer)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def an_image(store: Store, base: Base, *, changed: bytes = b"") -> Image:
    """Two layers that write below every odd directory of the base."""
    planner = Planner(assembly=ASSEMBLY, base=base.facts.digest, owners=OWNERS, base_layers=1)
    contents = {
        "one": [
            from_bytes("root/x/file", b"root"),
            from_bytes("tmp/left", b"tmp"),
            from_bytes("home/jupyter/private/env/bin/tool", bytes(range(256)) * 9000, mode=0o755, uid=1000, gid=100),
            Entry(path="home/jupyter/private/env/bin/tool2", type="hardlink", link="home/jupyter/private/env/bin/tool"),
            Entry(path="home/jupyter/private/env/lib64", type="symlink", link="lib", uid=1000, gid=100),
            from_bytes("home/jupyter/private/env/" + "long/" * 50 + "ünï" + "x" * 90, b"long", uid=1000, gid=100),
        ],
        "two": [from_bytes("usr/lib/R/base", b"R" + changed), from_bytes("var/shared/s", b"s"), from_bytes("root/y", b"y")],
    }
    layers = []
    for name, entries in contents.items():
        segment = Segment(
            key=key_of([name, changed.hex()]), kind="file", stage="s", name=name, group=f"file:{name}", place={}, size=10
        )
        records = {segment.key: write_segment(entries, store, segment.key, ASSEMBLY)}
        layers.append((name, assemble(planner.layer(name, [segment]), records, base.facts, planner, store)))
    return compose(base.facts, layers, env={"R_HOME_LIKE": "/x"}, labels={"team": "data"})


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# -- writing


def test_a_layout_holds_what_the_specification_asks_for_and_nothing_else(store, base, tmp_path):
    image = an_image(store, base)

    write(tmp_path / "image", image, reference=NAME, store=store, base=base.blob)

    folder = tmp_path / "image"
    assert names(folder) == {"oci-layout", "index.json", *(f"blobs/sha256/{b.hex}" for b in blobs(image))}
    assert json.loads((folder / "index.json").read_bytes())["manifests"] == [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.digest,
            "size": len(image.manifest),
            "annotations": {"org.opencontainers.image.ref.name": "v1-0123456789ab", "io.containerd.image.name": NAME},
        }
    ]
    for path in (folder / "blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image", "store"]


def test_our_layers_are_read_only_links_into_the_store_or_copies_where_links_cannot_be(store, base, tmp_path, monkeypatch):
    image = an_image(store, base)
    write(tmp_path / "linked", image, reference=NAME, store=store, base=base.blob)
    own = image.layers[-1]

    def no_links(_path: Path, _target: Path) -> None:
        raise OSError("not here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    write(tmp_path / "copied", image, reference=NAME, store=store, base=base.blob)

    assert blob_path(tmp_path / "linked", own).samefile(store.path_of(own.hex))
    assert blob_path(tmp_path / "linked", own).stat().st_mode & 0o222 == 0
    assert not blob_path(tmp_path / "copied", own).samefile(store.path_of(own.hex))
    assert names(tmp_path / "linked") == names(tmp_path / "copied")


def test_an_object_that_can_be_written_to_is_not_linked(store, base, tmp_path):
    image = an_image(store, base)
    path = store.path_of(image.layers[-1].hex)
    path.chmod(0o644)

    write(tmp_path / "image", image, reference=NAME, store=store, base=base.blob)

    assert not blob_path(tmp_path / "image", image.layers[-1]).samefile(path)


def test_a_layout_is_replaced_and_keeps_no_blob_of_the_older_image(store, base, tmp_path):
    folder = tmp_path / "image"
    old, new = an_image(store, base), an_image(store, base, changed=b"!")
    write(folder, old, reference=NAME, store=store, base=base.blob)
    (folder / "blobs/sha256/.left.partial").write_bytes(b"")

    write(folder, new, reference=NAME, store=store, base=base.blob)

    assert Layout.open(folder).manifest().digest == new.digest
    assert names(folder) == {"oci-layout", "index.json", *(f"blobs/sha256/{b.hex}" for b in blobs(new))}
    assert store.has(old.layers[-1].hex)


def test_an_interrupted_write_leaves_the_old_image_whole_and_the_next_one_completes(store, base, tmp_path):
    folder = tmp_path / "image"
    old, new = an_image(store, base), an_image(store, base, changed=b"!")
    write(folder, old, reference=NAME, store=store, base=base.blob)
    blob_path(folder, old.layers[0]).unlink()  # so that it is asked for again

    def killed(_wanted: Descriptor) -> Iterable[bytes]:
        yield base.layer[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(folder, new, reference=NAME, store=store, base=killed)

    assert Layout.open(folder).manifest().digest == old.digest
    assert blob_path(folder, old.layers[-1]).exists()
    write(folder, new, reference=NAME, store=store, base=base.blob)
    assert Layout.open(folder).manifest().digest == new.digest


def test_an_interrupted_first_write_leaves_nothing(store, base, tmp_path):
    image = an_image(store, base)
    (tmp_path / ".image.partial").mkdir()  # of a run that was killed
    (tmp_path / ".image.partial/rest").write_bytes(b"")

    def killed(_wanted: Descriptor) -> Iterable[bytes]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "image", image, reference=NAME, store=store, base=killed)

    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_folder_that_holds_something_else_is_left_alone(store, base, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")

    with pytest.raises(CregraphError, match=r"`.*/mine` exists and is not an OCI layout; it is unchanged"):
        write(tmp_path / "mine", an_image(store, base), reference=NAME, store=store, base=base.blob)

    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:50] + b"\0" + b[51:]])
def test_a_damaged_blob_of_the_base_reaches_no_layout(store, base, tmp_path, damage):
    broken = replace(base, layer=damage(base.layer))

    with pytest.raises(CregraphError, match=r"blob|sha256"):
        write(tmp_path / "image", an_image(store, base), reference=NAME, store=store, base=broken.blob)

    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_name_without_a_tag_is_refused(store, base, tmp_path):
    with pytest.raises(CregraphError, match=r"`registry.example/x` has no tag"):
        write(tmp_path / "image", an_image(store, base), reference="registry.example/x", store=store, base=base.blob)


# -- reading


def test_what_was_written_is_read(store, base, tmp_path):
    image = an_image(store, base)
    write(tmp_path / "image", image, reference=NAME, store=store, base=base.blob)

    layout = Layout.open(tmp_path / "image")
    manifest = layout.manifest("v1-0123456789ab")

    assert (manifest.raw, manifest.layers) == (image.manifest, image.layers)
    assert layout.config(manifest) == json.loads(image.config)
    assert layout.blob(manifest.layers[0]).read_bytes() == base.layer


def a_layout(folder: Path, manifests: list[dict[str, object]], files: dict[str, bytes]) -> Callable[..., Manifest]:
    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": manifests}))
    for name, data in files.items():
        (folder / "blobs/sha256" / name).write_bytes(data)
    return lambda tag="": (
        ask(LayoutName(folder=folder.name, tag=tag), project=folder.parent, store=Store(folder / "store")).manifest
    )


def described(data: bytes, **more: object) -> dict[str, object]:
    return {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "size": len(data),
        **more,
    }


def a_manifest(text: str) -> bytes:
    config = described(text.encode(), mediaType="application/vnd.oci.image.config.v1+json")
    return canonical({"schemaVersion": 2, "config": config, "layers": []})


def test_an_image_is_found_by_its_tag_and_an_unknown_tag_is_answered_with_those_there_are(tmp_path):
    one, two = a_manifest("one"), a_manifest("two")
    tag = "org.opencontainers.image.ref.name"
    layout = a_layout(
        tmp_path / "x",
        [described(one, annotations={tag: "v1"}), described(two, annotations={tag: "example.org/x:v2"})],
        {hashlib.sha256(d).hexdigest(): d for d in (one, two)},
    )

    assert layout("v1").raw == one
    assert layout("v2").raw == two
    with pytest.raises(CregraphError, match="has no image with this tag; existing tags: v1, v2"):
        layout("v3")
    with pytest.raises(CregraphError, match="holds several images"):
        layout()


def test_of_several_platforms_linux_amd64_is_read_through_nested_indexes(tmp_path):
    arm, amd = a_manifest("arm"), a_manifest("amd")
    inner = canonical(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                described(arm, platform={"os": "linux", "architecture": "arm64"}),
                described(amd, platform={"os": "linux", "architecture": "amd64"}),
            ],
        }
    )
    layout = a_layout(tmp_path / "x", [described(inner)], {hashlib.sha256(d).hexdigest(): d for d in (arm, amd, inner)})

    assert layout().raw == amd


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "../x", "sha512:" + "0" * 128, "sha256:" + "A" * 64, 7])
def test_a_digest_that_climbs_is_refused(tmp_path, digest):
    layout = a_layout(tmp_path / "x", [described(b"{}", digest=digest)], {})

    with pytest.raises(CregraphError, match=r"digest: expected sha256:<64 hex digits>"):
        layout()
    with pytest.raises(ValueError, match="not a sha256 digest"):
        blob_path(tmp_path, Descriptor(media_type="x", digest=str(digest), size=1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{} ", "which does not match its name"),
        (b"[]", "which does not match its name"),
        (None, "the layout has no blobs/sha256/"),
    ],
)
def test_a_blob_that_is_not_what_its_name_says_is_refused_with_its_file(tmp_path, data, message):
    name = hashlib.sha256(b"{}").hexdigest()
    layout = a_layout(tmp_path / "x", [described(b"{}")], {} if data is None else {name: data})

    with pytest.raises(CregraphError, match=message) as caught:
        layout()

    assert name in str(caught.value)


def test_a_folder_that_is_no_layout_is_refused(tmp_path):
    with pytest.raises(CregraphError, match="there is no OCI layout"):
        ask(LayoutName(folder="x", tag=""), project=tmp_path, store=Store(tmp_path / "store"))


# -- archives


def test_an_archive_is_a_layout_with_dockers_listing_and_has_equal_bytes_twice(store, base, tmp_path):
    image = an_image(store, base)
    data = b"".join(archive(image, reference=NAME, store=store, base=base.blob))

    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        opened.extraction_filter = lambda member, path: member  # the argument `filter` came with Python 3.11.4
        opened.extractall(tmp_path / "x")
    write(tmp_path / "y", image, reference=NAME, store=store, base=base.blob)

    assert data == b"".join(archive(image, reference=NAME, store=store, base=base.blob))
    assert names(tmp_path / "x") == names(tmp_path / "y") | {"manifest.json"}
    assert (tmp_path / "x/index.json").read_bytes() == (tmp_path / "y/index.json").read_bytes()
    assert Layout.open(tmp_path / "x").manifest().digest == image.digest
    (legacy,) = json.loads((tmp_path / "x/manifest.json").read_bytes())
    assert legacy["RepoTags"] == [NAME]
    assert [(tmp_path / "x" / p).is_file() for p in [legacy["Config"], *legacy["Layers"]]] == [True] * 4


def test_a_damaged_blob_breaks_the_archive_off_before_its_listing(store, base):
    broken = replace(base, layer=base.layer[:50] + b"\0" + base.layer[51:])
    sent = b""

    with pytest.raises(CregraphError, match="but the image names"):
        for piece in archive(an_image(store, base), reference=NAME, store=store, base=broken.blob):
            sent += piece

    assert b"manifest.json" not in sent


# -- real engines


def docker(host: str, *argv: str, stdin: Iterable[bytes] | None = None) -> bytes:
    with subprocess.Popen(
        ["docker", "-H", host, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        if stdin is not None:
            assert run.stdin
            for piece in stdin:
                run.stdin.write(piece)
        out, err = run.communicate()
    assert run.returncode == 0, f"docker {argv}: {err.decode()}"
    return out


def tree_of(host: str, image: str) -> dict[str, tuple[object, ...]]:
    """What a container of `image` holds: type, mode, owner, time, link or content, by path."""
    container = docker(host, "create", image).decode().strip()
    try:
        data = docker(host, "export", container)
    finally:
        docker(host, "rm", "-f", container)
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isfile() or member.islnk() else None
            text: object = member.linkname if member.issym() else hashlib.sha256(content.read()).hexdigest() if content else None
            path = "/" + member.name.removeprefix("./").strip("/")
            found[path] = (stat_of(member), oct(member.mode), member.uid, member.gid, int(member.mtime), text)
    return found


def stat_of(member: tarfile.TarInfo) -> str:
    return "dir" if member.isdir() else "link" if member.issym() else "file"


def check_in_engine(host: str, store: Store, base: Base) -> None:
    image = an_image(store, base)
    bare = compose(base.facts, [], env={}, labels={})
    ours, theirs = image_name("assembled"), image_name("base")
    docker(host, "load", stdin=archive(bare, reference=theirs, store=store, base=base.blob))
    docker(host, "load", stdin=archive(image, reference=ours, store=store, base=base.blob))
    try:
        before, after = tree_of(host, theirs), tree_of(host, ours)
        inspected = json.loads(docker(host, "image", "inspect", ours))[0]
    finally:
        docker(host, "rmi", "-f", ours, theirs)

    assert before.keys() <= after.keys()
    for path in (*DIRECTORIES, *FILES, *LINKS):  # and not what the engine puts into every container
        assert after[path] == before[path]
    for path, (mode, uid, gid) in DIRECTORIES.items():
        assert after[path] == ("dir", oct(mode), uid, gid, THEN, None), path
    for path, (mode, uid, gid) in FILES.items():
        assert after[path][:5] == ("file", oct(mode), uid, gid, THEN), path
    for path, text in LINKS.items():
        assert after[path][0] == "link" and after[path][5] == text
    env = "/home/jupyter/private/env"
    tool = hashlib.sha256(bytes(range(256)) * 9000).hexdigest()
    for path in (env, f"{env}/bin", f"{env}/long/long"):
        assert after[path] == ("dir", "0o755", 1000, 100, tar.MTIME, None)
    assert after["/root/x"] == ("dir", "0o755", 0, 0, tar.MTIME, None)
    for path in (f"{env}/bin/tool", f"{env}/bin/tool2"):
        assert after[path] == ("file", "0o755", 1000, 100, tar.MTIME, tool)
    assert after[f"{env}/lib64"] == ("link", "0o777", 1000, 100, tar.MTIME, "lib")
    assert after[f"{env}/" + "long/" * 50 + "ünï" + "x" * 90][5] == hashlib.sha256(b"long").hexdigest()
    assert after["/usr/lib/R/base"][5] == hashlib.sha256(b"R").hexdigest()
    assert inspected["Config"]["Env"] == ["R_HOME_LIKE=/x"]
    assert inspected["Config"]["Labels"] == {"team": "data"}
    assert inspected["Config"]["Cmd"] == ["/nothing"]
    assert ours in inspected["RepoTags"]
    assert len(inspected["RootFS"]["Layers"]) == 3


@pytest.mark.docker
def test_the_engine_loads_our_archive_and_the_base_is_as_it_was(store, base):
    check_in_engine(os.environ["DOCKER_HOST"], store, base)


@pytest.mark.docker
@pytest.mark.skipif(not CLASSIC, reason="no engine with the classic image store: CREGRAPH_TEST_CLASSIC_HOST not set")
def test_the_classic_store_loads_our_archive_and_the_base_is_as_it_was(store, base):
    assert CLASSIC
    check_in_engine(CLASSIC, store, base)
