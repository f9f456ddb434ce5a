"""A file from a URL: a tar or zip unpacked into a folder, a gzipped file inflated, or the bytes as they are.

    - archive:
        url: https://extensions.example/v1.4.1/linux_amd64/httpfs.duckdb_extension.gz
        at: [/root/.duckdb/httpfs.duckdb_extension]      # of one file: its path;  of a tar or zip: the folder
        mode: "0755"                                     # of a single file
        owner: jupyter

The sha256 of the bytes is pinned. Nothing is unpacked to disk; hostile names, links, devices and bombs are refused.
"""

from __future__ import annotations

import functools
import posixpath
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_as_file, inflated_file, part, part_of
from cregraph.formats.untrusted_tar import PACKAGE, Reader, is_tar, leads_out
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds import defaults
from cregraph.kinds.base import Input, PinContext, PlaceContext
from cregraph.kinds.image_paths import places_asked, places_of, shown_at
from cregraph.lock.pins import Ask, Pin, Target
from cregraph.lock.rules import Offers
from cregraph.plan.parts import Placement, Segment, segment
from cregraph.profile.step import Step
from cregraph.sources.protocol import Sources
from cregraph.sources.routes import is_web_address
from cregraph.text import printable, redacted

NAME = "archive"
ECOSYSTEM = NAME
PARTS = {"entries": "archive"}
FIELDS: Mapping[str, tuple[str, bool]] = {
    "url": ("text", True),
    "at": ("paths", True),
    "mode": ("text", False),
    "owner": ("text", False),
}

projection = defaults.places

_BLOCK = 1 << 20
#: Bytes of a symbolic link in a zip.
_LINK = 4096


def ask(step: Step) -> Sequence[Ask]:
    url = step.fields["url"]
    if not is_web_address(url):
        raise CregraphError(f"{step.place_of('url')}: url: `{redacted(url)}` is not an http(s) address")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise CregraphError(
            f"{step.place_of('url')}: url: `{redacted(url)}` contains a user or password, which the lock must not contain",
            hint="write them to ~/.netrc, or to an address under `url` in sources.yaml",
        )
    what = {"url": url, **places_asked(step)}
    return (Ask(kind=NAME, place="", stage=step.stage, what=what, where=step.place_of("url")),)


def ask_text(what: Json) -> str:
    """Return the `url` of an ask, as pins repeat it."""
    return defaults.ask_text(what.get("url") if isinstance(what, Mapping) else what)


def shown(what: Json) -> str:
    """Return what is put where; with several places, the first."""
    return shown_at(ask_text(what), defaults.fields(what))


def problems(target: Target, offers: Offers) -> list[str]:
    """Return a sentence for each URL that has no pin."""
    return defaults.unanswered(target, lambda what: ask_text(what) or None)


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    """Return a pin for each URL. A locked one stays, and its URL is not asked."""
    kept = {p.name: p for p in context.locked}
    pins: dict[str, Pin] = {}
    for ask in target.asks:
        url = ask.what["url"]
        text = f"{ask.stage}: {url}"
        old = pins.get(url)
        if old is not None:
            pins[url] = replace(old, asked=tuple(sorted({text, *old.asked})))
        elif url in kept:
            pins[url] = replace(kept[url], asked=(text,))
        else:
            artifact, path = sources.take(kind="url", source=url, file="")
            pins[url] = Pin(name=url, version="", artifact=artifact, asked=(text,), data={"form": form_of(path)})
    return replace(target, pins=tuple(pins.values()))


def place(target: Target, context: PlaceContext) -> Placement:
    pins = {p.name: p for p in target.pins}
    segments = []
    for ask in target.asks:
        found = pins.get(ask.what["url"])
        if found is None:
            raise CregraphError(
                f"the lock has no pin of {ask.what['url']}, but {ask.where} asks for it", hint="run `cregraph lock`"
            )
        for at, where in places_of(ask, context.facts):
            place_ = {**where, "form": found.data.get("form")}
            segments.append(segment(context.assembly, target, stage=ask.stage, name=at, place=place_, source=found.artifact))
    return Placement(segments=tuple(segments))


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    """Return the archive's files and links below its folder, or its one file. Raise CregraphError with archive and member."""
    place = segment.place
    at, uid, gid = place["at"].lstrip("/"), place["uid"], place["gid"]
    what = segment.artifact.source if segment.artifact else segment.name
    scratch = source.scratch()
    form = place["form"]
    if form in ("gzip", "plain"):
        path = source.path()
        if form == "gzip":
            scratch.writelines(inflated_file(path, what=what))
            size = scratch.tell()
            chunks = functools.partial(part, scratch, 0, size)
        else:
            size = path.stat().st_size
            chunks = functools.partial(part_of, path, 0, size)
        yield Entry(path=at, mode=place.get("mode", 0o644), uid=uid, gid=gid, size=size, chunks=chunks)
    elif form == "zip":
        yield from _zip(source.path(), at, uid, gid, what)
    elif form == "tar":
        scratch.writelines(inflated_file(source.path(), what=what))
        yield from _tar(scratch, at, uid, gid, what)
    else:
        raise CregraphError(f"{what}: unknown form `{form}` in the lock", hint="run `cregraph lock`")


def form_of(path: Path) -> str:
    """Return `tar`, `zip`, `gzip` (one inflated file) or `plain`, by the bytes. A tar without a member is none."""
    with path.open("rb") as file:
        magic = file.read(2)
    if magic == b"PK" and zipfile.is_zipfile(path):
        return "zip"
    try:
        if is_tar(blocks_as_file(inflated_file(path, what="")).read(512)):
            return "tar"
    except (CregraphError, OSError):
        pass
    return "gzip" if magic == b"\x1f\x8b" else "plain"


def _tar(file: IO[bytes], at: str, uid: int, gid: int, what: str) -> Iterator[Entry]:
    file.seek(0)
    members = list(Reader(file, what=what, policy=PACKAGE))
    for member in members:
        path = f"{at}/{inside(member.name, what)}"
        mode = 0o755 if member.mode & 0o111 else 0o644
        if member.type == "file":
            chunks = functools.partial(part, file, member.offset, member.size)
            yield Entry(path=path, mode=mode, uid=uid, gid=gid, size=member.size, chunks=chunks)
        elif member.type == "symlink":
            link = link_inside(member.name, member.link, what)
            yield Entry(path=path, type="symlink", mode=0o777, uid=uid, gid=gid, link=link)
        elif member.type == "hardlink":
            yield Entry(path=path, type="hardlink", mode=mode, uid=uid, gid=gid, link=f"{at}/{inside(member.link, what)}")


def _zip(file: Path, at: str, uid: int, gid: int, what: str) -> Iterator[Entry]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CregraphError(f"{what} cannot be read as a zip: {error}") from None
    infos = archive.infolist()
    if len(infos) > PACKAGE.members or sum(info.file_size for info in infos) > PACKAGE.bytes:
        raise CregraphError(f"{what} unpacks to more than {PACKAGE.members} members or {PACKAGE.bytes >> 30} GiB")
    seen: set[str] = set()
    for info in infos:
        name = inside(info.filename, what)
        if info.is_dir():
            continue
        if name in seen:
            raise CregraphError(f"{what}: `{at}/{name}` is contained twice")
        seen.add(name)
        if info.flag_bits & 1:
            raise CregraphError(f"{what}: `{name}` is encrypted")
        bits = info.external_attr >> 16
        path = f"{at}/{name}"
        if stat.S_ISLNK(bits):
            if info.file_size > _LINK:
                raise CregraphError(f"{what}: `{name}` is a link of {info.file_size} bytes")
            link = link_inside(name, b"".join(_zip_chunks(archive, info, what)).decode("utf-8", "surrogateescape"), what)
            yield Entry(path=path, type="symlink", mode=0o777, uid=uid, gid=gid, link=link)
        elif stat.S_IFMT(bits) and not stat.S_ISREG(bits):
            raise CregraphError(f"{what}: `{name}` is a device or another special file")
        else:
            mode = 0o755 if bits & 0o111 else 0o644
            chunks = functools.partial(_zip_chunks, archive, info, what)  # holds the archive open until the entries are gone
            yield Entry(path=path, mode=mode, uid=uid, gid=gid, size=info.file_size, chunks=chunks)


def inside(name: str, what: str) -> str:
    """Return a member's normal path. Raise CregraphError with archive and member if it climbs or is absolute."""
    named = printable(name, 300)
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise CregraphError(f"{what}: `{named}` leads out of its folder")
    if not name.isprintable() or len(name) > 300:
        raise CregraphError(f"{what}: `{named}` contains bytes that are not UTF-8, or control characters")
    path = posixpath.normpath(name.rstrip("/") or ".")
    return "" if path == "." else path


def link_inside(name: str, link: str, what: str) -> str:
    """Return a symbolic link's text. Raise CregraphError if it leads out of the archive's folder."""
    named = printable(name, 300)
    if not link or leads_out(name, link) or not link.isprintable() or len(link) > 300:
        raise CregraphError(f"{what}: `{named}` is a link to `{printable(link, 300)}`, outside of its folder")
    return link


def _zip_chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> Iterator[bytes]:
    try:
        with archive.open(info) as reader:
            while block := reader.read(_BLOCK):
                yield block
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:  # NotImplementedError is a RuntimeError
        raise CregraphError(f"{what}: `{info.filename}` cannot be read: {error}") from None
