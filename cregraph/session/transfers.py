"""The bytes that a build and a push of a session's image would move, as far as this machine and the registry know."""

from __future__ import annotations

from dataclasses import dataclass

from cregraph.build.image_build import image_digest
from cregraph.engines.trees import kept_root
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import home_of
from cregraph.image.media.registry import Registry
from cregraph.image.media.registry_state import Remote, look
from cregraph.image.model import layer as layers_of
from cregraph.image.model import segment as segments_of
from cregraph.image.model.manifest import Descriptor
from cregraph.image.model.reference import Reference
from cregraph.plan.missing_work import MissingWork
from cregraph.session.publication import push_place
from cregraph.session.session import Session
from cregraph.store.push_records import elsewhere, pushed_to

__all__ = ["Places", "Push", "Transfers", "estimate", "places", "registry_state"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The destination of a push, and the host and repository of the base; None for an unknown place."""

    to: Reference | None
    registry: Registry | None
    home: tuple[str, str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """Bytes that a push moves.

    Attributes:
        bytes: Of our layers. `exact` if the registry was asked and every layer is made, else an estimate.
        mount: Of the base, mounted from another repository of the same registry.
        stream: Of the base, streamed from its registry.
        layers: Number of our layers that are not known to be there.
    """

    place: str | None
    bytes: int
    exact: bool
    mount: int
    stream: int
    layers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfers:
    """Bytes that a build and a push move.

    Attributes:
        base: Of the base, in `base_layers` layers, for an image on disk or in an engine.
        root: Of the image that tasks run over.
    """

    push: Push
    base: int
    base_layers: int
    root: int


def places(session: Session, to: str, *, needed: bool) -> Places:
    """Return where a push to `to`, or to the profile's place, goes. Opens no connection.

    Raises:
        CregraphError: `needed`, and there is no such place.
    """
    try:
        home = home_of(session.lock.base.artifact, routes=session.sources.routes)
    except CregraphError:
        home = None  # no registry of that name on this machine: a build says so
    try:
        place, registry = push_place(session, to, typed="--to ")
    except CregraphError:
        if needed:
            raise
        return Places(to=None, registry=None, home=home)
    return Places(to=place, registry=registry, home=home)


def registry_state(session: Session, where: Places) -> Remote:
    """Ask the registry what it has of the image."""
    plan, store = session.plan, session.store
    assert where.to is not None
    assert where.registry is not None
    own = [layers_of.read(store, layer.key) for layer in plan.layers]
    return look(
        where.registry,
        where.to,
        key=plan.key,
        digest=image_digest(plan, store),
        own=[Descriptor(media_type=made.media_type, digest=made.digest, size=made.size) for made in own if made is not None],
        base=[Descriptor(media_type=one.media_type, digest=one.digest, size=one.size) for one in session.facts.layers],
        home=where.home,
        others=elsewhere(store, where.to.host, where.to.repository),
    )


def estimate(session: Session, work: MissingWork, where: Places, remote: Remote | None) -> Transfers:
    """Return the bytes that would move to do `work` and to push. `remote` is the answer of the registry, if it was asked."""
    base = {layer.digest: layer.size for layer in session.facts.layers}
    lacking = [size for digest, size in base.items() if where.home and not session.store.has(digest.removeprefix("sha256:"))]
    return Transfers(
        push=_push(session, base, where, remote),
        base=sum(lacking),
        base_layers=len(lacking),
        root=_build_root(session) if work.tasks else 0,
    )


def _push(session: Session, base: dict[str, int], where: Places, remote: Remote | None) -> Push:
    store, to = session.store, where.to
    known = pushed_to(store, to.host, to.repository) if to else frozenset()
    made, unmade = _own_layers(session, known)
    layers, size, later = len(made) + len(unmade), sum(made), sum(unmade)
    place = str(to) if to else None
    if remote is not None and remote.state == "same":
        return Push(place=place, bytes=0, exact=True, mount=0, stream=0, layers=layers)
    if remote is not None and remote.state == "absent":
        size, exact = remote.push + later, later == 0
        return Push(place=place, bytes=size, exact=exact, mount=remote.mount, stream=remote.stream, layers=layers)
    absent = sum(size for digest, size in base.items() if digest not in known) if to else 0
    near = to is not None and where.home is not None and where.home[0] == to.host
    mount, stream = (absent, 0) if near else (0, absent)
    return Push(place=place, bytes=size + later, exact=False, mount=mount, stream=stream, layers=layers)


def _own_layers(session: Session, known: frozenset[str]) -> tuple[list[int], list[int]]:
    """Return the sizes of our layers that are not `known` to be there: of those that are made, and estimates of the others."""
    made, unmade = [], []
    for layer in session.plan.layers:
        record = layers_of.read(session.store, layer.key)
        if record is None:
            found = ((segment, segments_of.read(session.store, segment.key)) for segment in layer.segments)
            unmade.append(sum(record.size if record else segment.size for segment, record in found))
        elif record.digest not in known:
            made.append(record.size)
    return made, unmade


def _build_root(session: Session) -> int:
    store, pin = session.store, session.lock.build_root
    if kept_root(store, f"sha256:{pin.artifact.sha256}"):
        return 0
    facts = session.facts if pin == session.lock.base else session.project.facts(pin)
    return sum(layer.size for layer in facts.layers if not store.has(layer.digest.removeprefix("sha256:")))
