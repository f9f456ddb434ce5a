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

from cregraph.digest import Json, canonical, sha256
from cregraph.engines import contract, inside
from cregraph.engines.contract import Files, Limits
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.config import as_json
from cregraph.image.model.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor
from cregraph.plan.parts import Task

__all__ = ["Blob", "TaskImage", "inputs_blob", "inputs_tar", "load_archive", "orders_blob", "write_layout"]

_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """A plain tar, in the store or in memory."""

    sha256: str
    size: int
    path: Path | None = None
    data: bytes = b""

    @classmethod
    def of(cls, *entries: bytes) -> Blob:
        data = b"".join((*entries, tar.END))
        return Blob(sha256=sha256(data), size=len(data), data=data)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskImage:
    """An image of some layers, the lowest first. The first `lasting` of them are seen by other tasks too."""

    layers: tuple[Blob, ...]
    lasting: int = 0

    def config(self) -> bytes:
        """The config (image-spec, config.md)."""
        ids: list[Json] = [f"sha256:{layer.sha256}" for layer in self.layers]
        return canonical({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}})

    def manifest(self) -> bytes:
        """The manifest (image-spec, manifest.md)."""
        config = self.config()
        named: dict[str, Json] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
        named["config"] = _described(OCI_CONFIG, sha256(config), len(config))
        named["layers"] = [_described(_LAYER, layer.sha256, layer.size) for layer in self.layers]
        return canonical(named)

    def digest(self) -> str:
        return f"sha256:{sha256(self.manifest())}"


def _described(media_type: str, digest: str, size: int) -> Json:
    return as_json(Descriptor(media_type=media_type, digest=f"sha256:{digest}", size=size))


def orders_blob(task: Task, *, limits: Limits, mark: int = 0, terminal: bool = False) -> Blob:
    """The uppermost layer: the contract's own folders, the program, and its orders for this task.

    Another `mark` makes another layer, and so another key of BuildKit's. It is in a time of a file that is gone when the command
    begins, so no command sees it.
    """
    text = inside.orders(task, limits=limits, terminal=terminal)
    program = tar.file(inside.PROGRAM[1:], inside.program(), mode=0o755)
    orders = tar.file(inside.ORDERS[1:], text, mtime=contract.EPOCH + mark)
    return Blob.of(inside.skeleton().removesuffix(tar.END), *program, *orders)


def inputs_tar(inputs: Files, folder: str) -> Iterator[bytes]:
    """Yield tar entries of `inputs` in `folder`, each with the one mode and time that the contract gives it; no end marker."""
    yield tar.header(path=folder, type="directory", mode=0o755)
    for name, path in sorted(inputs.items()):
        yield from tar.file(f"{folder}/{name}", path, mode=0o444)


def inputs_blob(inputs: Files, place: Path) -> Blob:
    """Write what is mounted into the sandbox to the file `place`: the folder `in` with the inputs, and the texts that BuildKit
    would write for itself."""
    hasher = hashlib.sha256()
    texts = (tar.file(name, contract.FILES[f"/etc/{name}"].encode()) for name in ("hosts", "resolv.conf"))
    with place.open("xb") as out:
        for piece in itertools.chain(inputs_tar(inputs, "in"), *texts, (tar.END,)):
            hasher.update(piece)
            out.write(piece)
    return Blob(sha256=hasher.hexdigest(), size=place.stat().st_size, path=place)


def write_layout(folder: Path, images: Iterable[TaskImage]) -> None:
    """An OCI layout (image-spec, image-layout.md) of these images in the empty `folder`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    listed: list[Json] = []
    for image in images:
        manifest = image.manifest()
        for data in (image.config(), manifest):
            (blobs / sha256(data)).write_bytes(data)
        listed.append(_described(OCI_MANIFEST, sha256(manifest), len(manifest)))
        for layer in image.layers:
            place = blobs / layer.sha256
            if place.is_symlink() or place.exists():
                continue
            if layer.path is not None:
                place.symlink_to(layer.path.absolute())
            else:
                place.write_bytes(layer.data)
    (folder / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": listed}))


def load_archive(images: Mapping[str, TaskImage], *, held: Sequence[Blob] = ()) -> Iterator[bytes]:
    """The images by their names, as `docker image load` takes them. Layers in `held` are left out: an engine of the classic store
    does not open a layer whose chain it has."""
    left_out = {blob.sha256 for blob in held}
    listing: list[Json] = []
    for name, image in images.items():
        config = image.config()
        place = f"{sha256(config)}.json"
        yield from tar.file(place, config)
        for layer in image.layers:
            if layer.sha256 not in left_out:
                left_out.add(layer.sha256)
                yield from tar.file(f"{layer.sha256}.tar", layer.path or layer.data)
        layers: list[Json] = [f"{layer.sha256}.tar" for layer in image.layers]
        listing.append({"Config": place, "RepoTags": [name], "Layers": layers})
    yield from tar.file("manifest.json", canonical(listing))
    yield tar.END
