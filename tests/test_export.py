"""`cregraph export` without an engine: what is written, that it is whole and the same, and what is refused."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import zstandard

from cregraph.digest import sha256
from cregraph.engines.dockerfile import stage_name
from cregraph.errors import CregraphError
from cregraph.export import builder, bundle, zstd
from cregraph.export import docker_text as text
from cregraph.export.folder import write_folder
from cregraph.export.installer import install
from cregraph.export.sites import hosts
from cregraph.formats.inflate import inflated
from cregraph.image.model import segment as segments
from cregraph.image.model.segment import Row
from cregraph.plan.planner import make_plan
from cregraph.session.project import Project
from cregraph.sources.pip_settings import PYPI
from cregraph.sources.routes import Routes, read_routes
from cregraph.store import Store
from tests.environment.serving import serve
from tests.real_project import Done
from tests.test_cli import run
from tests.test_verify import made

__all__ = ["made"]  # the fixture: the demo, locked and built


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of the demo that a test may change."""
    shutil.copytree(made, tmp_path / "own", symlinks=True)
    return tmp_path / "own"


def export(project: Path, *words: str) -> Done:
    return run(project, "export", *words, CREGRAPH_CACHE=str(project / "cache"))


def ok(project: Path, *words: str) -> Done:
    done = export(project, *words)
    assert done.code == 0, done.err
    return done


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stages(dockerfile: str) -> list[str]:
    return re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE)


# -- the Dockerfile over our layers --------------------------------------------------------------------------------------------


def test_it_names_the_base_by_digest_and_adds_every_layer_once_and_its_command_has_a_tag_of_its_own(made: Path) -> None:
    done = ok(made, "dockerfile", "demo.yaml", "--output", "whole")
    index = json.loads((made / "image" / "index.json").read_text())
    manifest = json.loads((made / "image" / "blobs" / "sha256" / index["manifests"][0]["digest"][7:]).read_text())
    base = json.loads((made / "sources" / "base" / "index.json").read_text())["manifests"][0]["digest"]
    own = [layer["digest"][7:] for layer in manifest["layers"]][len(_layers(made / "sources" / "base", base)) :]
    written = (made / "whole" / "Dockerfile").read_text()
    assert sorted(re.findall(r"^ADD --link layers/([0-9a-f]{64})\.tar\.gz /$", written, re.MULTILINE)) == sorted(own)
    assert sorted(path.name for path in (made / "whole" / "layers").iterdir()) == sorted(f"{name}.tar.gz" for name in own)
    assert base in written
    assert "COPY" not in written
    assert re.search(r" -t demo-r:v1-[0-9a-f]{12}-docker \.$", done.out.strip())
    lock = json.loads((made / "locks" / "demo.lock.json").read_text())
    names = stages(written)
    assert [re.sub(r"-[0-9a-f]{12}$", "", name) for name in names] == ["base", *(s["name"] for s in lock["stages"]), "demo-r"]


def _layers(layout: Path, digest: str) -> list[object]:
    found: list[object] = json.loads((layout / "blobs" / "sha256" / digest[7:]).read_text())["layers"]
    return found


def test_two_exports_are_the_same_bytes_and_name_no_path_of_this_machine(made: Path, own: Path) -> None:
    ok(made, "dockerfile", "demo.yaml", "--output", "same")
    ok(own, "dockerfile", "demo.yaml", "--output", "same")
    assert bytes_of(made / "same") == bytes_of(own / "same")
    written = (own / "same" / "Dockerfile").read_text()
    assert str(own) not in written and str(made) not in written and os.environ["HOME"] not in written


def test_layers_are_links_into_the_store_that_nobody_can_write_to(made: Path) -> None:
    ok(made, "dockerfile", "demo.yaml", "--output", "linked")
    for path in (made / "linked" / "layers").iterdir():
        assert path.stat().st_mode & 0o222 == 0
        assert path.samefile(Store(made / "cache").path_of(path.name.removesuffix(".tar.gz")))


def test_a_change_gives_new_names_to_its_stage_and_those_above_it_alone_and_old_layers_go(own: Path) -> None:
    ok(own, "dockerfile", "demo.yaml", "--output", "d")
    first, layers = stages((own / "d" / "Dockerfile").read_text()), set(bytes_of(own / "d"))
    profile = (own / "demo.yaml").read_text()
    (own / "demo.yaml").write_text(profile.replace("tag: v1", "tag: v1\n  version_label: v2"))
    assert run(own, "lock", "demo.yaml", CREGRAPH_CACHE=str(own / "cache")).code == 0
    ok(own, "dockerfile", "demo.yaml", "--output", "d")
    second = stages((own / "d" / "Dockerfile").read_text())
    changed = [name.rpartition("-")[0] for name, other in zip(first, second, strict=True) if name != other]
    assert changed == ["hook", "demo-r"]
    now = set(bytes_of(own / "d"))
    assert layers - now and now - layers
    assert {f"layers/{name}.tar.gz" for name in re.findall(r"layers/([0-9a-f]{64})", (own / "d" / "Dockerfile").read_text())} == {
        name for name in now if name != "Dockerfile"
    }


def test_a_folder_of_somebody_else_is_left_as_it_is(own: Path) -> None:
    (own / "theirs").mkdir()
    (own / "theirs" / "Dockerfile").write_text("FROM scratch\n")
    done = export(own, "dockerfile", "demo.yaml", "--output", "theirs")
    assert done.code == 2
    assert "`theirs` exists and `cregraph export` did not write it" in done.err
    assert bytes_of(own / "theirs") == {"Dockerfile": b"FROM scratch\n"}


def test_an_empty_folder_that_is_there_is_filled_and_not_replaced(own: Path) -> None:
    """It may be a mount, or where somebody stands."""
    (own / "here").mkdir()
    before = (own / "here").stat().st_ino
    done = run(own / "here", "export", "dockerfile", "../demo.yaml", "--output", ".", CREGRAPH_CACHE=str(own / "cache"))
    assert done.code == 0, done.err
    assert (own / "here").stat().st_ino == before
    ok(own, "dockerfile", "demo.yaml", "--output", "there")
    assert bytes_of(own / "here") == bytes_of(own / "there")


def test_an_export_that_fails_leaves_the_old_one_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    one = store.add(b"one")
    write_folder(
        tmp_path / "d",
        {f"layers/{one}.tar.gz": one, "Dockerfile": b"# Written by `cregraph export x\n1"},
        fixed=("Dockerfile",),
        store=store,
    )
    before = bytes_of(tmp_path / "d")
    for place in ("d", "new"):
        with pytest.raises(CregraphError, match="does not hold"):
            write_folder(
                tmp_path / place,
                {f"layers/{one}.tar.gz": one, "layers/x": "0" * 64, "Dockerfile": b"2"},
                fixed=("Dockerfile",),
                store=store,
            )
    assert bytes_of(tmp_path / "d") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "store"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dockerfil", "demo.yaml", "--output", "x"), "write `dockerfile` instead"),
        (("dockerfile", "demo.yaml"), "missing option `--output`"),
        (
            ("dockerfile", "demo.yaml", "--output", "x", "--flavor", "kaniko"),
            "unknown --flavor `kaniko` (expected artifacts or image-builder)",
        ),
        (("dockerfile", "demo.yaml", "with-cran.yaml", "--output", "x"), "export bake"),
        (("bake", "demo.yaml", "--output", "x", "--flavor", "image-builder"), "does not support `--flavor image-builder`"),
        (("dockerfile", "demo.yaml", "--output", "x", "--flavor", "image-builder"), "which another builder cannot pull"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_way_out(made: Path, words: tuple[str, ...], said: str) -> None:
    done = export(made, *words)
    assert done.code == 2
    assert said in done.err
    assert not (made / "x").exists()


# -- text ----------------------------------------------------------------------------------------------------------------------


def test_values_reach_a_dockerfile_as_they_are_or_not_at_all() -> None:
    assert text.pairs("ENV", {"B": 'a "b" \\ $HOME ${X} `c` #', "A": ""}) == [
        'ENV A=""',
        'ENV B="a \\"b\\" \\\\ \\$HOME \\${X} `c` #"',
    ]
    for bad in ("a\nRUN rm -rf /", "a\r", "\0", "\x1b[31m", "\u2028"):
        with pytest.raises(CregraphError, match="ENV A contains a line break"):
            text.pairs("ENV", {"A": bad})
    with pytest.raises(CregraphError, match="is not a valid name in a Dockerfile"):
        text.pairs("ENV", {"A B": "x"})
    assert "\n" not in text.comment("a\nRUN x") and stage_name("Ünï Côde", "0" * 64) == "n-c-de-000000000000"
    assert json.loads(text.exec_form(["a\n", "é\u2028", '"'])) == ["a\n", "é\u2028", '"']
    assert text.exec_form(["a\n\u2028"]).isascii()


# -- bake ----------------------------------------------------------------------------------------------------------------------


def test_profiles_that_share_stages_have_them_in_the_file_once(own: Path) -> None:
    (own / "wide.yaml").write_text("extends: demo.yaml\ncre: {name: wide, image: wide, tag: v1, version_label: v9}\n")
    assert run(own, "lock", "wide.yaml", CREGRAPH_CACHE=str(own / "cache")).code == 0
    done = ok(own, "bake", "demo.yaml", "wide.yaml", "--output", "b", "--json")
    listing = json.loads((own / "b" / "docker-bake.json").read_text())
    assert listing["group"]["default"]["targets"] == ["demo", "wide"]
    written = (own / "b" / "Dockerfile").read_text()
    names = stages(written)
    assert len(names) == len(set(names))
    assert {listing["target"][name]["target"] for name in ("demo", "wide")} <= set(names)
    assert [sum(name.startswith(f"{stage}-") for name in names) for stage in ("base", "r", "python", "hook")] == [1, 1, 1, 2]
    (shared,) = (name for name in listing["target"] if name not in ("demo", "wide"))
    top = listing["target"][shared]["target"]
    assert shared == f"shared-{top}" and top.startswith("python-") and "tags" not in listing["target"][shared]
    for name in ("demo", "wide"):
        target = listing["target"][name]
        assert target["tags"][0] in done.json["images"]
        assert target["tags"][0].endswith("-docker")
        assert target["contexts"][top] == f"target:{shared}"
        (locked,) = set(target["contexts"]) - {top}
        assert f"FROM {locked} AS" in written
        assert target["contexts"][locked].startswith("oci-layout://../sources/base@sha256:")
    assert "of 14 shared" in done.err


def test_no_folder_of_the_base_is_read_as_a_template_of_bake(own: Path) -> None:
    """docs.docker.com/build/bake/variables: `${…}` and `%{…}` in a text are computed; doubled, they stand for themselves."""
    odd = "b${1+1}%{if true}c%{endif}$x"
    (own / "sources" / "base").rename(own / "sources" / odd)
    profile = own / "demo.yaml"
    profile.write_text(profile.read_text().replace("oci:sources/base", f"oci:sources/{odd}"))
    assert run(own, "lock", "demo.yaml", CREGRAPH_CACHE=str(own / "cache")).code == 0
    ok(own, "bake", "demo.yaml", "--output", "b")
    (place,) = json.loads((own / "b" / "docker-bake.json").read_text())["target"]["demo"]["contexts"].values()
    assert place.startswith("oci-layout://../sources/b$${1+1}%%{if true}c%%{endif}$x@sha256:")


# -- the installer of the other flavour ----------------------------------------------------------------------------------------


def test_the_installer_is_one_file_of_the_same_bytes_that_any_python_from_3_10_on_runs_alone(tmp_path: Path) -> None:
    program = bundle.bundle()
    assert program == bundle.bundle()
    used: set[str] = set()
    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED and info.date_time[0] == 1980 for info in archive.infolist())
        for name in archive.namelist():
            tree = ast.parse(archive.read(name), feature_version=bundle.OLDEST)
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    used |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    used.add(str(node.module).split(".")[0])
                    assert not {"UTC", "StrEnum", "Self", "assert_never", "TaskGroup"} & {alias.name for alias in node.names}, (
                        name
                    )
                elif isinstance(node, ast.Attribute):
                    assert node.attr not in ("file_digest", "UTC", "add_note", "batched"), name
    # yaml is read by a function that the installer never calls
    assert used - set(sys.stdlib_module_names) == {"cregraph", "zstandard", "yaml"}
    assert "tomllib" not in used
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "i.pyz").write_bytes(program)
    (tmp_path / "e" / "m.json").write_text('{"segments": []}')
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "e/i.pyz", "e/m.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "0 installed, 0 files, 0 bytes fetched\n"), done.stderr
    assert not (tmp_path / "e").exists()  # nothing that was copied in for it stays


def test_zstd_of_the_c_library_reads_what_zstandard_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.urandom(300_000) + b"x" * 3_000_000
    frames = b"".join(zstandard.ZstdCompressor(level=3).compress(part) for part in (plain, b"", b"second"))
    monkeypatch.setitem(sys.modules, "zstandard", zstd)
    assert b"".join(inflated([frames], what="x")) == plain + b"second"
    for damaged in (frames[:-9], frames[:100], frames + b"not zstd at all" * 10):
        with pytest.raises(CregraphError, match=r"^x: (ends in the middle|is damaged)"):
            list(inflated([damaged], what="x"))


def flat(project: Path, routes: Routes) -> tuple[builder.Export, dict[str, Row]]:
    """The flat export of the demo as if its base were in a registry, and every row that its image must have."""
    at = Project(profile=project / "demo.yaml")
    lock = at.read_lock()
    assert lock is not None
    facts = at.facts(lock.base)
    plan = make_plan(lock, facts)
    own = {
        s.artifact.sha256: at.local().read(s.artifact.source)
        for s in plan.segments.values()
        if s.artifact is not None and s.artifact.kind == "path"
    }
    bases = builder.Bases(base="registry.invalid/base@sha256:" + "0" * 64, root=None)
    made = builder.export(plan, facts, routes=routes, bases=bases, own=own, said=[])
    store = Store(project / "cache")
    rows: dict[str, Row] = {}
    for key in plan.segments:
        record = segments.read(store, key)
        assert record is not None
        rows |= {row.path: row for row in segments.index(store, record)}
    return made, rows


def test_the_installer_writes_what_our_layers_hold(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo, over HTTP, below a folder: the same paths, bytes, modes, owners and times."""
    root = os.geteuid() == 0
    if not root:
        monkeypatch.setattr(os, "chown", lambda *_args, **_more: None)
    with serve(made / "sources") as server:
        routes = read_routes(
            f"conda: {{demo: {server.address}/channel}}\npypi: {server.address}/simple\n", name="s", folder=tmp_path
        )
        export, rows = flat(made, routes)
        folder, image = tmp_path / "context", tmp_path / "image"
        folder.mkdir(), image.mkdir()
        for name, content in export.files.items():
            assert isinstance(content, bytes)
            (folder / name).write_bytes(content)
        order = re.findall(r'^RUN .*"/cregraph/export/([^"]+\.json)"\]$', (folder / "Dockerfile").read_text(), re.MULTILINE)
        assert len(order) >= 3
        for name in order:
            install(json.loads((folder / name).read_text()), folder, image)
    assert export.hosts == (server.address.removeprefix("http://"),)
    found = {str(path.relative_to(image)) for path in image.rglob("*") if path.is_symlink() or not path.is_dir()}
    assert found == rows.keys()
    for name, row in rows.items():
        info = (image / name).lstat()
        assert info.st_mtime == 315532800
        assert not root or (info.st_uid, info.st_gid) == (row.uid, row.gid)
        if row.type == "symlink":
            assert str((image / name).readlink()) == row.what
        elif row.type == "file":
            assert (oct(info.st_mode & 0o7777), sha256((image / name).read_bytes())) == (oct(row.mode), row.what), name
        else:
            assert (image / name).samefile(image / row.what)
    for path in image.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            assert (path.stat().st_mode & 0o7777, path.stat().st_mtime) == (0o755, 315532800)


def test_a_download_that_is_not_what_the_lock_pins_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cregraph.export.installer_downloads._PAUSES", ())
    (tmp_path / "root").mkdir()
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.bin").write_bytes(b"other")
    with serve(tmp_path / "served") as server:
        for size, said in ((5, "but the lock pins sha256:"), (4, "more than the 4 bytes"), (6, "fewer than the 6 bytes")):
            artifact = {"name": "a.bin", "sha256": sha256(b"right"), "size": size, "urls": [f"{server.address}/a.bin"]}
            item = {
                "entries": "cregraph.kinds.archive",
                "name": "a",
                "place": {"at": "/x", "form": "plain", "uid": 0, "gid": 0},
                "artifact": artifact,
            }
            with pytest.raises(CregraphError, match=said):
                install({"segments": [item]}, tmp_path, tmp_path / "root")
    with pytest.raises(CregraphError, match="only http and https"):
        install({"segments": [{**item, "artifact": {**artifact, "urls": ["file:///etc/passwd"]}}]}, tmp_path, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_what_is_there_already_is_left_when_equal_and_refused_when_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chown", lambda *_args, **_more: None)
    place = {"at": "/a/b", "text": "x", "uid": 0, "gid": 0}
    manifest = {"segments": [{"entries": "cregraph.kinds.file", "name": "/a/b", "place": place}]}
    (tmp_path / "r").mkdir()
    install(manifest, tmp_path, tmp_path / "r")
    install(manifest, tmp_path, tmp_path / "r")
    (tmp_path / "r" / "a" / "b").write_text("y")
    with pytest.raises(CregraphError, match="exists and is something else"):
        install(manifest, tmp_path, tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "r" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CregraphError, match="is a symbolic link"):
        install(manifest, tmp_path, tmp_path / "r")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_without_a_file_for_it_the_builder_is_told_public_addresses_and_never_this_machines(made: Path) -> None:
    export, _ = flat(made, Routes())
    assert set(export.hosts) == {"conda.anaconda.org", *hosts({"urls": [PYPI]})}
    assert len(export.hosts) == 3
    whole = b"".join(
        content for name, content in export.files.items() if isinstance(content, bytes) and not name.endswith(".pyz")
    )
    assert str(made).encode() not in whole
    assert b"file://" not in whole
    mirror = read_routes("conda: {demo: ./sources/channel}\n", name="s", folder=made)
    with pytest.raises(CregraphError, match="which another builder cannot reach"):
        flat(made, mirror)
    secret = read_routes("conda: {demo: 'https://me:hush@mirror.invalid/demo'}\n", name="s", folder=made)
    with pytest.raises(CregraphError, match="user or password") as caught:
        flat(made, secret)
    assert "hush" not in caught.value.message


def test_the_flat_dockerfile_asks_nothing_of_a_builder_that_kaniko_does_not_do(made: Path) -> None:
    export, _ = flat(made, Routes())
    assert all("/" not in name for name in export.files)
    written = export.files["Dockerfile"]
    assert isinstance(written, bytes)
    lines = [line for line in written.decode().splitlines() if line and not line.startswith("#")]
    assert {line.split(" ")[0] for line in lines} <= {"FROM", "COPY", "RUN", "ENV", "LABEL", "USER"}
    assert not [line for line in lines if re.search(r" --(?!from=)", line.partition("[")[0])]
    assert not any(line.startswith("ARG") or "${" in line.partition("[")[0] for line in lines)
