"""A built image into a registry, moving no byte that is there already.

Our own layers come from disk. The base's layers are mounted from their repository when they are in the same registry, else
streamed from their origin. The manifest goes last, so a broken push leaves blobs that nothing names, and the next push goes on.
A tag that leads to another digest is never moved: registered runtimes are pinned to the digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cregraph.errors import CregraphError, Refused
from cregraph.image.base import BaseImage
from cregraph.image.config import Image
from cregraph.image.manifest import Descriptor, Manifest, read_manifest
from cregraph.image.reference import Reference, parse_reference
from cregraph.image.registry import Registry
from cregraph.store import Store

__all__ = ["Pushed", "push", "push_image", "target_of"]

_BLOCK = 1 << 20
_AT_ONCE = 4
_How = Literal["pushed", "mounted", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What a push did. `pushed`, `mounted` and `skipped` (already there) are bytes of blobs.

    With `unchanged` the tag led to this very image before, and nothing was done.
    """

    reference: Reference
    pushed: int = 0
    mounted: int = 0
    skipped: int = 0
    unchanged: bool = False


def target_of(text: str) -> Reference:
    """The reference to push to: its path lower-cased (as Snowflake folds names) and checked; it must have a tag and no digest."""
    reference = parse_reference(text, where="the place to push to", fold=True)
    if not reference.tag or reference.digest:
        raise CregraphError(f"the place to push to: `{text}` must name a tag, and no digest", "write `host/path:tag`")
    return reference


def push(
    manifest: Manifest,
    own: Mapping[str, Path | bytes],
    base: BaseImage | None,
    to: Reference,
    *,
    registry: Registry | None = None,
    progress: Callable[[int], None] | None = None,
) -> Pushed:
    """Push `manifest` to the tag `to`. `own` gives our blobs (the config and our layers) by `sha256:<hex>`.

    All other layers are the base's. `progress` is called with the bytes of each blob that is done, from any thread.
    Raises Refused when the tag leads to another digest, CregraphError naming host and repository for all else.
    """
    registry = registry or Registry.at(to.host)
    there = registry.digest_at(to.repository, to.tag)
    if there == manifest.digest:
        return Pushed(reference=to.at(tag=to.tag, digest=there), unchanged=True)
    if there is not None:
        raise Refused(
            f"{to} exists and leads to {there}; this image is {manifest.digest}",
            "a tag is never moved: runtimes that were registered with it would be refused. Change the version label, or lock and "
            "build what the tag was made from",
        )
    blobs = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
    of_base = {layer.digest for layer in base.manifest.layers} if base else set()
    for blob in blobs.values():
        if blob.digest not in own and blob.digest not in of_base:
            raise CregraphError(
                f"cannot push {to}: {blob.digest} is neither among the built layers nor of the base", "build it again"
            )

    def send(blob: Descriptor) -> tuple[_How, int]:
        how = _send(registry, to.repository, blob, own.get(blob.digest), base)
        if progress:
            progress(blob.size)
        return how, blob.size

    sums: dict[_How, int] = {"pushed": 0, "mounted": 0, "skipped": 0}
    pool = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="push")
    try:
        for how, size in pool.map(send, blobs.values()):
            sums[how] += size
    finally:
        pool.shutdown(cancel_futures=True)
    registry.put_manifest(to.repository, to.tag, manifest.raw, manifest.media_type)
    return Pushed(
        reference=to.at(tag=to.tag, digest=manifest.digest),
        pushed=sums["pushed"],
        mounted=sums["mounted"],
        skipped=sums["skipped"],
    )


def push_image(
    image: Image,
    store: Store,
    base: BaseImage,
    to: Reference,
    *,
    registry: Registry | None = None,
    progress: Callable[[int], None] | None = None,
) -> Pushed:
    """Push an image that was just built: its own layers are in `store`, the others are `base`'s. See `push`."""
    layers = image.layers[len(image.layers) - image.own :]
    own: dict[str, Path | bytes] = {layer.digest: store.verified(layer.hex, "a built layer") for layer in layers}
    own[image.config_descriptor.digest] = image.config
    return push(read_manifest(image.manifest, what=str(to)), own, base, to, registry=registry, progress=progress)


def _send(registry: Registry, repository: str, blob: Descriptor, own: Path | bytes | None, base: BaseImage | None) -> _How:
    if registry.has_blob(repository, blob.digest, for_push=True):
        return "skipped"
    if own is None:
        assert base is not None
        home = base.home
        if home and home[0] == registry.host and home[1] != repository and registry.mount(repository, blob, home[1]):
            return "mounted"
        registry.upload(repository, blob, lambda start: base.open_layer(blob, start))
    elif isinstance(own, bytes):
        registry.upload(repository, blob, lambda start: iter((own[start:],)))
    else:
        registry.upload(repository, blob, lambda start: _read(own, start))
    return "pushed"


def _read(file: Path, start: int) -> Iterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(start)
        while block := opened.read(_BLOCK):
            yield block
