"""The destination of a session's image, and the push.

    nothing        the registry that sources.yaml calls `snowflake` (else the profile's snowflake.registry_url), in the
                   profile's snowflake.image_repo_path
    HOST/PATH      that registry and path

The image's name and the lock's tag are appended, `HOST/PATH/<cre.image>:<tag>`. The path is lower-cased, as Snowflake folds
names. The tag is always the lock's, so PATH must not hold one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cregraph.build.image_build import Built
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import registry_of
from cregraph.image.media.push import Moved, Pushed, own_blobs, push, target_of
from cregraph.image.media.registry import Registry
from cregraph.image.model.manifest import read_manifest
from cregraph.image.model.reference import Reference
from cregraph.session.session import Session
from cregraph.store.push_records import Uploads, elsewhere, remember_pushed
from cregraph.store.throughput import Throughput

__all__ = ["Destination", "publish", "push_place"]

_SNOWFLAKE = "snowflake"

Destination = tuple[Reference, Registry]


def push_place(session: Session, rest: str, *, typed: str) -> Destination:
    """Return the reference that the image of the lock gets, and its registry. Opens no connection.

    `rest` is HOST/PATH, or "" for the profile's place. `typed` is what stood before it on the command line, for messages.

    Raises:
        CregraphError: `rest` is not a registry and path, or the profile and sources.yaml name no place.
    """
    if rest:
        registry, path = _named(session, rest, typed)
    else:
        path = session.asked.composition.profile.image_repo_path or ""
        if not path:
            raise CregraphError(
                f"{session.project.profile}: snowflake.image_repo_path: is missing, but a push needs it",
                hint="write `snowflake: {image_repo_path: database/schema/repository}`, or name it: HOST/PATH",
            )
        registry = registry_of(_SNOWFLAKE, session.sources.routes)
    return target_of(f"{registry.host}/{path}/{session.lock.identity.image}:{session.plan.tag}"), registry


def _named(session: Session, rest: str, typed: str) -> tuple[Registry, str]:
    example = typed.rpartition(" ")[2]
    if "://" in rest:
        raise CregraphError(
            f"`{typed}{rest}` contains a scheme (expected a host)",
            hint=f"write {example}{rest.partition('://')[2]}. For plain HTTP, set `plain_http: true` in sources.yaml",
        )
    host, slash, path = rest.rstrip("/").partition("/")
    if not slash or not path or not (any(c in host for c in ".:") or host == "localhost"):
        raise CregraphError(
            f"`{typed}{rest}` is not a registry and path (expected HOST/PATH)",
            hint=f"write {example}HOST/PATH. cregraph appends the image's name and tag",
        )
    if ":" in path or "@" in path:
        raise CregraphError(
            f"`{typed}{rest}` contains a tag or digest, but the lock decides the tag",
            hint=f"write {example}{host}/{path.partition('@')[0].partition(':')[0]}",
        )
    named = next((r for r in session.routes.registry.values() if r.host == host.lower()), None)
    return Registry.at(host.lower(), plain_http=True if named and named.plain_http else None), path


def publish(session: Session, built: Built, to: Destination, *, progress: Callable[[Moved], None]) -> Pushed:
    """Push the image and remember which blobs the registry has now.

    Raises:
        Refused: The tag exists with another digest.
        CregraphError: The registry cannot be reached or refuses the push.
    """
    (reference, registry), store, start = to, session.store, time.monotonic()
    pushed = push(
        read_manifest(built.image.manifest, what=str(reference)),
        own_blobs(built.image, store),
        session.base,
        reference,
        registry=registry,
        others=elsewhere(store, registry.host, reference.repository),
        begun=Uploads(store, registry.host),
        progress=progress,
    )
    remember_pushed(store, registry.host, reference.repository, [layer.digest for layer in built.image.layers])
    if pushed.pushed and not pushed.unchanged:
        throughput = Throughput()
        throughput.note("push", time.monotonic() - start, pushed.pushed)
        throughput.save(store)
    return pushed
