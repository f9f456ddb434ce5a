"""Kinds `file` and `archive`: what a step may ask, where it comes to lie, and archives that come from anywhere."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import pytest
import zstandard

from cregraph.digest import sha256
from cregraph.errors import CregraphError
from cregraph.formats.untrusted_tar import PACKAGE
from cregraph.image.model import segment as segments_of
from cregraph.kinds import KINDS, archive, file
from cregraph.kinds.base import PinContext, PlaceContext
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.lock.staleness import group
from cregraph.plan.parts import Segment
from cregraph.profile.step import Step
from cregraph.sources.configured import ConfiguredSources
from cregraph.sources.project_files import Local
from cregraph.sources.protocol import Sources
from cregraph.sources.routes import read_routes
from cregraph.store import Store

URL = "https://files.invalid/a.tar.gz"
USERS = {"root": (0, 0, "/root"), "jupyter": (1000, 1000, "/home/jupyter")}


def facts(**links: str) -> BaseFacts:
    return BaseFacts(
        digest="sha256:" + "0" * 64,
        config={},
        layers=(),
        glibc=None,
        users=USERS,
        python=None,
        links={f"/{name}": text for name, text in links.items()},
    )


def ground(*targets: Target, **links: str) -> PlaceContext:
    return PlaceContext(assembly=1, facts=facts(**links), build_root="", targets=targets, order=("own",))


def asks(module: Any, **fields: Any) -> tuple[Ask, ...]:
    where = {"": "own.yaml:1: steps[0]", **{name: f"own.yaml:2: steps[0].{name}" for name in fields}}
    return tuple(module.ask(Step(kind=module.NAME, stage="own", fields=fields, where=where)))


def refusal(call: Callable[[], object]) -> CregraphError:
    with pytest.raises(CregraphError) as caught:
        call()
    return caught.value


@pytest.fixture
def sources(tmp_path: Path) -> ConfiguredSources:
    (tmp_path / "project" / "own").mkdir(parents=True)
    (tmp_path / "files").mkdir()
    return ConfiguredSources(
        kinds=KINDS,
        store=Store(tmp_path / "store"),
        routes=read_routes("url: {'https://files.invalid/': ./files/}", name="sources.yaml", folder=tmp_path),
        local=Local(project=tmp_path / "project", shipped=tmp_path / "shipped"),
    )


def given(tmp_path: Path, **more: Any) -> PinContext:
    return PinContext(project=tmp_path / "project", shipped=tmp_path / "shipped", **more)


def pinned(module: Any, sources: ConfiguredSources, tmp_path: Path, *asked: Ask, **more: Any) -> Target:
    (target,) = group(asked, KINDS)
    return cast(Target, module.pin(target, cast(Sources, sources), given(tmp_path, **more)))


@dataclass
class Bytes:
    """The input of a segment."""

    file: Path
    held: list[IO[bytes]] = field(default_factory=list)

    def path(self) -> Path:
        return self.file

    def scratch(self) -> IO[bytes]:
        self.held.append(io.BytesIO())
        return self.held[-1]


def content(module: Any, sources: ConfiguredSources, segment: Segment) -> dict[str, tuple[str, int, int, Any]]:
    """What the segment holds: path to (type, mode, uid, content or link), written and read back."""
    source = Bytes(sources.store.path_of(segment.artifact.sha256) if segment.artifact else Path("none"))
    record = segments_of.write(module.entries(segment, source), sources.store, segment.key, 1)
    return {row.path: (row.type, row.mode, row.uid, row.what) for row in segments_of.index(sources.store, record)}


# -- steps ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"at": "/a"}, "own.yaml:1: steps[0]: a file step needs one of `from`, `text` and `link`, not none"),
        (
            {"at": "/a", "text": "x", "link": "/y"},
            "own.yaml:1: steps[0]: a file step needs one of `from`, `text` and `link`, not text and link",
        ),
        ({"at": "a", "text": ""}, "own.yaml:2: steps[0].at: `a` is not an absolute path of a file in the image"),
        (
            {"at": ["/ok", "/a/../b"], "text": ""},
            "own.yaml:2: steps[0].at: `/a/../b` is not an absolute path of a file in the image",
        ),
        ({"at": "/a/", "text": ""}, "own.yaml:2: steps[0].at: `/a/` is not an absolute path of a file in the image"),
        ({"at": "/", "text": ""}, "own.yaml:2: steps[0].at: `/` is not an absolute path of a file in the image"),
        ({"at": "/a//b", "text": ""}, "own.yaml:2: steps[0].at: `/a//b` is not an absolute path of a file in the image"),
        ({"at": "/a\nb", "text": ""}, "own.yaml:2: steps[0].at: `/a\nb` is not an absolute path of a file in the image"),
        ({"at": "/a", "text": "", "mode": "rwx"}, "own.yaml:2: steps[0].mode: mode: `rwx` is not a file mode"),
        ({"at": "/a", "text": "", "mode": "4755"}, "own.yaml:2: steps[0].mode: mode: `4755` is not a file mode"),
        ({"at": "/a", "text": "", "mode": "0999"}, "own.yaml:2: steps[0].mode: mode: `0999` is not a file mode"),
    ],
)
def test_a_file_step_that_says_too_little_or_too_much_is_refused(fields: Mapping[str, Any], message: str) -> None:
    assert refusal(lambda: asks(file, **fields)).message == message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://h/x", "own.yaml:2: steps[0].url: url: `ftp://h/x` is not an http(s) address"),
        ("./x", "own.yaml:2: steps[0].url: url: `./x` is not an http(s) address"),
        ("https://", "own.yaml:2: steps[0].url: url: `https://` is not an http(s) address"),
        ("https://[::1/x", "own.yaml:2: steps[0].url: url: `https://[::1/x` is not an http(s) address"),
        ("https://u:secret@h:port/x", "own.yaml:2: steps[0].url: url: `https://…@h:port/x` is not an http(s) address"),
    ],
)
def test_an_archive_comes_from_the_web(url: str, message: str) -> None:
    assert refusal(lambda: asks(archive, url=url, at="/opt/x")).message == message


def test_a_file_comes_to_lie_at_each_of_its_places_with_its_mode_and_owner(sources: ConfiguredSources, tmp_path: Path) -> None:
    (tmp_path / "project" / "own" / "x.py").write_text("x")
    (asked,) = asks(file, at=["/home/jupyter/x.py", "/bin/x.py"], **{"from": "./own/x.py"}, mode="0755", owner="jupyter")
    target = pinned(file, sources, tmp_path, asked)
    assert [(p.name, p.artifact.sha256, p.asked) for p in target.pins] == [("./own/x.py", sha256(b"x"), ("own: ./own/x.py",))]
    segments = file.place(target, ground(target, bin="usr/bin")).segments
    found: dict[str, Any] = {}
    for each in segments:
        found |= content(file, sources, each)
    row = ("file", 0o755, 1000, sha256(b"x"))
    assert found == {"home/jupyter/x.py": row, "usr/bin/x.py": row}, "through the base's link"


def test_a_folder_texts_and_links_come_to_lie_where_they_are_asked(sources: ConfiguredSources, tmp_path: Path) -> None:
    own = tmp_path / "project" / "own"
    (own / "deep").mkdir()
    (own / "a").write_text("a")
    (own / "deep" / "b").write_text("b")
    asked = [
        *asks(file, at="/opt/own", **{"from": "./own"}),
        *asks(file, at="/opt/VERSION", text="v1\n"),
        *asks(file, at="/opt/link", link="/elsewhere"),
    ]
    target = pinned(file, sources, tmp_path, *asked)
    found: dict[str, Any] = {}
    for each in file.place(target, ground(target)).segments:
        found |= content(file, sources, each)
    assert found == {
        "opt/own/a": ("file", 0o644, 0, sha256(b"a")),
        "opt/own/deep/b": ("file", 0o644, 0, sha256(b"b")),
        "opt/VERSION": ("file", 0o644, 0, sha256(b"v1\n")),
        "opt/link": ("symlink", 0o777, 0, "/elsewhere"),
    }


def test_a_link_at_the_place_that_it_leads_to_is_not_asked_for() -> None:
    assert asks(file, at="/root/micromamba", link="/root/micromamba") == ()
    (other,) = asks(file, at=["/root/micromamba", "/opt/micromamba"], link="/root/micromamba")
    assert other.what == {"at": ["/opt/micromamba"], "link": "/root/micromamba"}


def test_a_file_that_two_steps_ask_for_is_placed_once(sources: ConfiguredSources, tmp_path: Path) -> None:
    asked = [*asks(file, at="/root/x", text="v1\n", owner="root"), *asks(file, at="/root/x", text="v1\n")]
    target = pinned(file, sources, tmp_path, *asked)
    assert [one.name for one in file.place(target, ground(target)).segments] == ["/root/x"]


@pytest.mark.parametrize("module", [file, archive])
def test_an_owner_whom_the_base_does_not_know_and_links_that_lead_nowhere_are_refused(
    module: Any, sources: ConfiguredSources, tmp_path: Path
) -> None:
    (tmp_path / "files" / "a.tar.gz").write_bytes(b"plain")
    more = {"text": "x"} if module is file else {"url": URL}
    where = "own.yaml:2: steps[0]." + ("at" if module is file else "url")
    stranger = pinned(module, sources, tmp_path, *asks(module, at="/opt/x", owner="nobody", **more))
    error = refusal(lambda: module.place(stranger, ground(stranger)))
    assert (error.message, error.hint) == (
        f"{where}: owner: the base has no user `nobody`",
        "use one of its users: jupyter, root, …",
    )
    target = pinned(module, sources, tmp_path, *asks(module, at="/loop/x", **more))
    error = refusal(lambda: module.place(target, ground(target, loop="/loop/again")))
    assert error.message == f"{where}: /loop/x runs through a loop of symbolic links in the base image"
    above = refusal(lambda: module.place(target, ground(target, loop="../..")))
    assert above.message == f"{where}: /loop/x leads above the root in the base image"


@pytest.mark.parametrize("module", [file, archive])
def test_a_lock_without_the_pin_is_refused_with_the_command_to_run(module: Any) -> None:
    more = {"from": "./own/x.py"} if module is file else {"url": URL}
    (target,) = group(asks(module, at="/opt/x", **more), KINDS)
    error = refusal(lambda: module.place(target, ground(target)))
    what = "`./own/x.py`" if module is file else URL
    where = "own.yaml:2: steps[0]." + ("from" if module is file else "url")
    assert (error.message, error.hint) == (f"the lock has no pin of {what}, but {where} asks for it", "run `cregraph lock`")


# -- archives ------------------------------------------------------------------------------------------------------------------


def tar(*members: tuple[str, bytes | tuple[bytes, str]], **headers: str) -> bytes:
    """A tar: a name with bytes is a file, with (type, link) something else."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive_:
        for name, what in members:
            info = tarfile.TarInfo(name)
            info.pax_headers = dict(headers)
            if isinstance(what, bytes):
                info.size = len(what)
                archive_.addfile(info, io.BytesIO(what))
            else:
                info.type, info.linkname = what
                archive_.addfile(info)
    return out.getvalue()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive_:
        for name, data in members:
            archive_.writestr(name, data)
    return out.getvalue()


def info(name: str, mode: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = 3, mode << 16
    return made


@contextmanager
def served(
    sources: ConfiguredSources, tmp_path: Path, data: bytes
) -> Iterator[Callable[..., dict[str, tuple[str, int, int, Any]]]]:
    """What an archive of these bytes puts below a place."""
    (tmp_path / "files" / "a.tar.gz").write_bytes(data)

    def unpacked(at: str = "/opt/x", **more: Any) -> dict[str, tuple[str, int, int, Any]]:
        target = pinned(archive, sources, tmp_path, *asks(archive, url=URL, at=at, **more))
        (segment,) = archive.place(target, ground(target)).segments
        return content(archive, sources, segment)

    yield unpacked


TREE = tar(
    ("./", (tarfile.DIRTYPE, "")), ("./d/a", b"a"), ("d/l", (tarfile.SYMTYPE, "../d/a")), ("d/h", (tarfile.LNKTYPE, "./d/a"))
)


@pytest.mark.parametrize(
    "press", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress], ids=["plain", "gz", "bz2", "xz", "zst"]
)
def test_a_tar_is_unpacked_however_it_is_compressed(
    sources: ConfiguredSources, tmp_path: Path, press: Callable[[bytes], bytes]
) -> None:
    with served(sources, tmp_path, press(TREE)) as unpacked:
        assert unpacked(owner="jupyter") == {
            "opt/x/d/a": ("file", 0o644, 1000, sha256(b"a")),
            "opt/x/d/h": ("hardlink", 0o644, 1000, "opt/x/d/a"),
            "opt/x/d/l": ("symlink", 0o777, 1000, "../d/a"),
        }


def test_a_zip_is_unpacked(sources: ConfiguredSources, tmp_path: Path) -> None:
    data = zipped((info("d/", 0o40755), b""), (info("d/a", 0o100755), b"a"), ("b", b"b"), (info("l", 0o120777), b"d/a"))
    with served(sources, tmp_path, data) as unpacked:
        assert unpacked() == {
            "opt/x/b": ("file", 0o644, 0, sha256(b"b")),
            "opt/x/d/a": ("file", 0o755, 0, sha256(b"a")),
            "opt/x/l": ("symlink", 0o777, 0, "d/a"),
        }


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (gzip.compress(b"a tool"), b"a tool"),
        (b"\x7fELF a tool", b"\x7fELF a tool"),
        (b"", b""),
        (bytes(20_000), bytes(20_000)),
        (gzip.compress(bytes(20_000)), bytes(20_000)),
        (bz2.compress(b"a tool"), bz2.compress(b"a tool")),
        (b"PK no zip", b"PK no zip"),
    ],
)
def test_a_single_file_lies_at_its_place_inflated_when_it_is_gzip(
    sources: ConfiguredSources, tmp_path: Path, data: bytes, expected: bytes
) -> None:
    """Zeros are a tar without a member to tarfile; to a person they are a file."""
    with served(sources, tmp_path, data) as unpacked:
        assert unpacked(mode="0755") == {"opt/x": ("file", 0o755, 0, sha256(expected))}


def test_several_places_are_several_segments_of_one_download(sources: ConfiguredSources, tmp_path: Path) -> None:
    (tmp_path / "files" / "a.tar.gz").write_bytes(TREE)
    target = pinned(
        archive, sources, tmp_path, *asks(archive, url=URL, at=["/opt/y", "/opt/x"]), *asks(archive, url=URL, at="/z")
    )
    assert [(p.name, p.data, p.asked) for p in target.pins] == [(URL, {"form": "tar"}, (f"own: {URL}",))]
    placed = archive.place(target, ground(target))
    assert [s.place["at"] for s in placed.segments] == ["/opt/x", "/opt/y", "/z"]
    assert len({s.key for s in placed.segments}) == 3


def test_what_is_pinned_is_not_asked_for_again(sources: ConfiguredSources, tmp_path: Path) -> None:
    (tmp_path / "files" / "a.tar.gz").write_bytes(TREE)
    asked = asks(archive, url=URL, at="/opt/x")
    first = pinned(archive, sources, tmp_path, *asked)
    (tmp_path / "files" / "a.tar.gz").unlink()
    assert pinned(archive, sources, tmp_path, *asked, locked=first.pins).pins == first.pins


def test_a_key_does_not_know_the_url(sources: ConfiguredSources) -> None:
    keys = set()
    for url in (URL, "https://elsewhere.invalid/b.tgz"):
        (target,) = group(asks(archive, url=url, at="/opt/x"), KINDS)
        artifact = Artifact(kind="url", source=url, file="", sha256="1" * 64, size=9)
        pin = Pin(name=url, version="", artifact=artifact, data={"form": "tar"})
        whole = replace(target, pins=(pin,))
        keys.add(archive.place(whole, ground(whole)).segments[0].key)
    assert len(keys) == 1


def _sparse() -> bytes:
    header = tarfile.TarInfo("holes")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 0
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def _damaged_zip() -> bytes:
    data = bytearray(zipped(("a", b"some text " * 50)))
    data[40] ^= 0xFF
    return bytes(data)


def _locked_zip() -> bytes:
    data = bytearray(zipped(("a", b"text")))
    data[6] |= 1  # "encrypted", in the local header and the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def _odd_zip() -> bytes:
    data = bytearray(zipped(("a", b"text")))
    data[8] = 99
    data[data.index(b"PK\1\2") + 10] = 99
    return bytes(data)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "climbs": (tar(("a/../../b", b"")), "`a/../../b` leads out of its folder"),
    "folder-climbs": (tar(("..", (tarfile.DIRTYPE, ""))), "`..` leads out of its folder"),
    "absolute": (tar(("/etc/passwd", b"")), "`/etc/passwd` leads out of its folder"),
    "backslash": (tar(("a\\b", b"")), "`a\\b` leads out of its folder"),
    "link-out": (tar(("d/l", (tarfile.SYMTYPE, "../../x"))), "`d/l` is a link to `../../x`, outside of its folder"),
    "link-absolute": (tar(("l", (tarfile.SYMTYPE, "/etc"))), "`l` is a link to `/etc`, outside of its folder"),
    "link-empty": (tar(("l", (tarfile.SYMTYPE, ""))), "`l` is a link to ``, outside of its folder"),
    "hardlink-out": (tar(("h", (tarfile.LNKTYPE, "../x"))), "`../x` leads out of its folder"),
    "device": (tar(("null", (tarfile.CHRTYPE, ""))), "`null` is a device or another special file"),
    "pipe": (tar(("pipe", (tarfile.FIFOTYPE, ""))), "`pipe` is a device or another special file"),
    "twice": (tar(("a", b"1"), ("./a", b"2")), "`a` is contained twice"),
    "sparse": (_sparse(), "`holes` is a sparse file, which cregraph does not read"),
    "not-utf-8": (
        tar(("caf\udce9", b"")),
        "`caf\\xe9` contains bytes that are not UTF-8, or control characters",
    ),
    "terminal": (tar(("a\x1b[2J", b"")), "`a\\x1b[2J` contains bytes that are not UTF-8, or control characters"),
    "cut": (gzip.compress(TREE)[:-20], "ends in the middle of its compressed bytes"),
    "zip-climbs": (zipped(("../a", b"")), "`../a` leads out of its folder"),
    "zip-absolute": (zipped(("/a", b"")), "`/a` leads out of its folder"),
    "zip-link-out": (zipped((info("l", 0o120777), b"../x")), "`l` is a link to `../x`, outside of its folder"),
    "zip-link-huge": (zipped((info("l", 0o120777), b"x" * 5000)), "`l` is a link of 5000 bytes"),
    "zip-device": (zipped((info("null", 0o020666), b"")), "`null` is a device or another special file"),
    "zip-twice": (zipped(("a", b"1"), ("./a", b"2")), "`opt/x/a` is contained twice"),
    "zip-locked": (_locked_zip(), "`a` is encrypted"),
    "zip-odd": (_odd_zip(), "`a` cannot be read: That compression method is not supported"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_must_not_be_unpacked_is_refused_by_its_member(
    sources: ConfiguredSources, tmp_path: Path, name: str
) -> None:
    data, message = HOSTILE[name]
    with served(sources, tmp_path, data) as unpacked:
        error = refusal(unpacked)
    assert error.message == f"{URL}: {message}"
    assert not (tmp_path / "store" / "segments").exists()


def test_a_zip_that_is_damaged_is_refused(sources: ConfiguredSources, tmp_path: Path) -> None:
    with served(sources, tmp_path, _damaged_zip()) as unpacked:
        assert refusal(unpacked).message.startswith(f"{URL}: `a` cannot be read: ")


def test_what_would_be_file_and_folder_at_once_is_refused(sources: ConfiguredSources, tmp_path: Path) -> None:
    with served(sources, tmp_path, tar(("a", b""), ("a/b", b""))) as unpacked:
        assert "opt/x/a" in refusal(unpacked).message


def test_bombs_are_refused(sources: ConfiguredSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds are 16 GiB and 500,000 members; smaller ones here, for the time that it takes."""
    for name in ("cregraph.kinds.archive.PACKAGE", "cregraph.formats.inflate.PACKAGE"):
        monkeypatch.setattr(name, replace(PACKAGE, members=10, bytes=1 << 20))
    big, many = bytes(2 << 20), [(f"m{n}", b"") for n in range(11)]
    for data, message in (
        (gzip.compress(big), f"{URL}: unpacks to more than 0 GiB"),
        (gzip.compress(tar(("a", big))), f"{URL}: unpacks to more than 0 GiB"),
        (tar(*many), f"{URL}: holds more than 10 members or 0 GiB"),
        (zipped(("a", big)), f"{URL} unpacks to more than 10 members or 0 GiB"),
        (zipped(*many), f"{URL} unpacks to more than 10 members or 0 GiB"),
    ):
        with served(sources, tmp_path, data) as unpacked:
            assert refusal(unpacked).message == message


def test_a_header_that_would_fill_the_memory_is_refused(sources: ConfiguredSources, tmp_path: Path) -> None:
    huge = tar(("a", b""), comment="x" * (3 << 20))
    with served(sources, tmp_path, tar(("first", b""))[:512] + huge) as unpacked:
        assert refusal(unpacked).message.startswith(f"{URL}: has an extended header of 3")


def test_a_form_that_is_none_is_refused(sources: ConfiguredSources, tmp_path: Path) -> None:
    with served(sources, tmp_path, TREE):
        target = pinned(archive, sources, tmp_path, *asks(archive, url=URL, at="/opt/x"))
    (segment,) = archive.place(target, ground(target)).segments
    odd = replace(segment, place={**segment.place, "form": "rar"})
    error = refusal(lambda: content(archive, sources, odd))
    assert (error.message, error.hint) == (f"{URL}: unknown form `rar` in the lock", "run `cregraph lock`")


@pytest.mark.parametrize(
    "what",
    [
        "text",
        {},
        {"at": "/a", "text": "x"},
        {"at": [], "text": "x"},
        {"at": [{}], "text": "x"},
        {"at": ["/opt/../etc/passwd"], "text": "x"},
        {"at": ["/a"], "text": 5},
        {"at": ["/a"], "text": "x", "link": "y"},
        {"at": ["/a"], "text": "x", "mode": "0644"},
        {"at": ["/a"], "text": "x", "mode": 0o100644},
        {"at": ["/a"], "text": "x", "owner": ["root"]},
    ],
)
def test_a_lock_edited_by_hand_is_refused_with_its_place(what: Any) -> None:
    (made,) = asks(file, at="/a", text="x")
    target = Target(kind="file", place="", options={}, asks=(replace(made, what=what),), pins=())
    assert "own.yaml:2: steps[0].at: " in refusal(lambda: file.place(target, ground())).message
