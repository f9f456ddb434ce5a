"""The push of a built image to a registry, without sending a byte that the registry has.

Our own layers come from disk. The base's layers are mounted if their repository is in the same registry; else they are streamed
from their origin through memory, never over the disk. Blobs that another repository of the registry is known to have are
mounted from it. The manifest goes last, so that a broken push leaves only blobs that nothing names. The next push continues:
whole blobs are not sent again, and a large one continues where it stopped if the registry kept the upload.
A tag that leads to another digest is never moved, because registered runtimes are pinned to the digest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cregraph.errors import CregraphError, Refused
from cregraph.formats.inflate import blocks_of
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.media.registry import Registry
from cregraph.image.model.config import Image
from cregraph.image.model.manifest import Descriptor, Manifest
from cregraph.image.model.reference import Reference, parse_reference
from cregraph.scheduler import threads
from cregraph.store import Store
from cregraph.store.push_records import Uploads

__all__ = ["Moved", "Pushed", "own_blobs", "push", "target_of"]

_AT_ONCE = 4
_How = Literal["pushed", "mounted", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """The progress of one blob: `done` of `size` bytes; `how` is set when the registry has it."""

    digest: str
    size: int
    done: int
    how: _How | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """The result of a push. `pushed`, `mounted` (from another repository of the registry) and `skipped` (already there) count
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
    reference = parse_reference(text, where="the destination of the push", fold=True)
    if not reference.tag or reference.digest:
        raise CregraphError(
            f"the destination of the push: `{text}` must have a tag and must not have a digest", "write `host/path:tag`"
        )
    return reference


def push(
    manifest: Manifest,
    own: Mapping[str, Path | bytes],
    base: BaseImage | None,
    to: Reference,
    *,
    registry: Registry,
    others: Mapping[str, str] | None = None,
    begun: Uploads | None = None,
    progress: Callable[[Moved], None] = lambda _moved: None,
) -> Pushed:
    """Push `manifest` to the tag `to`. `own` gives our blobs (the config and our layers) by `sha256:<hex>`.

    All other layers are the base's. `others` gives, by digest, another repository of the registry to mount from; `begun` knows
    uploads that were cut off. `progress` is called from any thread.

    Raises:
        Refused: The tag leads to another digest.
        CregraphError: Any other failure. The message names host and repository.
    """
    if _is_there(registry, to, manifest):
        return Pushed(reference=to.at(tag=to.tag, digest=manifest.digest), unchanged=True)
    blobs = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
    of_base = {layer.digest for layer in base.manifest.layers} if base else set()
    for blob in blobs.values():
        if blob.digest not in own and blob.digest not in of_base:
            raise CregraphError(
                f"cannot push {to}: {blob.digest} is neither among the built layers nor of the base", "build it again"
            )

    sender = _Sender(registry=registry, to=to, own=own, base=base, others=others or {}, begun=begun, progress=progress)
    sums: dict[_How, int] = {"pushed": 0, "mounted": 0, "skipped": 0}
    streamed = 0
    with threads(_AT_ONCE) as pool:  # what was sent when Ctrl-C comes is not sent again by the next push
        for how, blob in pool.map(sender.send, blobs.values()):
            sums[how] += blob.size
            streamed += blob.size if how == "pushed" and blob.digest not in own else 0
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
            "change the version label, or lock and build the original image. cregraph never moves a tag, because "
            "Snowflake would refuse runtimes of that tag",
        )
    return there is not None


def own_blobs(image: Image, store: Store) -> dict[str, Path | bytes]:
    """Return the blobs of a built image that its base does not have, by `sha256:<hex>`. Its layers are in `store`."""
    layers = image.layers[len(image.layers) - image.own :]
    own: dict[str, Path | bytes] = {layer.digest: store.verified(layer.hex, "a built layer") for layer in layers}
    return own | {image.config_descriptor.digest: image.config}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sender:
    """Sends blobs, from any thread. The fields are the arguments of `push`."""

    registry: Registry
    to: Reference
    own: Mapping[str, Path | bytes]
    base: BaseImage | None
    others: Mapping[str, str]
    begun: Uploads | None
    progress: Callable[[Moved], None]

    def send(self, blob: Descriptor) -> tuple[_How, Descriptor]:
        """Send one blob unless it is there or can be mounted; return what was done."""
        how = self._sent(blob)
        self.progress(Moved(digest=blob.digest, size=blob.size, done=blob.size, how=how))
        return how, blob

    def _sent(self, blob: Descriptor) -> _How:
        repository = self.to.repository
        if self.registry.has_blob(repository, blob.digest, for_push=True):
            return "skipped"
        home = self.base.home if self.base is not None and blob.digest not in self.own else None
        sources = [home[1]] if home and home[0] == self.registry.host else []
        sources += [self.others[blob.digest]] if blob.digest in self.others else []
        for source in dict.fromkeys(sources):
            if source != repository and self.registry.mount(repository, blob, source):
                return "mounted"
        self.registry.upload(repository, blob, functools.partial(self._read, blob), begun=self.begun)
        return "pushed"

    def _read(self, blob: Descriptor, start: int) -> Iterator[bytes]:
        own, at = self.own.get(blob.digest), start
        if own is None:
            assert self.base is not None
            blocks = self.base.open_layer(blob, start)
        else:
            blocks = iter((own[start:],)) if isinstance(own, bytes) else blocks_of(own, start)
        for block in blocks:
            yield block
            at += len(block)
            self.progress(Moved(digest=blob.digest, size=blob.size, done=min(at, blob.size)))
