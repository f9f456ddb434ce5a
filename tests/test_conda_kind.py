"""Kind `conda`: what steps ask, and what packages become at a prefix."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import IO, Any

import pytest

from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds.base import PinContext, PlaceContext
from cregraph.kinds.conda import conda_kind as conda
from cregraph.kinds.conda.conda_archive import open_package
from cregraph.kinds.conda.conda_files import replace_binary, replace_text
from cregraph.kinds.conda.conda_hints import link_scripts
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.plan.parts import Segment
from cregraph.profile.step import Step

PLACEHOLDER = "/build/" + "placehold_" * 20
PREFIX = "/home/jupyter/micromamba/envs/x"


# -- a builder of small packages: standard library and zstandard, equal bytes for equal input ---------------------------------


@dataclass(kw_only=True)
class Part:
    """A member of a package: `type` is a tar type; `placeholder` and `mode` go to paths.json."""

    path: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    executable: bool = False
    placeholder: str | None = None
    mode: str = "text"


@dataclass(kw_only=True)
class Made:
    """A package to be made. `paths` None writes a true paths.json, False none (the old form), else itself."""

    name: str = "a"
    version: str = "1.0"
    build: str = "0"
    subdir: str = "linux-64"
    noarch: str | None = None
    depends: Sequence[str] = ()
    parts: Sequence[Part] = ()
    paths: Any = None
    info: Mapping[str, bytes] = dataclass_field(default_factory=dict)
    ending: str = ".conda"
    timestamp: int | None = None

    @property
    def stem(self) -> str:
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def file(self) -> str:
        return f"{self.subdir}/{self.stem}{self.ending}"

    def index(self) -> dict[str, Any]:
        index = {"name": self.name, "version": self.version, "build": self.build, "build_number": 0, "subdir": self.subdir}
        index |= {"depends": list(self.depends), "license": "MIT"}
        index |= {"noarch": self.noarch} if self.noarch else {}
        return index | ({"timestamp": self.timestamp} if self.timestamp else {})

    def listing(self) -> dict[str, Any]:
        rows = []
        by_path = {part.path: part for part in self.parts}
        for part in self.parts:
            data = by_path[part.link].data if part.type == tarfile.LNKTYPE and part.link in by_path else part.data
            row: dict[str, Any] = {"_path": part.path, "path_type": "softlink" if part.type == tarfile.SYMTYPE else "hardlink"}
            row |= {"sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)}
            if part.placeholder:
                row |= {"prefix_placeholder": part.placeholder, "file_mode": part.mode}
            rows.append(row)
        return {"paths": rows, "paths_version": 1}

    def write(self, channel: Path) -> Path:
        told = {"info/index.json": json.dumps(self.index()).encode()}
        if self.paths is not False:
            told["info/paths.json"] = json.dumps(self.paths or self.listing()).encode()
        told |= self.info
        info = [Part(path=path, data=data) for path, data in sorted(told.items())]
        target = channel / self.file
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.ending == ".tar.bz2":
            import bz2

            target.write_bytes(bz2.compress(tar_of([*info, *self.parts])))
            return target
        write_conda(target, {"info": tar_of(info), "pkg": tar_of(self.parts)}, self.stem)
        return target


def write_conda(target: Path, parts: Mapping[str, bytes], stem: str, compression: int = zipfile.ZIP_STORED) -> None:
    import zstandard

    with zipfile.ZipFile(target, "w", compression) as archive:
        archive.writestr(zipfile.ZipInfo("metadata.json"), '{"conda_pkg_format_version": 2}')
        for part, data in parts.items():
            made = zipfile.ZipInfo(f"{part}-{stem}.tar.zst")
            made.compress_type = compression
            archive.writestr(made, zstandard.ZstdCompressor().compress(data))


def tar_of(parts: Sequence[Part]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for part in parts:
            item = tarfile.TarInfo(part.path)
            item.type, item.linkname, item.size = part.type, part.link, len(part.data)
            item.mode = 0o775 if part.executable else 0o664
            archive.addfile(item, io.BytesIO(part.data))
    return out.getvalue()


def write_channel(folder: Path, packages: Sequence[Made], drop: Sequence[str] = ()) -> Path:
    """The packages and repodata.json of each subdir; `drop` names fields left out of the records."""
    for subdir in ("linux-64", "noarch"):
        records: dict[str, dict[str, Any]] = {".conda": {}, ".tar.bz2": {}}
        for package in packages:
            if package.subdir == subdir:
                data = package.write(folder).read_bytes()
                record = package.index() | {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
                record |= {"md5": hashlib.md5(data).hexdigest()}
                records[package.ending][package.file.partition("/")[2]] = {k: v for k, v in record.items() if k not in drop}
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        text = {"info": {"subdir": subdir}, "packages": records[".tar.bz2"], "packages.conda": records[".conda"]}
        (folder / subdir / "repodata.json").write_text(json.dumps(text))
    return folder


# -- a sources and an input without a network ----------------------------------------------------------------------------------


class FolderSources:
    """A sources whose channels are folders."""

    def __init__(self, **channels: Path) -> None:
        self.offline = False
        self._routes = {name.replace("_", "-"): (folder.as_uri(),) for name, folder in channels.items()}
        self._folders = {name.replace("_", "-"): folder for name, folder in channels.items()}
        self.taken: list[str] = []

    def routes(self, section: str, name: str) -> tuple[str, ...]:
        assert section == "conda"
        return self._routes[name]

    def lead(self, name: str, *addresses: str) -> None:
        self._routes[name] = addresses

    def fetch(self, artifact: Artifact) -> Path:
        return self._folders[artifact.source] / artifact.file

    def take(self, *, kind: str, source: str, file: str, md5: str | None = None) -> tuple[Artifact, Path]:
        self.taken.append(file)
        path = self._folders[source] / file
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Artifact(kind=kind, source=source, file=file, sha256=digest, size=path.stat().st_size), path

    def read(self, *, kind: str, source: str, file: str, limit: int = 0) -> bytes:
        raise AssertionError("conda reads no index by itself")


@dataclass
class FileInput:
    file: Path

    def path(self) -> Path:
        return self.file

    def scratch(self) -> IO[bytes]:
        return tempfile.TemporaryFile()


def facts(**changes: Any) -> BaseFacts:
    given: dict[str, Any] = {"digest": "sha256:" + "0" * 64, "config": {"architecture": "amd64"}, "layers": (), "glibc": "2.34"}
    return BaseFacts(**(given | {"users": {}, "python": None} | changes))


def given(**changes: Any) -> PinContext:
    return PinContext(**({"project": Path("/none"), "shipped": Path("/none"), "facts": facts()} | changes))


def ground(*targets: Target, order: Sequence[str] = ("r",), **changes: Any) -> PlaceContext:
    return PlaceContext(assembly=1, facts=facts(**changes), build_root="sha256:" + "1" * 64, targets=targets, order=tuple(order))


def step(specs: Any, *, prefix: str = PREFIX, **fields: Any) -> Step:
    where = {"": "recipes/r.yaml:10", "prefix": "recipes/r.yaml:11: prefix", "channels": "recipes/r.yaml:12: channels"}
    where |= {f"specs[{i}]": f"team.yaml:{20 + i}: extras.conda_r[{i}]" for i in range(len(specs))}
    return Step(kind="conda", stage="r", fields={"prefix": prefix, "specs": specs, **fields}, where=where)


def target_of(asks: Sequence[Ask]) -> Target:
    return Target(kind="conda", place=asks[0].place, options=asks[0].options, asks=tuple(asks))


def pin_of(made: Made, path: Path, **data: Any) -> Pin:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = Artifact(kind="conda", source="conda-forge", file=made.file, sha256=digest, size=path.stat().st_size)
    kept = {k: v for k, v in made.index().items() if k not in ("name", "version")} | data
    provides = (f"conda:{made.name} {made.version}",)
    return Pin(name=made.name, version=made.version, artifact=found, provides=provides, data=kept)


def segments(packages: Sequence[Made], folder: Path, prefix: str = PREFIX, **changes: Any) -> dict[str, Segment]:
    pins = tuple(pin_of(made, made.write(folder)) for made in packages)
    asks = tuple(conda.ask(step([made.name for made in packages], prefix=prefix)))
    target = Target(kind="conda", place=prefix, options=asks[0].options, asks=asks, pins=pins)
    return {s.name: s for s in conda.place(target, ground(target, **changes)).segments}


def entries_of(made: Made, folder: Path, prefix: str = PREFIX, beside: Sequence[Made] = ()) -> dict[str, Entry]:
    found = segments([made, *beside], folder, prefix)[made.name]
    entries = list(conda.entries(found, FileInput(folder / made.file)))
    assert [e.path.encode() for e in entries] == sorted(e.path.encode() for e in entries)
    root = prefix.strip("/") + "/"
    assert all(e.path.startswith(root) and (e.uid, e.gid) == (0, 0) for e in entries)
    return {e.path.removeprefix(root): e for e in entries}


def content(entry: Entry) -> bytes:
    assert entry.type == "file" and entry.chunks is not None
    data = b"".join(entry.chunks())
    assert len(data) == entry.size
    assert b"".join(entry.chunks()) == data, "content must be readable again"
    return data


def refused(call: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(CregraphError) as caught:
        call()
    return caught.value.message, caught.value.hint


# -- ask ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("r-lme4=1.1-35", "r-lme4 =1.1_35"),
        ("r-lme4 >=1.1-30, <1.1-40", "r-lme4 >=1.1_30,<1.1_40"),
        ("r-fable=0.4.0", "r-fable =0.4.0"),
        ("r-rlang >=1.0.0", "r-rlang >=1.0.0"),
        ("r-base =4.5.2", "r-base =4.5.2"),
        ("micromamba 2.*", "micromamba 2.*"),
        ("R-Dplyr  >= 1.1.0 , < 2", "r-dplyr >=1.1.0,<2"),
        ("numpy=1.2=py27_0", "numpy ==1.2 py27_0"),
        ("python 3.11.* *_cpython", "python 3.11.* *_cpython"),
        ("libadbc-driver-snowflake", "libadbc-driver-snowflake"),
        ("x (>=1,<2)|3", "x (>=1,<2)|3"),
    ],
)
def test_specs_have_one_normal_form(written: str, meant: str) -> None:
    (asked,) = conda.ask(step([written]))
    assert asked.what == meant
    assert asked.target == f"conda:{PREFIX}" and asked.stage == "r" and asked.where == "team.yaml:20: extras.conda_r[0]"
    assert asked.options == {"channels": ["conda-forge"]}
    import rattler

    rattler.MatchSpec(meant)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("r-x; rm -rf /", "does not start with a package's name (letters, digits and . _ - +)"),
        ("x $(id)", "holds '$', which is not allowed in a conda spec"),
        ("x `id` 'a'", "holds \"'\", '`', which is not allowed in a conda spec"),
        ("--insecure", "does not start with a package's name (letters, digits and . _ - +)"),
        ("x[build=1]", "has brackets; write `name version build`"),
        ("other::x", "names a channel; list channels under `channels` in order of priority"),
        ("__glibc >=2", "is a virtual package; those follow from the base image"),
        ("", "is empty (expected a package name)"),
        ("x >=>5", "has a version that cannot be read: '>=>5'; write `=1.2`, `==1.2.3`, `>=1.2,<2`"),
        ("x >=", "has an operator without a version"),
        ("x 1 2 3", "has more than name, version and build; separate versions with a comma"),
        ("x =1.0-2", "has a dash in its version; write `_` as conda does"),
    ],
)
def test_odd_specs_are_refused_with_their_line(spec: str, why: str) -> None:
    message, hint = refused(lambda: conda.ask(step(["zlib", spec])))
    assert message == f"team.yaml:21: extras.conda_r[1]: `{spec}` {why}"
    assert hint == "write `name`, `name =1.2`, `name >=1.2,<2` or `name 1.2 build`"


def test_a_channel_is_a_name_and_never_an_address() -> None:
    message, hint = refused(lambda: conda.ask(step(["x"], channels=["conda-forge", "https://me:secret@host.example/x"])))
    assert message == "recipes/r.yaml:12: channels: `https://…@host.example/x` is not the name of a channel"
    assert hint == "write a name such as `conda-forge`. Its address is under `conda:` in sources.yaml"
    message, _ = refused(lambda: conda.ask(step(["x"], channels=["a", "a"])))
    assert message == "recipes/r.yaml:12: channels: `a` is listed twice"
    assert conda.ask(step(["x"], channels=["a", "b/label/rc"]))[0].options == {"channels": ["a", "b/label/rc"]}


@pytest.mark.parametrize("prefix", ["relative", "/a b", "/a/../b", "/", "/a/", "/a$(id)", "/a//b", ""])
def test_a_prefix_must_be_a_plain_absolute_path(prefix: str) -> None:
    message, _ = refused(lambda: conda.ask(step(["x"], prefix=prefix)))
    assert message == f"recipes/r.yaml:11: prefix: `{prefix}` is not a prefix for a conda environment"


# -- files at a prefix -------------------------------------------------------------------------------------------------------


def test_prefix_is_replaced_in_text_and_binary_files(tmp_path: Path) -> None:
    text = f"#!{PLACEHOLDER}/bin/sh\nprefix={PLACEHOLDER}\n".encode()
    binary = b"\x7fELF\0" + f"{PLACEHOLDER}/lib:{PLACEHOLDER}/share".encode() + b"\0tail\0" + PLACEHOLDER.encode()
    made = Made(
        parts=[
            Part(path="bin/tool", data=text, placeholder=PLACEHOLDER, executable=True),
            Part(path="lib/lib.so", data=binary, placeholder=PLACEHOLDER, mode="binary"),
            Part(path="share/plain", data=PLACEHOLDER.encode()),
            Part(path="lib/link.so", type=tarfile.SYMTYPE, link="lib.so"),
        ]
    )
    found = entries_of(made, tmp_path)
    assert list(found) == ["bin/tool", "conda-meta/a-1.0-0.json", "lib/lib.so", "lib/link.so", "share/plain"]
    assert content(found["bin/tool"]) == f"#!{PREFIX}/bin/sh\nprefix={PREFIX}\n".encode()
    assert (found["bin/tool"].mode, found["lib/lib.so"].mode) == (0o755, 0o644)
    strings = content(found["lib/lib.so"])
    assert len(strings) == len(binary)
    assert [s for s in strings.split(b"\0") if s] == [
        b"\x7fELF",
        f"{PREFIX}/lib:{PREFIX}/share".encode(),
        b"tail",
        PREFIX.encode(),
    ]
    assert content(found["share/plain"]) == PLACEHOLDER.encode()
    assert (found["lib/link.so"].type, found["lib/link.so"].link) == ("symlink", "lib.so")


def test_a_prefix_longer_than_a_binary_has_room_for_is_refused(tmp_path: Path) -> None:
    made = Made(parts=[Part(path="lib/x.so", data=b"/short/p\0", placeholder="/short/p", mode="binary")])
    message, _ = refused(lambda: entries_of(made, tmp_path))
    assert message == (
        "conda-forge/linux-64/a-1.0-0.conda: `lib/x.so` has space for a prefix of 8 bytes, `/short/p`,"
        " but `/home/jupyter/micromamba/envs/x` has 31"
    )


def test_a_shebang_that_linux_would_cut_goes_through_env() -> None:
    long = b"/" + b"p" * 150
    assert replace_text(b"#!/old/bin/python -Es\nx", b"/old", long) == b"#!/usr/bin/env python -Es\nx"
    assert replace_text(b"#!/old/bin/python\n#!/old\n", b"/old", long) == b"#!/usr/bin/env python\n#!" + long + b"\n"
    fits = b"/" + b"p" * 113
    assert replace_text(b"#!/old/bin/python\n", b"/old", fits) == b"#!" + fits + b"/bin/python\n"
    assert replace_text(b"x /old/y", b"/old", b"") == b"x /y"


def test_binary_replacement_keeps_the_length_and_what_follows_each_string() -> None:
    data = b"a\0/oldold/lib\0b/oldold/x:/oldold/y\0\0c/oldold"
    assert replace_binary(data, b"/oldold", b"/n") == b"a\0/n/lib\0\0\0\0\0\0b/n/x:/n/y" + bytes(10) + b"\0\0c/n" + bytes(5)
    assert replace_binary(b"none\0", b"/oldold", b"/n") == b"none\0"


def test_noarch_python_moves_and_gets_entry_points(tmp_path: Path) -> None:
    python = Made(name="python", version="3.11.7")
    link = {
        "noarch": {"type": "python", "entry_points": ["tool = pkg.cli:App.main", "b=pkg:main"]},
        "package_metadata_version": 1,
    }
    made = Made(
        name="pkg",
        noarch="python",
        subdir="noarch",
        info={"info/link.json": json.dumps(link).encode()},
        parts=[
            Part(path="site-packages/pkg/__init__.py", data=b"x"),
            Part(path="python-scripts/s", data=b"#!/p/python", executable=True, placeholder="/p"),
            Part(path="share/doc", data=b"d"),
        ],
    )
    found = entries_of(made, tmp_path, beside=[python])
    assert list(found) == [
        "bin/b",
        "bin/s",
        "bin/tool",
        "conda-meta/pkg-1.0-0.json",
        "lib/python3.11/site-packages/pkg/__init__.py",
        "share/doc",
    ]
    assert found["bin/tool"].mode == 0o755
    assert content(found["bin/tool"]).decode() == textwrap.dedent(
        f"""\
        #!{PREFIX}/bin/python3.11
        # -*- coding: utf-8 -*-
        import re
        import sys

        from pkg.cli import App

        if __name__ == '__main__':
            sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
            sys.exit(App.main())
        """
    )
    message, _ = refused(lambda: segments([made], tmp_path))
    assert message == f"conda environment {PREFIX}: pkg is a Python package, but the environment has no python"


def test_noarch_python_alone_depends_on_the_python_minor(tmp_path: Path) -> None:
    noarch = Made(name="pkg", noarch="python", subdir="noarch")
    plain = Made(name="lib")
    keys = []
    for version in ("3.11.7", "3.11.9", "3.12.1"):
        found = segments([noarch, plain, Made(name="python", version=version)], tmp_path)
        keys.append((found["pkg"].key, found["lib"].key))
    assert keys[0] == keys[1] and keys[1][0] != keys[2][0] and keys[1][1] == keys[2][1]


def test_hard_links_stay_links_unless_their_bytes_come_to_differ(tmp_path: Path) -> None:
    data = b"/p/bin"
    made = Made(
        parts=[
            Part(path="bin/z", data=data, placeholder="/p", executable=True),
            Part(path="bin/a", type=tarfile.LNKTYPE, link="bin/z", placeholder="/p"),
            Part(path="bin/b", type=tarfile.LNKTYPE, link="bin/z"),
        ]
    )
    found = entries_of(made, tmp_path)
    assert content(found["bin/a"]) == f"{PREFIX}/bin".encode() and found["bin/a"].mode == 0o755
    assert (found["bin/z"].type, found["bin/z"].link) == ("hardlink", f"{PREFIX[1:]}/bin/a")
    assert content(found["bin/b"]) == data


def test_long_paths_and_names_that_differ_by_case_survive(tmp_path: Path) -> None:
    long = "/".join(["d" * 98] * 3) + "/file"
    names = [long, "lib/Aa", "lib/aA", "lib/é", "lib/\U0001f600"]
    found = entries_of(Made(parts=[Part(path=p, data=p.encode()) for p in names]), tmp_path)
    assert {p: content(found[p]) for p in names} == {p: p.encode() for p in names}


def test_old_packages_are_read_by_files_and_has_prefix(tmp_path: Path) -> None:
    old = "/opt/anaconda1anaconda2anaconda3"
    made = Made(
        ending=".tar.bz2",
        paths=False,
        info={
            "info/files": b"bin/a\nbin/b\nlib/c\nlib/d\nlib/e\n",
            "info/has_prefix": b"bin/a\n" + f'{PLACEHOLDER} text "bin/b"\n{PLACEHOLDER} binary lib/c\n'.encode(),
            "info/no_link": b"lib/d\n",
        },
        parts=[
            Part(path="bin/a", data=old.encode() + b"/x"),
            Part(path="bin/b", data=PLACEHOLDER.encode()),
            Part(path="lib/c", data=PLACEHOLDER.encode() + b"\0"),
            Part(path="lib/d", data=b"d"),
            Part(path="lib/e", type=tarfile.SYMTYPE, link="d"),
        ],
    )
    found = entries_of(made, tmp_path)
    assert content(found["bin/a"]) == f"{PREFIX}/x".encode()
    assert content(found["bin/b"]) == PREFIX.encode()
    assert content(found["lib/c"]) == PREFIX.encode().ljust(len(PLACEHOLDER) + 1, b"\0")
    assert found["lib/e"].link == "d"


def test_both_forms_of_one_package_become_the_same_files(tmp_path: Path) -> None:
    parts = [Part(path="bin/x", data=PLACEHOLDER.encode(), placeholder=PLACEHOLDER), Part(path="lib/y", data=b"y" * 3_000_000)]
    new, old = (entries_of(Made(parts=parts, ending=e), tmp_path) for e in (".conda", ".tar.bz2"))
    for path in ("bin/x", "lib/y"):
        assert content(new[path]) == content(old[path])


def test_link_scripts_are_named_and_not_run(tmp_path: Path) -> None:
    scripts = ["bin/.a-post-link.sh", "bin/.a-pre-unlink.sh"]
    path = Made(parts=[Part(path=p, data=b"exit 1") for p in [*scripts, "bin/a-post-link.sh"]]).write(tmp_path)
    assert link_scripts(path) == scripts


# -- hostile packages --------------------------------------------------------------------------------------------------------

GOOD = Part(path="lib/x", data=b"x")
LISTED_ONLY_X = {"paths": [{"_path": "lib/x", "path_type": "hardlink"}], "paths_version": 1}


@pytest.mark.parametrize("ending", [".conda", ".tar.bz2"])
@pytest.mark.parametrize(
    ("made", "why"),
    [
        (Made(parts=[Part(path="../x")], paths=LISTED_ONLY_X), "`../x` leads out of its folder"),
        (Made(parts=[Part(path="/etc/x")], paths=LISTED_ONLY_X), "`/etc/x` leads out of its folder"),
        (Made(parts=[Part(path="lib/../../x")], paths=LISTED_ONLY_X), "`lib/../../x` leads out of its folder"),
        (Made(parts=[Part(path="lib/a\nb")], paths=LISTED_ONLY_X), "the path 'lib/a\\nb' holds control characters"),
        (Made(parts=[Part(path="a" * 300)], paths=LISTED_ONLY_X), f"the path `{'a' * 80}…` is longer than file systems allow"),
        (
            Made(parts=[Part(path="lib/x", type=tarfile.SYMTYPE, link="/etc/passwd")]),
            "the link `lib/x` leads to the absolute path `/etc/passwd`",
        ),
        (
            Made(parts=[Part(path="lib/x", type=tarfile.SYMTYPE, link="../../etc")]),
            "the link `lib/x` leads out of the prefix, to `../../etc`",
        ),
        (
            Made(parts=[Part(path="lib/x", type=tarfile.LNKTYPE, link="../../etc/passwd")]),
            "`../../etc/passwd` leads out of its folder",
        ),
        (
            Made(parts=[Part(path="lib/x", type=tarfile.LNKTYPE, link="lib/x")]),
            "the hard link `lib/x` leads to `lib/x`, which is not an earlier file of the package",
        ),
        (Made(parts=[Part(path="lib/x", type=tarfile.CHRTYPE)]), "`lib/x` is a device or another special file"),
        (Made(parts=[Part(path="lib/x", type=tarfile.FIFOTYPE)]), "`lib/x` is a device or another special file"),
        (Made(parts=[GOOD, GOOD], paths=LISTED_ONLY_X), "`lib/x` is contained twice"),
        (
            Made(parts=[Part(path="lib", type=tarfile.SYMTYPE, link="share"), GOOD]),
            "`lib` is a link and a folder as well",
        ),
        (Made(parts=[Part(path="lib"), GOOD]), "`lib` is a file and a folder as well"),
        (Made(parts=[GOOD, Part(path="lib/y")], paths=LISTED_ONLY_X), "contains `lib/y`, which it does not list"),
        (Made(parts=[], paths=LISTED_ONLY_X), "lists `lib/x`, but does not contain it"),
        (
            Made(parts=[Part(path="lib/x", type=tarfile.SYMTYPE, link="y")], paths=LISTED_ONLY_X),
            "lists `lib/x` as a hardlink, but it is a symlink",
        ),
        (
            Made(parts=[GOOD], paths={"paths": [{"_path": "lib/x", "path_type": "hardlink", "sha256": "0" * 64}]}),
            f"`lib/x` has sha256:{hashlib.sha256(b'x').hexdigest()}, but the package lists sha256:{'0' * 64}",
        ),
        (
            Made(parts=[GOOD], paths={"paths": [{"_path": "lib/x", "path_type": "hardlink", "size_in_bytes": 2}]}),
            "`lib/x` has 1 bytes, but the package lists 2",
        ),
        (Made(parts=[GOOD], paths={"paths": [7]}), "`info/paths.json` is not a list of paths with their types"),
        (Made(parts=[GOOD], info={"info/paths.json": b"{"}), "`info/paths.json` is not JSON: Expecting property name enclosed"),
        (Made(parts=[GOOD], paths=False), "has neither `info/paths.json` nor `info/files`"),
        (
            Made(parts=[GOOD], info={"info/index.json": b'{"name": "b", "version": "1.0", "build": "0"}'}),
            "is b-1.0-0 by its info/index.json (expected a-1.0-0)",
        ),
        (
            Made(parts=[Part(path="conda-meta/a-1.0-0.json", data=b"{}")]),
            "holds `conda-meta/a-1.0-0.json`, which describes its installation",
        ),
    ],
)
def test_hostile_packages_are_refused_by_name(made: Made, why: str, ending: str, tmp_path: Path) -> None:
    made = Made(**{**{f: getattr(made, f) for f in made.__dataclass_fields__}, "ending": ending})
    message, hint = refused(lambda: entries_of(made, tmp_path))
    said = f"conda-forge/linux-64/a-1.0-0{ending}: {why}"
    assert message == said or (why.endswith("enclosed") and message.startswith(said))
    assert hint == "pin another build, or ask the author: the package is damaged or hostile"


def test_a_noarch_package_cannot_escape_by_moving(tmp_path: Path) -> None:
    python = Made(name="python", version="3.11.7")
    twice = [Part(path="site-packages/m.py"), Part(path="lib/python3.11/site-packages/m.py")]
    message, _ = refused(lambda: entries_of(Made(noarch="python", subdir="noarch", parts=twice), tmp_path, beside=[python]))
    assert message == "conda-forge/noarch/a-1.0-0.conda: two of its files have the path `lib/python3.11/site-packages/m.py`"
    for point in ("x = m:main; import os", "../x = m:f", "x = m:f\nimport os", 7):
        info = {"info/link.json": json.dumps({"noarch": {"entry_points": [point]}}).encode()}
        made = Made(noarch="python", subdir="noarch", info=info)
        message, _ = refused(lambda made=made: entries_of(made, tmp_path, beside=[python]))
        assert message == f"conda-forge/noarch/a-1.0-0.conda: the entry point {point!r} is not `name = module:function`"


def test_what_is_no_package_is_said_to_be_none(tmp_path: Path) -> None:
    def opened(data: bytes) -> str:
        (tmp_path / "x").write_bytes(data)
        return refused(lambda: open_package(tmp_path / "x", tempfile.TemporaryFile, "x.conda"))[0]

    assert opened(b"") == "x.conda: neither a .conda nor a .tar.bz2 file"
    assert opened(b"PK\3\4 no zip") == "x.conda: not readable: File is not a zip file"
    whole = Made(parts=[Part(path="lib/x", data=os.urandom(300_000))], ending=".tar.bz2").write(tmp_path).read_bytes()
    assert opened(whole[:-5000]) == "x.conda: ends in the middle of its compressed bytes"
    write_conda(tmp_path / "y", {"pkg": b""}, "a")
    assert opened((tmp_path / "y").read_bytes()) == "x.conda: holds 0 members `info-*.tar.zst` (expected one)"
    write_conda(tmp_path / "y", {"info": tar_of([]), "pkg": tar_of([])}, "a", zipfile.ZIP_DEFLATED)
    assert opened((tmp_path / "y").read_bytes()) == (
        "x.conda: its member `info-a.tar.zst` is compressed or encrypted by zip; it must be stored"
    )


def test_bombs_are_refused_before_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cregraph.formats import inflate
    from cregraph.formats.untrusted_tar import PACKAGE
    from cregraph.kinds.conda import conda_archive

    for module in (conda_archive, inflate):
        monkeypatch.setattr(module, "PACKAGE", replace(PACKAGE, free=4 << 20))
    for ending in (".conda", ".tar.bz2"):
        path = Made(parts=[Part(path="x", data=bytes(32 << 20))], ending=ending).write(tmp_path)
        written: list[IO[bytes]] = []

        def scratch(written: list[IO[bytes]] = written) -> IO[bytes]:
            written.append(tempfile.TemporaryFile())  # noqa: SIM115
            return written[-1]

        message, _ = refused(lambda path=path, scratch=scratch: open_package(path, scratch, "x"))
        assert message == "x: unpacks to more than 1100 times its size"
        assert all(file.seek(0, 2) <= 16 << 20 for file in written)
    monkeypatch.setattr(conda_archive, "PACKAGE", replace(PACKAGE, members=10))
    path = Made(parts=[Part(path=f"f{i}") for i in range(11)]).write(tmp_path)
    assert refused(lambda: open_package(path, tempfile.TemporaryFile, "x"))[0] == "x: holds more than 10 members or 16 GiB"


def test_a_tar_header_cannot_claim_gigabytes(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 7 << 30
    write_conda(tmp_path / "x", {"info": tar_of([]), "pkg": header.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)}, "a")
    message, _ = refused(lambda: open_package(tmp_path / "x", tempfile.TemporaryFile, "x"))
    assert message == "x: has an extended header of 7516192768 bytes (maximum 1048576)"


# -- place -------------------------------------------------------------------------------------------------------------------


def test_the_prefix_is_resolved_through_the_base_but_written_as_asked(tmp_path: Path) -> None:
    made = Made(parts=[Part(path="bin/x", data=b"/p", placeholder="/p")])
    found = segments([made], tmp_path, "/opt/link/env", links={"/opt/link": "../srv/real", "/srv/real": "store"})
    (entry, _) = conda.entries(found["a"], FileInput(tmp_path / made.file))
    assert entry.path == "srv/store/env/bin/x" and content(entry) == b"/opt/link/env"
    assert found["a"].group == "conda:/opt/link/env"
    (history,) = conda.entries(found["environment"], FileInput(tmp_path))
    assert (history.path, history.size) == ("srv/store/env/conda-meta/history", 0)


def test_a_prefix_that_the_base_uses_is_refused(tmp_path: Path) -> None:
    message, _ = refused(lambda: segments([Made()], tmp_path, "/opt/x", links={"/opt/x/lib": "lib64"}))
    assert message == "conda environment /opt/x: the base image holds the link /opt/x/lib there"
    message, _ = refused(lambda: segments([Made()], tmp_path, "/opt/x", files=frozenset({"/opt/x/conda-meta/history"})))
    assert message == "conda environment /opt/x: the base image has a conda environment there"


def test_a_pin_edited_to_lead_elsewhere_is_refused(tmp_path: Path) -> None:
    made = Made()
    good = pin_of(made, made.write(tmp_path))
    asks = tuple(conda.ask(step(["a"])))
    for bad in (
        Pin(name="../a", version="1", artifact=good.artifact, data=good.data),
        Pin(name="a", version="1/../../x", artifact=good.artifact, data=good.data),
        Pin(name="a", version="1", artifact=good.artifact, data={**good.data, "build": "../x"}),
        Pin(name="a", version="1", artifact=good.artifact, data={**good.data, "noarch": "../x"}),
        Pin(name="a", version="1", artifact=good.artifact, data={**good.data, "python_site_packages_path": "../x"}),
        Pin(name="a", version="1", artifact=dataclasses.replace(good.artifact, file="linux-64/../x.conda"), data=good.data),
        Pin(name="a", version="1", artifact=dataclasses.replace(good.artifact, source="../x"), data=good.data),
        *(
            Pin(name="a", version="1", artifact=good.artifact, data={k: v for k, v in good.data.items() if k != field})
            for field in ("build", "depends")
        ),
    ):
        target = Target(kind="conda", place=PREFIX, options={}, asks=asks, pins=(bad,))
        message, hint = refused(lambda target=target: conda.place(target, ground(target)))
        if bad.name == "../a":
            assert message == f"conda environment {PREFIX}: the lock pins '../a', which is not the name of a conda package"
            continue
        assert message.startswith(f"conda environment {PREFIX}: package a: the lock's `")
        assert message.endswith("` is missing or invalid")
        assert hint is not None and hint.endswith("`cregraph lock --upgrade-package a`")


@pytest.mark.parametrize("prefix", ["/cregraph", "/cregraph/mine", "/cregraph/python", "/cregraph/in/x"])
def test_a_prefix_that_only_the_sandbox_has_is_refused(prefix: str) -> None:
    message, _ = refused(lambda: conda.ask(step(["a"], prefix=prefix)))

    assert message == (
        f"recipes/r.yaml:11: prefix: `{prefix}` would not be in the image: only the sandbox of tasks has /cregraph"
    )
    assert conda.ask(step(["a"], prefix="/cregraph2/mine"))


def test_a_key_changes_with_the_prefix_and_the_record_only(tmp_path: Path) -> None:
    first = segments([Made()], tmp_path)["a"]
    assert segments([Made()], tmp_path)["a"].key == first.key
    assert segments([Made()], tmp_path, "/other")["a"].key != first.key
    assert segments([Made(depends=["b"])], tmp_path)["a"].key != first.key


# -- against rattler itself --------------------------------------------------------------------------------------------------

INSTALL = """
import asyncio, json, os, sys
from rattler import *
channel, prefix, target, names = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
async def go():
    gateway = Gateway(cache_dir=prefix + "-repodata")
    records = await solve([Channel(channel)], names, gateway=gateway, platforms=["linux-64", "noarch"], virtual_packages=[])
    await install(records, prefix, cache_dir=prefix + "-cache", platform=Subdir("linux-64"), show_progress=False,
                  alternative_target_prefix=target)
asyncio.run(go())
os._exit(0)
"""


def test_files_are_those_that_rattler_installs(tmp_path: Path) -> None:
    link = {"noarch": {"type": "python", "entry_points": ["tool = pkg.cli:main"]}, "package_metadata_version": 1}
    made = [
        Made(name="python", version="3.11.7", parts=[Part(path="bin/python3.11", data=b"\x7fELF", executable=True)]),
        Made(
            name="pkg",
            noarch="python",
            subdir="noarch",
            depends=["python"],
            info={"info/link.json": json.dumps(link).encode()},
            parts=[Part(path="site-packages/pkg.py", data=b"x"), Part(path="python-scripts/s", data=b"s", executable=True)],
        ),
        Made(
            name="lib",
            parts=[
                Part(path="lib/a.so", data=b"\0" + PLACEHOLDER.encode() + b"/x\0y", placeholder=PLACEHOLDER, mode="binary"),
                Part(path="bin/a", data=f"#!{PLACEHOLDER}/bin/sh -e\n".encode(), placeholder=PLACEHOLDER, executable=True),
                Part(path="bin/long", data=f"#!{PLACEHOLDER}/{'d' * 120}/sh\n".encode(), placeholder=PLACEHOLDER),
                Part(path="lib/l.so", type=tarfile.SYMTYPE, link="a.so"),
            ],
        ),
    ]
    channel = write_channel(tmp_path / "channel", made)
    installed = tmp_path / "env"
    subprocess.run(
        [sys.executable, "-c", INSTALL, channel.as_uri(), str(installed), PREFIX, "pkg", "lib"], check=True, capture_output=True
    )
    ours: dict[str, Any] = {}
    for name, found in segments(made, channel).items():
        package = next((m for m in made if m.name == name), None)
        for entry in conda.entries(found, FileInput(channel / package.file if package else channel)):
            path = entry.path.removeprefix(PREFIX[1:] + "/")
            ours[path] = entry.link if entry.type == "symlink" else (content(entry), bool(entry.mode & 0o100))
    theirs: dict[str, Any] = {}
    for path in (p for p in installed.rglob("*") if p.is_symlink() or p.is_file()):
        name = str(path.relative_to(installed))
        theirs[name] = str(path.readlink()) if path.is_symlink() else (path.read_bytes(), os.access(path, os.X_OK))
    for name in [n for n in {*ours, *theirs} if n.startswith("conda-meta/") or n == "CACHEDIR.TAG"]:
        ours.pop(name, None), theirs.pop(name, None)
    # conda indents entry points by four spaces, rattler by a tab; both are the same program
    assert ours["bin/tool"][0].replace(b"    ", b"\t").strip() == theirs["bin/tool"][0].strip()
    ours.pop("bin/tool"), theirs.pop("bin/tool")
    assert ours == theirs


def test_conda_meta_is_a_true_record(tmp_path: Path) -> None:
    from rattler import PrefixRecord

    made = Made(
        depends=["b >=1"],
        timestamp=1723489175513,
        parts=[
            Part(path="bin/x", data=PLACEHOLDER.encode(), placeholder=PLACEHOLDER, executable=True),
            Part(path="lib/l", type=tarfile.SYMTYPE, link="x"),
        ],
    )
    found = segments([made, Made(name="b")], tmp_path)
    for name in ("a", "b", "environment"):
        file = tmp_path / Made(name=name).file
        for entry in conda.entries(found[name], FileInput(file)):
            if "/conda-meta/" in entry.path:
                path = tmp_path / "env" / entry.path.removeprefix(PREFIX[1:] + "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content(entry))
    record = PrefixRecord.from_path(tmp_path / "env/conda-meta/a-1.0-0.json")
    assert record.name.normalized == "a" and str(record.version) == "1.0" and record.depends == ["b >=1"]
    assert record.url == "https://conda.anaconda.org/conda-forge/linux-64/a-1.0-0.conda" and record.channel == "conda-forge"
    assert record.sha256 is not None and record.sha256.hex() == hashlib.sha256((tmp_path / made.file).read_bytes()).hexdigest()
    assert [str(f) for f in record.files] == ["bin/x", "lib/l"]
    assert record.requested_specs in (None, []) and record.extracted_package_dir is None
    rows = {str(row.relative_path): row for row in record.paths_data.paths}
    assert rows["bin/x"].sha256_in_prefix is not None
    assert rows["bin/x"].sha256_in_prefix.hex() == hashlib.sha256(PREFIX.encode()).hexdigest()
    text = (tmp_path / "env/conda-meta/a-1.0-0.json").read_text()
    assert json.loads(text)["timestamp"] == 1723489175513 and "link" not in json.loads(text) and str(tmp_path) not in text
    assert (tmp_path / "env/conda-meta/history").read_bytes() == b""
