"""State of a registry before a push: the tag, our layers and the base's layers that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cregraph.errors import CregraphError
from cregraph.image.media.registry import Registry
from cregraph.image.media.registry_http import NotInRegistry, Unauthorized
from cregraph.image.model.manifest import CONFIG_LIMIT, Descriptor, follow, read_json
from cregraph.image.model.reference import Reference
from cregraph.scheduler import threads

__all__ = ["Remote", "look"]

_KEY = "org.cregraph.key"
_AT_ONCE = 8
_State = Literal["same", "absent", "other", "differs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """Content of a registry at `place`.

    `state`: `same`: the tag leads to this image, there is nothing to do; `absent`: there is no such tag; `other`: the tag leads
    to an image of another key; `differs`: to one with this key and another digest than this store knows, which must not be.
    `digest` and `key` are those that the tag leads to. `there` and `push` count bytes of our own layers, `lacking` names the
    layers that are not there. `mount` counts bytes that another repository of the registry has, `stream` those of the base's
    layers that the registry does not have.
    """

    place: Reference
    state: _State
    digest: str | None = None
    key: str | None = None
    there: int = 0
    push: int = 0
    lacking: tuple[str, ...] = ()
    mount: int = 0
    stream: int = 0


def look(
    registry: Registry,
    place: Reference,
    *,
    key: str,
    digest: str | None,
    own: Sequence[Descriptor],
    base: Sequence[Descriptor],
    home: tuple[str, str] | None,
    others: Mapping[str, str],
) -> Remote:
    """Ask the registry of `place` (with a tag). `digest` is that of the image of `key` in this store, or None.

    `own` are the layers of ours that are made already. `home` is the base's registry and repository, `others` repositories that
    may have blobs by digest. Raises Unauthorized and CregraphError as the registry does.
    """
    found = registry.digest_at(place.repository, place.tag)
    if found is not None:
        theirs = _key_of(registry, place, found)
        state: _State = "other" if theirs != key else "same" if digest in (None, found) else "differs"
        return Remote(place=place, state=state, digest=found, key=theirs)

    def has(blob: Descriptor) -> bool:
        return registry.has_blob(place.repository, blob.digest)

    def mountable(blob: Descriptor) -> bool:
        sources = {home[1]} if home and home[0] == registry.host else set()
        sources |= {others[blob.digest]} if blob.digest in others else set()
        return any(_has(registry, source, blob) for source in sources)

    absent = _without({*own, *base}, has)
    far = _without(absent, mountable)
    lacking = [blob for blob in dict.fromkeys(own) if blob in absent]
    return Remote(
        place=place,
        state="absent",
        there=_bytes(own) - _bytes(lacking),
        push=_bytes(far & {*own}),
        lacking=tuple(blob.digest for blob in lacking),
        mount=_bytes(absent - far),
        stream=_bytes(far - {*own}),
    )


def _without(blobs: set[Descriptor], has: Callable[[Descriptor], bool]) -> set[Descriptor]:
    """Return the blobs for which `has` is false; it is asked about several at once."""
    with threads(_AT_ONCE) as pool:
        return {blob for blob, known in zip(blobs, pool.map(has, blobs), strict=True) if not known}


def _bytes(blobs: Iterable[Descriptor]) -> int:
    return sum(blob.size for blob in blobs)


def _has(registry: Registry, repository: str, blob: Descriptor) -> bool:
    try:
        return registry.has_blob(repository, blob.digest)
    except Unauthorized:
        return False


def _key_of(registry: Registry, place: Reference, digest: str) -> str | None:
    """Return the key that the image at `place` states, or None: it may be an image of another program, or no image."""
    raw = registry.manifest(place.repository, digest)
    try:
        manifest = follow(raw, lambda one: registry.manifest(place.repository, one.digest), what=str(place))
    except Unauthorized:
        raise
    except CregraphError:
        return None
    if manifest.config.size > CONFIG_LIMIT:
        return None
    try:
        data = b"".join(registry.blob(place.repository, manifest.config))
    except NotInRegistry:
        return None
    try:
        inner = read_json(data, what=f"{place}: config", limit=CONFIG_LIMIT).get("config")
    except CregraphError:
        return None
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    found = labels.get(_KEY) if isinstance(labels, dict) else None
    return found if isinstance(found, str) else None
