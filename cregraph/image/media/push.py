"""Push a built image to a registry, without sending a byte that the registry has.

Our own layers come from disk. The base's layers are mounted if their repository is in the same registry; else they are streamed
from their origin through memory, never over the disk. Blobs that another repository of the registry is known to have are
mounted from it. The manifest goes last, so that a broken push leaves only blobs that nothing names. The next push continues:
whole blobs are not sent again, and a large one continues where it stopped if the registry kept the upload.
A tag that leads to another digest is never moved, because registered runtimes are pinned to the digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cregraph.errors import CregraphError, Refused
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.media.registry import Registry
from cregraph.image.media.registry_upload import Begun
from cregraph.image.model.config import Image
from cregraph.image.model.manifest import Descriptor, Manifest, read_manifest
from cregraph.image.model.reference import Reference, parse_reference
from cregraph.store import Store

__all__ = ["Moved", "Pushed", "push", "push_image", "target_of"]

_BLOCK = 1 << 20
_AT_ONCE = 4
_How = Literal["pushed", "mounted", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """Progress of one blob: `done` of `size` bytes; `how` is set when the registry has it."""

    digest: str
    size: int
    done: int
    how: _How | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """Result of a push. `pushed`, `mounted` (from another repository of the registry) and `skipped` (already there) count
    bytes of blobs; `streamed` counts those of the pushed bytes that came from the base's origin.

    `unchanged`: the tag led to this image before, and nothing was sent.
    """

    reference: Reference
    pushed: int = 0
    mounted: int = 0
    skipped: int = 0
    streamed: int = 0
    unchanged: bool = False


def target_of(text: str) -> Reference:
    """Return the reference to push to, its path in lower case as Snowflake folds names. It must have a tag and no digest."""
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
    others: Mapping[str, str] | None = None,
    begun: Begun | None = None,
    progress: Callable[[Moved], None] = lambda _moved: None,
) -> Pushed:
    """Push `manifest` to the tag `to`. `own` gives our blobs (the config and our layers) by `sha256:<hex>`.

    All other layers are the base's. `others` gives, by digest, another repository of the registry to mount from; `begun` knows
    uploads that were cut off. `progress` is called from any thread.

    Raises:
        Refused: The tag leads to another digest.
        CregraphError: Any other failure. The message names host and repository.
    """
    registry = registry or Registry.at(to.host)
    if _is_there(registry, to, manifest):
        return Pushed(reference=to.at(tag=to.tag, digest=manifest.digest), unchanged=True)
    blobs = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
    of_base = {layer.digest for layer in base.manifest.layers} if base else set()
    for blob in blobs.values():
        if blob.digest not in own and blob.digest not in of_base:
            raise CregraphError(
                f"cannot push {to}: {blob.digest} is neither among the built layers nor of the base", "build it again"
            )

    known = others or {}

    def send(blob: Descriptor) -> tuple[_How, Descriptor]:
        how = _send(registry, to.repository, blob, own.get(blob.digest), base, known.get(blob.digest), begun, progress)
        progress(Moved(digest=blob.digest, size=blob.size, done=blob.size, how=how))
        return how, blob

    sums: dict[_How, int] = {"pushed": 0, "mounted": 0, "skipped": 0}
    streamed = 0
    pool = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="push")
    try:
        for how, blob in pool.map(send, blobs.values()):
            sums[how] += blob.size
            streamed += blob.size if how == "pushed" and blob.digest not in own else 0
    except BaseException as error:
        # Ctrl-C waits for no server; what was sent is gone on with by the next push.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()
    if not _is_there(registry, to, manifest):  # else another pusher was quicker
        registry.put_manifest(to.repository, to.tag, manifest.raw, manifest.media_type)
    return Pushed(
        reference=to.at(tag=to.tag, digest=manifest.digest),
        pushed=sums["pushed"],
        mounted=sums["mounted"],
        skipped=sums["skipped"],
        streamed=streamed,
    )


def _is_there(registry: Registry, to: Reference, manifest: Manifest) -> bool:
    """Return whether the tag leads to this image. Raises Refused if it leads to another one."""
    there = registry.digest_at(to.repository, to.tag)
    if there not in (None, manifest.digest):
        raise Refused(
            f"{to} exists and leads to {there}; this image is {manifest.digest}",
            "a tag is never moved: runtimes that were registered with it would be refused. Change the version label, or lock and "
            "build what the tag was made from",
        )
    return there is not None


def push_image(
    image: Image,
    store: Store,
    base: BaseImage,
    to: Reference,
    *,
    registry: Registry | None = None,
    others: Mapping[str, str] | None = None,
    begun: Begun | None = None,
    progress: Callable[[Moved], None] = lambda _moved: None,
) -> Pushed:
    """Push an image that was just built: its own layers are in `store`, the others belong to `base`. See `push`."""
    layers = image.layers[len(image.layers) - image.own :]
    own: dict[str, Path | bytes] = {layer.digest: store.verified(layer.hex, "a built layer") for layer in layers}
    own[image.config_descriptor.digest] = image.config
    manifest = read_manifest(image.manifest, what=str(to))
    return push(manifest, own, base, to, registry=registry, others=others, begun=begun, progress=progress)


def _send(
    registry: Registry,
    repository: str,
    blob: Descriptor,
    own: Path | bytes | None,
    base: BaseImage | None,
    other: str | None,
    begun: Begun | None,
    progress: Callable[[Moved], None],
) -> _How:
    if registry.has_blob(repository, blob.digest, for_push=True):
        return "skipped"
    home = base.home if base is not None and own is None else None
    sources = [home[1]] if home and home[0] == registry.host else []
    for source in dict.fromkeys([*sources, *([other] if other else [])]):
        if source != repository and registry.mount(repository, blob, source):
            return "mounted"

    def read(start: int) -> Iterator[bytes]:
        at = start
        for block in _blocks(blob, own, base, start):
            yield block
            at += len(block)
            progress(Moved(digest=blob.digest, size=blob.size, done=min(at, blob.size)))

    registry.upload(repository, blob, read, begun=begun)
    return "pushed"


def _blocks(blob: Descriptor, own: Path | bytes | None, base: BaseImage | None, start: int) -> Iterator[bytes]:
    if isinstance(own, bytes):
        return iter((own[start:],))
    if own is not None:
        return _read(own, start)
    assert base is not None
    return base.open_layer(blob, start)


def _read(file: Path, start: int) -> Iterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(start)
        while block := opened.read(_BLOCK):
            yield block
