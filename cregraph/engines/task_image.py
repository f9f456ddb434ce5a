"""What a task sees, as small OCI images that BuildKit takes by digest: from a layout on this machine's disk, or loaded.

Nothing is copied: the layout's blobs are links to the layers in the store. Equal layers are equal blobs, which an engine asks for
only when it lacks them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import canonical, sha256
from cregraph.engines import contract, inside
from cregraph.engines.contract import Limits
from cregraph.engines.task_layers import Layer
from cregraph.image.model import tar_writer as tar
from cregraph.plan.parts import Task

__all__ = [
    "Blob",
    "TaskImage",
    "blob_of",
    "inputs_blob",
    "inputs_tar",
    "load_archive",
    "note_blob",
    "orders_blob",
    "write_layout",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """A plain tar, in the store or in memory."""

    sha256: str
    size: int
    path: Path | None = None
    data: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskImage:
    """An image of some layers, the lowest first. The first `lasting` of them are seen by other tasks too."""

    layers: tuple[Blob, ...]
    lasting: int = 0

    def config(self) -> bytes:
        """The config (image-spec, config.md)."""
        ids = [f"sha256:{layer.sha256}" for layer in self.layers]
        return canonical(
            {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": list(ids)}}
        )

    def manifest(self) -> bytes:
        """The manifest (image-spec, manifest.md)."""
        config = self.config()
        return canonical(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": f"sha256:{sha256(config)}",
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": f"sha256:{layer.sha256}",
                        "size": layer.size,
                    }
                    for layer in self.layers
                ],
            }
        )

    def digest(self) -> str:
        """The digest of the manifest."""
        return f"sha256:{sha256(self.manifest())}"


def blob_of(layer: Layer) -> Blob:
    """A layer of the store."""
    return Blob(sha256=layer.sha256, size=layer.size, path=layer.path)


def orders_blob(task: Task, *, limits: Limits, mark: int = 0, terminal: bool = False) -> Blob:
    """The uppermost layer: the contract's own folders, the program, and its orders for this task.

    Another `mark` makes another layer, and so another key of BuildKit's. It is in a time of a file that is gone when the command
    begins, so no command sees it.
    """
    skeleton = inside.skeleton()
    spec = inside.spec(argv=task.argv, env=task.env, cwd=task.cwd, output=task.output, limits=limits, terminal=terminal)
    program = tar.file(inside.PROGRAM[1:], inside.program(), mode=0o755)
    return _held(skeleton[: -len(tar.END)], *program, *tar.file(inside.SPEC[1:], spec, mtime=contract.EPOCH + mark))


def note_blob(name: str) -> Blob:
    """A layer of one small file, `name`."""
    return _held(*tar.file(name, b"", mode=0o444))


def inputs_blob(inputs: Mapping[str, Path], place: Path) -> Blob:
    """What is mounted into the sandbox, written to the file `place`: the folder `in` with the inputs, and the texts that BuildKit
    would write for itself."""
    hasher = hashlib.sha256()
    texts = (tar.file(name, contract.FILES[f"/etc/{name}"].encode()) for name in ("hosts", "resolv.conf"))
    with place.open("xb") as out:
        for piece in itertools.chain(inputs_tar(inputs, "in"), *texts, (tar.END,)):
            hasher.update(piece)
            out.write(piece)
        size = out.tell()
    return Blob(sha256=hasher.hexdigest(), size=size, path=place)


def inputs_tar(inputs: Mapping[str, Path], folder: str) -> Iterator[bytes]:
    """Yield tar entries of `inputs` in `folder`, each with the one mode and time that the contract gives it; no end marker."""
    yield tar.header(path=folder, type="directory", mode=0o755)
    for name, path in sorted(inputs.items()):
        yield from tar.file(f"{folder}/{name}", path, mode=0o444)


def write_layout(folder: Path, images: Iterable[TaskImage]) -> None:
    """An OCI layout (image-spec, image-layout.md) of these images in the empty `folder`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    listed = []
    for image in images:
        for data in (image.config(), image.manifest()):
            (blobs / sha256(data)).write_bytes(data)
        listed.append(
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.digest(), "size": len(image.manifest())}
        )
        for layer in image.layers:
            place = blobs / layer.sha256
            if place.is_symlink() or place.exists():
                continue
            if layer.path is not None:
                place.symlink_to(layer.path.absolute())
            else:
                place.write_bytes(layer.data)
    (folder / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": list(listed)}))


def load_archive(images: Mapping[str, TaskImage], *, held: Sequence[Blob] = ()) -> Iterator[bytes]:
    """The images by their names, as `docker image load` takes them. Layers in `held` are left out: an engine of the classic store
    does not open a layer whose chain it has."""
    left_out = {blob.sha256 for blob in held}
    listing = []
    for name, image in images.items():
        config = image.config()
        yield from tar.file(f"{sha256(config)}.json", config)
        for layer in image.layers:
            if layer.sha256 not in left_out:
                left_out.add(layer.sha256)
                yield from tar.file(f"{layer.sha256}.tar", layer.path or layer.data)
        listing.append(
            {"Config": f"{sha256(config)}.json", "RepoTags": [name], "Layers": [f"{layer.sha256}.tar" for layer in image.layers]}
        )
    yield from tar.file("manifest.json", canonical(list(listing)))
    yield tar.END


def _held(*entries: bytes) -> Blob:
    data = b"".join((*entries, tar.END))
    return Blob(sha256=sha256(data), size=len(data), data=data)
