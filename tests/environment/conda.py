"""Writing conda packages and channels, with equal bytes on every machine.

The formats: conda's package metadata (`info/index.json`, `paths.json`, `link.json`, `about.json`), the .conda container
(CEP 15's predecessor, "conda file format 2": a zip of two zstd tars), the older .tar.bz2, and `repodata.json`.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .parts import EPOCH

# As long as conda-forge's: a prefix in a compiled file can only be replaced by one that is not longer.
PLACEHOLDER = ("/opt/environment/" + "placehold_" * 25)[:255]
TIMESTAMP = 1_705_276_800_000  # 2024-01-15T00:00:00Z, in milliseconds as conda counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the metadata of one package says."""

    name: str
    version: str
    build: str = "deb12_0"
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    license: str = "see info/licenses"
    summary: str = ""
    home: str = ""
    noarch_python: bool = False
    entry_points: tuple[str, ...] = ()
    timestamp: int = TIMESTAMP
    suffix: str = ".conda"

    @property
    def subdir(self) -> str:
        return "noarch" if self.noarch_python else "linux-64"

    @property
    def file(self) -> str:
        return f"{self.name}-{self.version}-{self.build}{self.suffix}"

    @property
    def index(self) -> dict[str, object]:
        index: dict[str, object] = {
            "arch": None if self.noarch_python else "x86_64",
            "build": self.build,
            "build_number": int(self.build.rsplit("_", 1)[-1]),
            "constrains": list(self.constrains),
            "depends": list(self.depends),
            "license": self.license,
            "name": self.name,
            "platform": None if self.noarch_python else "linux",
            "subdir": self.subdir,
            "timestamp": self.timestamp,
            "version": self.version,
        }
        return {**index, "noarch": "python"} if self.noarch_python else index


def write(stage: Path, recipe: Recipe, channel: Path) -> Path:
    """Pack the prefix in `stage`, together with its `info` folder if it has one, as a package of `channel`.

    Modes become 0755 or 0644, owners 0, times one. A name that this disk cannot hold is no matter: see `pack`.
    """
    files: dict[str, Entry] = {}
    first: dict[int, str] = {}
    for name in sorted(path.relative_to(stage).as_posix() for path in _walk(stage)):
        path = stage / name
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            files[name] = Entry(link=str(path.readlink()))
        elif info.st_nlink > 1 and first.setdefault(info.st_ino, name) != name:
            files[name] = Entry(data=path.read_bytes(), executable=bool(info.st_mode & 0o100), same_as=first[info.st_ino])
        else:
            files[name] = Entry(data=path.read_bytes(), executable=bool(info.st_mode & 0o100))
    return pack(files, recipe, channel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a package: its bytes, or where it links to; `same_as` names an earlier file that it is a hard link of."""

    data: bytes = b""
    executable: bool = False
    link: str | None = None
    same_as: str | None = None


def pack(files: dict[str, Entry], recipe: Recipe, channel: Path) -> Path:
    """Write a package of these files into `channel/<subdir>`; the path of the package."""
    info = {name: entry for name, entry in files.items() if name.startswith("info/")}
    payload = {name: entry for name, entry in files.items() if name not in info}
    about = {"home": recipe.home, "license": recipe.license, "summary": recipe.summary, "channels": []}
    metadata: dict[str, object] = {
        "info/about.json": about,
        "info/index.json": recipe.index,
        "info/paths.json": {"paths": [_path(name, payload) for name in sorted(payload)], "paths_version": 1},
    }
    if recipe.noarch_python:
        noarch = {"entry_points": list(recipe.entry_points), "type": "python"}
        metadata["info/link.json"] = {"noarch": noarch, "package_metadata_version": 1}
    for name, value in metadata.items():
        info[name] = Entry(data=(json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
    info["info/files"] = Entry(data="".join(f"{name}\n" for name in sorted(payload)).encode())
    into = channel / recipe.subdir / recipe.file
    into.parent.mkdir(parents=True, exist_ok=True)
    if recipe.suffix == ".tar.bz2":
        into.write_bytes(bz2.compress(_tar({**info, **payload}), 5))
    else:
        _conda(into, _tar(payload), _tar(info))
    return into


def index(channel: Path) -> None:
    """Write `repodata.json` and `repodata.json.zst` of every subdir from the packages that are there."""
    import zstandard

    for subdir in ("linux-64", "noarch"):
        folder = channel / subdir
        folder.mkdir(parents=True, exist_ok=True)
        records: dict[str, dict[str, object]] = {".conda": {}, ".tar.bz2": {}}
        for path in sorted(folder.iterdir()):
            for suffix, of in records.items():
                if path.name.endswith(suffix):
                    of[path.name] = _record(path)
        repodata = {
            "info": {"subdir": subdir},
            "packages": records[".tar.bz2"],
            "packages.conda": records[".conda"],
            "removed": [],
            "repodata_version": 1,
        }
        data = (json.dumps(repodata, indent=1, sort_keys=True) + "\n").encode()
        (folder / "repodata.json").write_bytes(data)
        (folder / "repodata.json.zst").write_bytes(zstandard.ZstdCompressor(level=10).compress(data))


def _record(package: Path) -> dict[str, object]:
    data = package.read_bytes()
    inner = json.loads(_info_index(package, data))
    facts = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return {key: value for key, value in {**inner, **facts}.items() if value is not None}


def _info_index(package: Path, data: bytes) -> bytes:
    import zstandard

    if package.name.endswith(".conda"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (name,) = [name for name in archive.namelist() if name.startswith("info-")]
            raw = zstandard.ZstdDecompressor().decompressobj().decompress(archive.read(name))
    else:
        raw = bz2.decompress(data)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        inner = tar.extractfile("info/index.json")
        assert inner is not None
        return inner.read()


def _path(name: str, files: dict[str, Entry]) -> dict[str, object]:
    entry = files[name]
    path: dict[str, object] = {"_path": name, "path_type": "hardlink" if entry.link is None else "softlink"}
    data = _followed(name, files)
    path |= {"sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)}
    if entry.link is None and PLACEHOLDER.encode() in data:
        path |= {"file_mode": "binary" if b"\0" in data else "text", "prefix_placeholder": PLACEHOLDER}
    return path


def _followed(name: str, files: dict[str, Entry]) -> bytes:
    """Bytes that a path leads to: as conda-build does, a link out of the package counts as empty."""
    for _ in range(10):
        entry = files.get(name)
        if entry is None:
            return b""
        if entry.link is None:
            return entry.data
        name = os.path.normpath(PurePosixPath(name).parent / entry.link)
    return b""


def _tar(files: dict[str, Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            entry, header = files[name], tarfile.TarInfo(name)
            header.mtime, header.mode = EPOCH, 0o755 if entry.executable else 0o644
            if entry.link is not None:
                header.type, header.linkname, header.mode = tarfile.SYMTYPE, entry.link, 0o777
            elif entry.same_as is not None:
                header.type, header.linkname = tarfile.LNKTYPE, entry.same_as
            else:
                header.size = len(entry.data)
            tar.addfile(header, io.BytesIO(entry.data) if header.isreg() else None)
    return out.getvalue()


def _conda(into: Path, payload: bytes, info: bytes) -> None:
    import zstandard

    stem = into.name.removesuffix(".conda")
    compress = zstandard.ZstdCompressor(level=3, write_content_size=True).compress
    members = {
        "metadata.json": b'{"conda_pkg_format_version": 2}',
        f"pkg-{stem}.tar.zst": compress(payload),
        f"info-{stem}.tar.zst": compress(info),
    }
    with zipfile.ZipFile(into, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


def _walk(stage: Path) -> Iterable[Path]:
    for folder, names, files in os.walk(stage):
        names.sort()
        yield from (Path(folder) / name for name in sorted(files))
        yield from (Path(folder) / name for name in names if (Path(folder) / name).is_symlink())
