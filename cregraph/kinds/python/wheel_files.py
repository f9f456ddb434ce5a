"""A wheel's files at their places, as an installer that follows the specification puts them.

The binary distribution format (https://packaging.python.org/specifications/binary-distribution-format/) says where files go, the
entry points specification which scripts are made, "Recording installed projects" what dist-info holds. Every file is
checked against the wheel's own RECORD while it is read. No bytecode is made: assembly 1 leaves that to the interpreter.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import csv
import functools
import hashlib
import io
import posixpath
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import Entry, ancestors, from_bytes
from cregraph.kinds.base import Input
from cregraph.plan.parts import Segment

__all__ = ["entries", "wheel_entries"]

_BLOCK = 1 << 20
#: Bytes of all files, files, bytes of a file that is read whole. The largest real wheels unpack to 3 GB.
_UNPACKED = 16 << 30
_FILES = 200_000
_WHOLE = 64 << 20
#: The most bytes that deflate can make of one, rounded up. A wheel that states more shares data between its files.
_RATIO = 1100
#: The longest first line that the kernel reads, in bytes.
_SHEBANG = 127

_ENTRY_POINT = re.compile(r"([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_][\w.]*)\s*(?:\[[^\]]*\])?")
_SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*")
_CALL = """\
import re
import sys
from {module} import {imported}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit({call}())
"""


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    assert segment.artifact is not None
    return wheel_entries(source.path(), name=segment.artifact.file.rsplit("/", 1)[-1], places=segment.place)


def wheel_entries(file: Path | IO[bytes], *, name: str, places: Mapping[str, str]) -> Iterator[Entry]:
    """Return the entries of the wheel in `file`, whose file name is `name`. Chunks read from `file`: keep it open.

    `places` are absolute paths of the image: `site_packages` for both libraries, `scripts` for programs, `prefix`, and the
    `executable` that runs scripts. Its `python` is the minor version (`3.11`).

    Raises CregraphError naming the wheel and the member for what must not be installed: paths that climb or are absolute,
    links, repeated names, decompression bombs, files that RECORD does not list or lists with another digest.
    """
    return _Wheel(file, name, places).entries()


class _Wheel:
    def __init__(self, file: Path | IO[bytes], name: str, places: Mapping[str, str]) -> None:
        self._name = name
        self._places = places
        match = re.fullmatch(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl", name)
        if match is None:
            raise CregraphError(f"`{name[:200]}` is not the file name of a wheel (expected name-version-python-abi-platform.whl)")
        self._stem = (_folded(match.group(1)), _folded(match.group(2)))
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise CregraphError(f"{name} cannot be read as a wheel: {error}") from None
        self._members = self._checked()
        self._info = self._dist_info()
        self._recorded = self._read_record()

    def entries(self) -> Iterator[Entry]:
        self._check_version()
        rows: dict[str, tuple[str, str]] = {}  # path in the image -> (hash, size) as RECORD writes them
        taken: dict[str, str] = {}

        def at(path: str, member: str) -> str:
            path = path.lstrip("/")
            if taken.setdefault(path, member) != member:
                raise self._bad(member, f"and `{taken[path]}` have the same path /{path}")
            return path

        skipped = {f"{self._info}/{n}" for n in ("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER")}
        for member, info in self._members.items():
            if member in skipped:
                continue
            place, is_script = self._place(member)
            path = at(place, member)
            recorded = self._recorded.get(member)
            if recorded is None:
                raise self._bad(member, "is not listed in its RECORD")
            if is_script and self._is_python(member):
                _, newline, rest = self._whole(member).partition(b"\n")
                data = self._first_line().encode() + (rest if newline else b"")
                rows[path] = _row(data)
                yield from_bytes(path, data, mode=0o755)
                continue
            rows[path] = ("=".join(recorded), str(info.file_size))
            mode = 0o755 if is_script or (info.external_attr >> 16) & 0o111 else 0o644
            yield Entry(path=path, mode=mode, size=info.file_size, chunks=functools.partial(self._stream, member))
        for script, text in self._entry_points():
            path = at(f"{self._places['scripts']}/{script}", f"entry point {script}")
            data = text.encode()
            rows[path] = _row(data)
            yield from_bytes(path, data, mode=0o755)
        installer = at(f"{self._places['site_packages']}/{self._info}/INSTALLER", "INSTALLER")
        rows[installer] = _row(b"cregraph\n")
        yield from_bytes(installer, b"cregraph\n")
        record = at(f"{self._places['site_packages']}/{self._info}/RECORD", "RECORD")
        rows[record] = ("", "")
        yield from_bytes(record, self._record(rows))

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        """Return the files of the wheel by name. Raises CregraphError for members that must not be installed."""
        listed = self._zip.infolist()
        if len(listed) > _FILES:
            raise CregraphError(f"{self._name} holds {len(listed)} files (maximum {_FILES})")
        members: dict[str, zipfile.ZipInfo] = {}
        for info in listed:
            if info.filename in members:
                raise self._bad(info.filename, "is contained twice")
            if why := _refused(info):
                raise self._bad(info.filename, why)
            if not info.is_dir():
                members[info.filename] = info
        total = sum(info.file_size for info in members.values())
        packed = sum(info.compress_size for info in members.values())
        assert self._zip.fp is not None
        size = self._zip.fp.seek(0, io.SEEK_END)
        if total > _UNPACKED or total > _RATIO * size + _BLOCK or packed > size:
            raise CregraphError(f"{self._name} states an unpacked size of {total} bytes, which its {size} bytes cannot contain")
        for member in members:
            for above in ancestors(member):
                if above in members:
                    raise self._bad(above, f"is a file, and `{member}` lies below it")
        return members

    def _dist_info(self) -> str:
        found = sorted({m.split("/")[0] for m in self._members if m.split("/")[0].endswith(".dist-info")})
        mine = [
            f
            for f in found
            if (s := f.removesuffix(".dist-info").partition("-")) and (_folded(s[0]), _folded(s[2])) == self._stem
        ]
        if len(mine) != 1 or len(found) != 1:
            raise CregraphError(
                f"{self._name} holds {' and '.join(found) or 'no .dist-info'} (expected one with its own name and version)"
            )
        return mine[0]

    def _check_version(self) -> None:
        text = self._whole(f"{self._info}/WHEEL").decode("utf-8", "replace")
        version = "".join(re.findall(r"^Wheel-Version: *(.*?) *$", text, re.MULTILINE)[-1:])
        if version.split(".")[0] != "1":
            raise CregraphError(f"{self._name} has Wheel-Version `{version[:40]}`; cregraph installs version 1")

    def _read_record(self) -> dict[str, tuple[str, str]]:
        """Return the algorithm and digest of each file in RECORD."""
        listed: dict[str, tuple[str, str]] = {}
        text = self._whole(f"{self._info}/RECORD", checked=False).decode("utf-8", "replace")
        try:
            rows = list(csv.reader(io.StringIO(text)))
        except csv.Error as error:
            raise CregraphError(f"{self._name}: its RECORD is not readable: {error}") from None
        for row in rows:
            if len(row) < 3 or not row[1]:
                continue
            algorithm, _, digest = row[1].partition("=")
            if algorithm not in ("sha256", "sha384", "sha512"):
                raise self._bad(row[0], f"is listed in RECORD with `{algorithm[:20]}` (expected sha256 or better)")
            listed[row[0].replace("\\", "/")] = algorithm, digest.rstrip("=")
        return listed

    def _place(self, member: str) -> tuple[str, bool]:
        """Return where `member` goes, and whether it is a script."""
        top, _, inner = member.partition("/")
        if not top.endswith(".data"):
            return f"{self._places['site_packages']}/{member}", False
        name, _, version = top.removesuffix(".data").partition("-")
        if (_folded(name), _folded(version)) != self._stem:
            return f"{self._places['site_packages']}/{member}", False
        scheme, _, rest = inner.partition("/")
        if not rest:
            raise self._bad(member, "is not in a subfolder of the .data folder")
        if scheme in ("purelib", "platlib"):
            return f"{self._places['site_packages']}/{rest}", False
        if scheme == "scripts":
            if "/" in rest:
                raise self._bad(member, "is a script in a folder")
            return f"{self._places['scripts']}/{rest}", True
        if scheme == "data":
            return f"{self._places['prefix']}/{rest}", False
        if scheme == "headers":
            return f"{self._places['prefix']}/include/python{self._places['python']}/{name}/{rest}", False
        raise self._bad(member, "is in an unknown folder of the .data folder")

    def _stream(self, member: str) -> Iterator[bytes]:
        """Yield the member's bytes. The last block comes only after all bytes were checked against RECORD."""
        algorithm, digest = self._recorded[member]
        running = hashlib.new(algorithm, usedforsecurity=True)
        held = b""
        with self._reading(member), self._zip.open(self._members[member]) as file:
            while block := file.read(_BLOCK):
                running.update(block)
                if held:
                    yield held
                held = block
        found = base64.urlsafe_b64encode(running.digest()).decode().rstrip("=")
        if found != digest:
            raise self._bad(member, f"has {algorithm}={found}, but its RECORD says {algorithm}={digest}")
        if held:
            yield held

    def _whole(self, member: str, *, checked: bool = True) -> bytes:
        info = self._members.get(member)
        if info is None:
            raise CregraphError(f"{self._name} has no `{member}`, so it is not a wheel")
        if info.file_size > _WHOLE:
            raise self._bad(member, f"is {info.file_size} bytes (maximum {_WHOLE})")
        if not checked:
            with self._reading(member):
                return self._zip.read(info)
        if member not in self._recorded:
            raise self._bad(member, "is not listed in its RECORD")
        return b"".join(self._stream(member))

    def _is_python(self, member: str) -> bool:
        """Return whether a script begins with `#!python`. Programs, which can be large, stay as they are."""
        with self._reading(member), self._zip.open(self._members[member]) as file:
            return file.read(len(b"#!python")) == b"#!python"

    def _first_line(self) -> str:
        executable = self._places["executable"]
        if len(executable) + 2 <= _SHEBANG and " " not in executable:
            return f"#!{executable}\n"
        return f"#!/bin/sh\n'''exec' \"{executable}\" \"$0\" \"$@\"\n' '''\n"

    def _entry_points(self) -> Iterator[tuple[str, str]]:
        member = f"{self._info}/entry_points.txt"
        if member not in self._members:
            return
        parser = configparser.RawConfigParser(delimiters=("=",), strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
        try:
            parser.read_string(self._whole(member).decode("utf-8", "replace"))
        except configparser.Error as error:
            raise self._bad(member, f"is not readable: {str(error).splitlines()[0]}") from None
        for section in ("console_scripts", "gui_scripts"):
            for name, value in sorted(parser.items(section)) if parser.has_section(section) else ():
                match = _ENTRY_POINT.fullmatch(value.strip())
                if match is None or not _SCRIPT_NAME.fullmatch(name):
                    raise self._bad(member, f"states the script `{name[:80]} = {value[:80]}`, which is not an entry point")
                module, call = match.groups()
                yield name, self._first_line() + _CALL.format(module=module, imported=call.split(".")[0], call=call)

    def _record(self, rows: dict[str, tuple[str, str]]) -> bytes:
        """Return RECORD: paths below site-packages as they are, others relative to it, sorted."""
        root = self._places["site_packages"].lstrip("/")
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for path, (digest, size) in sorted((posixpath.relpath(p, root), row) for p, row in rows.items()):
            writer.writerow([path, digest, size])
        return out.getvalue().encode()

    @contextlib.contextmanager
    def _reading(self, member: str) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise self._bad(member, f"cannot be read: {error}") from None

    def _bad(self, member: str, why: str) -> CregraphError:
        return CregraphError(f"{self._name}: `{member[:200]}` {why}")


def _refused(info: zipfile.ZipInfo) -> str | None:
    """Return why a member must not be installed; None if it may."""
    name = info.filename
    if name.startswith("/") or "\\" in name or any(part in ("", ".", "..") for part in name.rstrip("/").split("/")):
        return "leads out of the wheel, or is not a plain path"
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "has a control character in its name"
    if info.is_dir():
        return None
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a special file, which is not allowed in a wheel"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is neither stored nor deflated"
    return None


def _folded(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def _row(data: bytes) -> tuple[str, str]:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("="), str(len(data))
