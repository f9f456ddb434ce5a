"""A built image into a registry: `cregraph push`, and `--output registry` of a build.

    nothing        the registry that sources.yaml calls `snowflake` (else the profile's snowflake.registry_url), in the
                   profile's snowflake.image_repo_path
    HOST/PATH      that registry and path

One rule for both: the image's name and the lock's tag are appended, `HOST/PATH/<cre.image>:<tag>`; the path is lower-cased, as
Snowflake folds names. The tag is always the lock's, so it is refused in PATH.
"""

from __future__ import annotations

import time

from cregraph.build.image_build import Built
from cregraph.cli.push_progress import Transfer
from cregraph.cli.say import megabytes, talk
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import BaseImage, registry_of
from cregraph.image.media.push import Pushed, push_image, target_of
from cregraph.image.media.registry import Registry
from cregraph.image.model.reference import Reference
from cregraph.session.project import Project
from cregraph.sources.configured import ConfiguredSources
from cregraph.store.pushed import elsewhere, remember_pushed
from cregraph.store.throughput import Throughput
from cregraph.store.uploads import Uploads

__all__ = ["check_place", "place_of", "publish", "published"]

_SNOWFLAKE = "snowflake"


def publish(project: Project, built: Built, base: BaseImage, rest: str, world: ConfiguredSources) -> str:
    """Push the image; returns `host/repository:tag@digest`. `rest` is what stands after `registry:`, empty for the profile's.

    Raises Refused when the tag leads to another digest there, CregraphError for a place that is none or cannot be written to.
    """
    return str(published(project, built, base, rest, world, typed="--output registry:").reference)


def check_place(project: Project, rest: str, sources: str | None, *, typed: str) -> None:
    """Raise what `published` would raise for a place that is none, before anything is made. Opens no socket."""
    asked, lock = project.asked(), project.read_lock()
    if lock is None:
        return  # said by whoever wants it
    profile = asked.composition.profile
    world = ConfiguredSources(
        store=project.store(), routes=project.routes(sources, registry_url=profile.registry_url), local=project.local()
    )
    place_of(
        rest,
        path="" if rest else profile.image_repo_path or "",
        image=lock.identity.image,
        tag=lock.identity.label,
        world=world,
        profile=str(project.profile),
        typed=typed,
    )


def published(project: Project, built: Built, base: BaseImage, rest: str, world: ConfiguredSources, *, typed: str) -> Pushed:
    """Push the image, say what moved, and keep what is known now. `typed` is what stood before `rest`, for messages."""
    identity = built.plan.lock.identity
    path = "" if rest else project.asked().composition.profile.image_repo_path or ""
    to, registry = place_of(
        rest, path=path, image=identity.image, tag=built.plan.tag, world=world, profile=str(project.profile), typed=typed
    )
    store, start = world.store, time.monotonic()
    whole = sum(layer.size for layer in built.image.layers)
    with Transfer(f"pushing {to}", whole=whole) as transfer:
        pushed = push_image(
            built.image,
            store,
            base,
            to,
            registry=registry,
            others=elsewhere(store, registry.host, to.repository),
            begun=Uploads(store, registry.host),
            progress=transfer,
        )
    remember_pushed(store, registry.host, to.repository, [layer.digest for layer in built.image.layers])
    if pushed.unchanged:
        talk(f"{to} is there already, with this digest: nothing to push")
        return pushed
    if pushed.pushed:
        throughput = Throughput()
        throughput.note("push", time.monotonic() - start, pushed.pushed)
        throughput.save(store)
    streamed = f" ({megabytes(pushed.streamed)} of them the base's, streamed)" if pushed.streamed else ""
    mounted = f", {megabytes(pushed.mounted)} mounted from other repositories there" if pushed.mounted else ""
    before = f", {megabytes(pushed.skipped)} there before" if pushed.skipped else ""
    talk(f"{to}: {megabytes(pushed.pushed)} pushed{streamed}{mounted}{before}")
    return pushed


def place_of(
    rest: str, *, path: str, image: str, tag: str, world: ConfiguredSources, profile: str, typed: str
) -> tuple[Reference, Registry]:
    """Where the image goes, and the registry to speak to. `path` is the profile's, without slashes at its ends."""
    if rest:
        if "://" in rest:
            raise CregraphError(
                f"`{typed}{rest}` names a scheme; a registry is named by its host",
                hint=f"write {typed.rpartition(' ')[2]}{rest.partition('://')[2]}; that it speaks plain HTTP is said in "
                "sources.yaml (`plain_http: true` beside its host)",
            )
        host, slash, path = rest.rstrip("/").partition("/")
        if not slash or not path or not (any(c in host for c in ".:") or host == "localhost"):
            raise CregraphError(
                f"`{typed}{rest}` names no registry and path",
                hint=f"write {typed.rpartition(' ')[2]}HOST/PATH; the image's name and tag are appended",
            )
        if ":" in path or "@" in path:
            raise CregraphError(
                f"`{typed}{rest}` names a tag or digest; the tag is the lock's own",
                hint=f"write {typed.rpartition(' ')[2]}{host}/{path.partition('@')[0].partition(':')[0]}",
            )
        named = next((r for r in world.table.registry.values() if r.host == host.lower()), None)
        registry = Registry.at(host.lower(), plain_http=True if named and named.plain_http else None)
    else:
        if not path:
            raise CregraphError(
                f"`{profile}`: snowflake.image_repo_path: is missing, so there is no place to push to",
                hint="write `snowflake: {image_repo_path: database/schema/repository}`, or name it: HOST/PATH",
            )
        registry = registry_of(_SNOWFLAKE, world.routes)
    return target_of(f"{registry.host}/{path}/{image}:{tag}"), registry
