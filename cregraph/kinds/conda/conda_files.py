"""The files of a conda package at a prefix, as tar entries: the result of conda's linking.

The rules are conda's (conda/core/portability.py, conda/core/path_actions.py) and rattler's (rattler/install), which agree:
`info/paths.json` says which files hold the placeholder of the prefix and how to replace it; `site-packages/` and
`python-scripts/` of `noarch: python` packages move; `info/link.json` names entry points. Nothing is run and nothing is
compiled: link scripts (`bin/.NAME-post-link.sh`) are installed as files only, and there is no bytecode.

Modes are 0755 for what anyone may execute and 0644 for the rest. Empty folders are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cregraph.digest import Json
from cregraph.formats.untrusted_tar import leads_out
from cregraph.image.model.tar_entry import Entry, ancestors, from_bytes
from cregraph.kinds.base import Input
from cregraph.kinds.conda.conda_archive import Member, Package, check_path, open_package, refusal
from cregraph.plan.parts import Segment

__all__ = ["canonical_url", "entries", "files_at", "replace_binary", "replace_text"]

#: The placeholder of packages that name none (conda-build before 2).
_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
#: Linux reads so many bytes of a `#!` line; conda's MAX_SHEBANG_LENGTH.
_SHEBANG = 127
_SHEBANG_LINE = re.compile(rb"#! *(/(?:\\ |[^ \n\r\t])*)([^\n]*)")
_ENTRY_POINT = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.+-]*) *= *([A-Za-z_][\w.]*) *: *([A-Za-z_][\w.]*)")
_PATH_TYPES = ("hardlink", "softlink", "directory")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Listed:
    """A path as the package lists it."""

    type: str
    sha256: str | None = None
    size: int | None = None
    placeholder: str | None = None
    mode: Literal["text", "binary"] = "text"
    no_link: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Placed:
    """The source of a path at the prefix: a member, or the bytes of an entry point."""

    member: Member | None
    listed: _Listed | None = None
    script: bytes = b""


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    """Return the files of a package with its conda-meta record, or the environment's own file. Their content is read from
    `source.scratch()` files: use them before those are closed."""
    if segment.place.get("environment"):
        # conda and mamba take a folder for an environment if this file exists; it may be empty
        return iter((from_bytes(f"{segment.place['prefix'].strip('/')}/conda-meta/history", b""),))
    record = segment.place["record"]
    package = open_package(source.path(), source.scratch, f"{record['channel']}/{record['subdir']}/{record['fn']}")
    return files_at(package, segment.place)


def files_at(package: Package, place: Mapping[str, Json]) -> Iterator[Entry]:
    """Return the entries of a package and its conda-meta record, sorted by path.

    `place` is that of the package's segment (see conda.place): `prefix` where files go, `baked` what replaces the
    placeholder, `noarch`, `python` (`minor`, `site_packages`) for noarch Python, and the pin's `record`.
    Raises CregraphError naming package and path.
    """
    record = place["record"]
    _is_that(package, record)
    listed = _listing(package)
    _complete(package, listed)
    root = place["prefix"].strip("/")
    baked = place["baked"].encode()
    placed = _place_members(package, listed, place)
    _links_inside(package, placed)
    first_of = _first_names(placed)

    entries: list[Entry] = []
    told: list[dict[str, Json]] = []
    for path in sorted(placed):
        thing = placed[path]
        entry, about = _entry(package, f"{root}/{path}", thing, baked)
        first = first_of.get(path, path)
        if first != path:
            entry = Entry(path=entry.path, type="hardlink", mode=entry.mode, link=f"{root}/{first}")
        entries.append(entry)
        told.append({"_path": path, **about})
    meta = f"conda-meta/{record['name']}-{record['version']}-{record['build']}.json"
    if meta in placed:
        raise refusal(package.name, f"holds `{meta}`, which describes its installation")
    entries.append(from_bytes(f"{root}/{meta}", _conda_meta(record, told)))
    entries.sort(key=lambda e: e.path.encode())
    yield from entries


def _is_that(package: Package, record: Mapping[str, Json]) -> None:
    """Raise CregraphError unless the package is the one that the lock pins."""
    index = _json(package, "info/index.json")
    found = "-".join(str(index.get(key)) for key in ("name", "version", "build"))
    wanted = "-".join(str(record[key]) for key in ("name", "version", "build"))
    if found.lower() != wanted.lower():
        raise refusal(package.name, f"is {found} by its info/index.json (expected {wanted})")


def _json(package: Package, path: str) -> dict[str, Json]:
    if path not in package.info:
        raise refusal(package.name, f"has no `{path}`")
    try:
        value = json.loads(package.info[path])
    except (ValueError, RecursionError) as error:
        raise refusal(package.name, f"`{path}` is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise refusal(package.name, f"`{path}` is not a JSON object")
    return value


def _listing(package: Package) -> dict[str, _Listed]:
    """Return the paths in info/paths.json; for older packages, those in info/files with info/has_prefix."""
    if "info/paths.json" not in package.info:
        return _old_listing(package)
    rows = _json(package, "info/paths.json").get("paths")
    listed: dict[str, _Listed] = {}
    for row in rows if isinstance(rows, list) else [None]:
        if not isinstance(row, dict) or not isinstance(row.get("_path"), str) or row.get("path_type") not in _PATH_TYPES:
            raise refusal(package.name, "`info/paths.json` is not a list of paths with their types")
        path, placeholder, mode = row["_path"], row.get("prefix_placeholder"), row.get("file_mode") or "text"
        check_path(path, package.name)
        if path in listed:
            raise refusal(package.name, f"`info/paths.json` lists `{path}` twice")
        if mode not in ("text", "binary") or not isinstance(placeholder, str | None) or placeholder == "":
            raise refusal(package.name, f"`info/paths.json` has an invalid prefix for `{path}`")
        listed[path] = _Listed(
            type=row["path_type"],
            sha256=row.get("sha256"),
            size=row.get("size_in_bytes"),
            placeholder=placeholder,
            mode="binary" if mode == "binary" else "text",
            no_link=row.get("no_link") is True,
        )
    return listed


def _old_listing(package: Package) -> dict[str, _Listed]:
    def lines(path: str) -> list[str]:
        try:
            return [line.strip() for line in package.info.get(path, b"").decode().splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise refusal(package.name, f"`{path}` is not UTF-8") from error

    if "info/files" not in package.info:
        raise refusal(package.name, "has neither `info/paths.json` nor `info/files`")
    prefixes: dict[str, tuple[str, str]] = {}
    for line in lines("info/has_prefix"):
        try:
            words = [word.strip("\"'") for word in shlex.split(line, posix=False)]
        except ValueError:
            words = []
        if len(words) == 1:
            prefixes[words[0]] = (_OLD_PLACEHOLDER, "text")
        elif len(words) == 3 and words[0] and words[1] in ("text", "binary"):
            prefixes[words[2]] = (words[0], words[1])
        else:
            raise refusal(package.name, f"`info/has_prefix` has an invalid line: {line!r}")
    unlinked = set(lines("info/no_link"))
    listed = {}
    for path in lines("info/files"):
        member = package.members.get(path)
        placeholder, mode = prefixes.get(path, (None, "text"))
        listed[path] = _Listed(
            type="softlink" if member and member.type == "symlink" else "hardlink",
            placeholder=placeholder,
            mode="binary" if mode == "binary" else "text",
            no_link=path in unlinked,
        )
    return listed


def _complete(package: Package, listed: Mapping[str, _Listed]) -> None:
    """Raise CregraphError unless the package holds exactly the listed paths, with the listed types and bytes."""
    for path in sorted(package.members.keys() - listed.keys()):
        raise refusal(package.name, f"contains `{path}`, which it does not list")
    for path, row in sorted(listed.items()):
        member = package.members.get(path)
        if row.type == "directory":
            if member is not None:
                raise refusal(package.name, f"lists `{path}` as a folder, but it is a {member.type}")
            continue
        if member is None:
            raise refusal(package.name, f"lists `{path}`, but does not contain it")
        if (row.type == "softlink") != (member.type == "symlink"):
            raise refusal(package.name, f"lists `{path}` as a {row.type}, but it is a {member.type}")
        if member.type == "symlink":
            continue
        if row.sha256 is not None and row.sha256 != member.sha256:
            raise refusal(package.name, f"`{path}` has sha256:{member.sha256}, but the package lists sha256:{row.sha256}")
        if row.size is not None and row.size != member.size:
            raise refusal(package.name, f"`{path}` has {member.size} bytes, but the package lists {row.size}")


def _place_members(package: Package, listed: Mapping[str, _Listed], place: Mapping[str, Json]) -> dict[str, _Placed]:
    """Return every path at the prefix. `noarch: python` moves some and adds the entry points."""
    python = place["python"] if place["noarch"] == "python" else None
    placed: dict[str, _Placed] = {}

    def put(path: str, thing: _Placed) -> None:
        if path in placed:
            raise refusal(package.name, f"two of its files have the path `{path}`")
        placed[path] = thing

    for path, member in package.members.items():
        put(_moved(path, python), _Placed(member=member, listed=listed[path]))
    if python is not None and "info/link.json" in package.info:
        noarch = _json(package, "info/link.json").get("noarch")
        points = noarch.get("entry_points") if isinstance(noarch, dict) else None
        for text in points or []:
            match = _ENTRY_POINT.fullmatch(text.strip()) if isinstance(text, str) else None
            if match is None:
                raise refusal(package.name, f"the entry point {text!r} is not `name = module:function`")
            put(f"bin/{match[1]}", _Placed(member=None, script=_script(match, place["baked"], python["minor"])))
    for path in placed:
        for parent in ancestors(path):
            if parent in placed:
                raise refusal(package.name, f"`{parent}` would be a file or link and a folder as well")
    return placed


def _moved(path: str, python: Mapping[str, str] | None) -> str:
    if python is not None:
        head, slash, rest = path.partition("/")
        if slash and head == "site-packages":
            return f"{python['site_packages']}/{rest}"
        if slash and head == "python-scripts":
            return f"bin/{rest}"
    return path


def _script(match: re.Match[str], prefix: str, minor: str) -> bytes:
    """Return an entry point as conda writes it. Source: conda/core/path_actions.py, conda/gateways/disk/create.py."""
    interpreter = f"{prefix}/bin/python{minor}"
    first = f"#!{interpreter}\n"
    if len(first.encode()) > _SHEBANG:
        first = f"#!/bin/sh\n'''exec' \"{interpreter}\" \"$0\" \"$@\"\n' '''\n"
    module, function = match[2], match[3]
    return (
        f"{first}# -*- coding: utf-8 -*-\nimport re\nimport sys\n\n"
        f"from {module} import {function.partition('.')[0]}\n\n"
        "if __name__ == '__main__':\n"
        "    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])\n"
        f"    sys.exit({function}())\n"
    ).encode()


def _links_inside(package: Package, placed: Mapping[str, _Placed]) -> None:
    """Raise CregraphError for a symbolic link that leads out of the prefix from its final place."""
    for path, thing in placed.items():
        if thing.member is not None and thing.member.type == "symlink" and leads_out(path, thing.member.link):
            raise refusal(package.name, f"the link `{path}` leads out of the prefix, to `{thing.member.link}`")


def _first_names(placed: Mapping[str, _Placed]) -> dict[str, str]:
    """Return for each path that shares its bytes by hard links the first of them in order, which holds the bytes.

    Names whose placeholders differ become different bytes, so they do not share.
    """
    first: dict[tuple[str, str | None, str], str] = {}
    of: dict[str, str] = {}
    for path in sorted(placed):
        thing = placed[path]
        if thing.member is None or thing.listed is None or thing.member.type == "symlink":
            continue
        origin = thing.member.link or thing.member.path
        of[path] = first.setdefault((origin, thing.listed.placeholder, thing.listed.mode), path)
    return of


def _entry(package: Package, path: str, thing: _Placed, prefix: bytes) -> tuple[Entry, dict[str, Json]]:
    """Return an entry, and its row in conda-meta."""
    member, listed = thing.member, thing.listed
    if member is None or listed is None:
        about: dict[str, Json] = {"path_type": "unix_python_entry_point"}
        about |= {"sha256_in_prefix": hashlib.sha256(thing.script).hexdigest(), "size_in_bytes": len(thing.script)}
        return from_bytes(path, thing.script, mode=0o755), about
    if member.type == "symlink":
        about = {"path_type": "softlink"}
        if listed.sha256 is not None:
            about["sha256"] = listed.sha256
        return Entry(path=path, type="symlink", mode=0o777, link=member.link), about
    mode = 0o755 if member.executable else 0o644
    about = {"path_type": "hardlink", "sha256": member.sha256, "sha256_in_prefix": member.sha256, "size_in_bytes": member.size}
    if listed.no_link:
        about["no_link"] = True
    if not listed.placeholder:
        return Entry(path=path, mode=mode, size=member.size, chunks=lambda: package.chunks(member), sha256=member.sha256), about
    placeholder, binary = listed.placeholder, listed.mode == "binary"
    if binary and len(prefix) > len(placeholder.encode()):
        raise refusal(
            package.name,
            f"`{member.path}` has space for a prefix of {len(placeholder.encode())} bytes, `{placeholder}`,"
            f" but `{prefix.decode()}` has {len(prefix)}",
        )

    def replaced() -> bytes:
        change = replace_binary if binary else replace_text
        return change(b"".join(package.chunks(member)), placeholder.encode(), prefix)

    # The content is made twice: here for length and digest, later for the bytes. Kept content would fill the memory.
    content = replaced()
    about["sha256_in_prefix"] = hashlib.sha256(content).hexdigest()
    about |= {"file_mode": listed.mode, "prefix_placeholder": placeholder}
    return Entry(path=path, mode=mode, size=len(content), chunks=lambda: (replaced(),)), about


def replace_text(data: bytes, placeholder: bytes, prefix: bytes) -> bytes:
    """Return `data` with the placeholder replaced. A `#!` line that Linux would cut off goes through /usr/bin/env."""
    data = data.replace(placeholder, prefix)
    match = _SHEBANG_LINE.match(data)
    if match and len(match[0]) > _SHEBANG:
        program = match[1].rpartition(b"/")[2]
        data = b"#!/usr/bin/env " + program + match[2] + data[match.end() :]
    return data


def replace_binary(data: bytes, placeholder: bytes, prefix: bytes) -> bytes:
    """Return `data` with the placeholder replaced in C strings, each padded with NUL to its old length."""
    at = data.find(placeholder)
    if at < 0:
        return data
    out: list[bytes] = []
    done = 0
    while at >= 0:
        end = data.find(b"\0", at + len(placeholder))
        end = len(data) if end < 0 else end
        text = data[at:end].replace(placeholder, prefix)
        out += [data[done:at], text, b"\0" * (end - at - len(text))]
        done = end
        at = data.find(placeholder, end)
    out.append(data[done:])
    return b"".join(out)


def canonical_url(channel: str, subdir: str, file: str) -> str:
    """Return the address that conda gives to a channel by its name. The address of a mirror never gets into an image."""
    root = "https://repo.anaconda.com" if channel.startswith("pkgs/") else "https://conda.anaconda.org"
    return f"{root}/{channel}/{subdir}/{file}"


def _conda_meta(record: Mapping[str, Json], told: list[dict[str, Json]]) -> bytes:
    """Return the record by which conda, mamba and rattler know an installed package: no specs, no cache folders, no mirror."""
    meta = {
        **record,
        "constrains": record.get("constrains", []),
        "url": canonical_url(record["channel"], record["subdir"], record["fn"]),
        "files": [row["_path"] for row in told],
        "paths_data": {"paths_version": 1, "paths": told},
    }
    return json.dumps(meta, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n"
