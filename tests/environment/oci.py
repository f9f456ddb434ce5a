"""OCI image layouts with equal bytes on every machine: sorted entries, one time, numeric owners, one compressor."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .parts import EPOCH

_NO_CONTENT = ("dev", "proc", "sys", "run")
State = dict[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer's blob in a layout, and the digest of its uncompressed bytes."""

    digest: str
    size: int
    diff_id: str
    created_by: str


def state(root: Path) -> State:
    """What a root file system holds now, by path, in a form that differs when an entry was touched."""
    seen: State = {}
    for path in _walk(root):
        info = (root / path).lstat()
        link = str((root / path).readlink()) if stat.S_ISLNK(info.st_mode) else ""
        times = 0 if stat.S_ISDIR(info.st_mode) else (info.st_mtime_ns, info.st_ino, info.st_size)
        seen[path] = (info.st_mode, info.st_uid, info.st_gid, times, link)
    return seen


def layer(root: Path, layout: Path, *, before: State, created_by: str) -> Layer:
    """Write what changed in `root` since `before` as a layer of `layout`, deletions as whiteouts."""
    now = state(root)
    wanted = {path for path, what in now.items() if before.get(path) != what}
    gone = {path for path in before if path not in now}
    gone = {path for path in gone if str(Path(path).parent) not in gone}
    for path in [*wanted, *gone]:
        wanted.update(str(parent) for parent in Path(path).parents if str(parent) != ".")
    raw = io.BytesIO()
    linked: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(wanted | {_whiteout(path) for path in gone}):
            if path in now:
                add(tar, root / path, path, linked)
            else:
                entry = tarfile.TarInfo(path)
                entry.mtime = EPOCH
                tar.addfile(entry)
    return _blob_layer(raw.getbuffer(), layout, created_by)


def add(tar: tarfile.TarFile, file: Path, name: str, linked: dict[tuple[int, int], str]) -> None:
    """Add one file of the disk under `name`: its mode and owner kept, its time and its owner's name not."""
    info = file.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode, entry.uid, entry.gid, entry.mtime = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, EPOCH
    if stat.S_ISDIR(info.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(file.readlink())
    elif stat.S_ISREG(info.st_mode):
        first = linked.setdefault((info.st_dev, info.st_ino), name)
        if info.st_nlink > 1 and first != name:
            entry.type, entry.linkname = tarfile.LNKTYPE, first
        else:
            entry.size = info.st_size
            with file.open("rb") as data:
                tar.addfile(entry, data)
            return
    else:
        return  # devices and sockets are nothing of an image
    tar.addfile(entry)


def finish(layout: Path, layers: list[Layer], *, tag: str, config: dict[str, object], labels: dict[str, str]) -> str:
    """Write config, manifest and index of a layout; the manifest's digest."""
    image = {
        "created": "2024-01-01T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {**config, "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": one.created_by} for one in layers],
    }
    config_digest, config_size = blob(layout, _json(image))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config_size,
        },
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": one.digest, "size": one.size} for one in layers
        ],
    }
    digest, size = blob(layout, _json(manifest))
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": size,
                "platform": {"architecture": "amd64", "os": "linux"},
                "annotations": {"org.opencontainers.image.ref.name": tag},
            }
        ],
    }
    (layout / "index.json").write_bytes(_json(index))
    (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return digest


def unpack(layout: Path, root: Path) -> None:
    """Unpack the image of a layout into a folder, whiteouts honoured. Needs root, to keep owners."""
    import shutil

    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_read(layout, index["manifests"][0]["digest"]))
    root.mkdir(parents=True, exist_ok=True)
    for one in manifest["layers"]:
        with tarfile.open(layout / "blobs" / one["digest"].replace(":", "/")) as tar:
            for entry in tar:
                name = Path(entry.name)
                if name.name.startswith(".wh."):
                    target = root / name.parent / name.name.removeprefix(".wh.")
                    shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()
                    continue
                if not entry.isdir():
                    (root / name).unlink(missing_ok=True)
                tar.extract(entry, root, numeric_owner=True, filter="fully_trusted")


def blob(layout: Path, data: bytes | bytearray | memoryview) -> tuple[str, int]:
    digest = hashlib.sha256(data).hexdigest()
    path = layout / "blobs/sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"sha256:{digest}", len(data)


def _read(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def _blob_layer(raw: memoryview, layout: Path, created_by: str) -> Layer:
    import deflate

    diff_id = "sha256:" + hashlib.sha256(raw).hexdigest()
    digest, size = blob(layout, deflate.gzip_compress(raw, 1))
    return Layer(digest=digest, size=size, diff_id=diff_id, created_by=created_by)


def _whiteout(path: str) -> str:
    return str(Path(path).with_name(".wh." + Path(path).name))


def _walk(root: Path) -> list[str]:
    found: list[str] = []
    for folder, names, files in os.walk(root):
        here = os.path.relpath(folder, root)
        if here in _NO_CONTENT:
            names.clear()
            continue
        found.extend(os.path.normpath(os.path.join(here, name)) for name in [*names, *files])  # noqa: PTH118
    return found


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def digest(layout: Path) -> str:
    """Digest of the manifest that a layout's index names."""
    found: str = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
    return found
