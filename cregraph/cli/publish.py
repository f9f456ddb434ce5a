"""`--output registry`: a built image into a registry.

    registry               the registry that sources.yaml calls `snowflake` (else the profile's snowflake.registry_url), in the
                           profile's snowflake.image_repo_path
    registry:HOST/PATH     that registry and path

One rule for both: the image's name and the lock's tag are appended, `HOST/PATH/<cre.image>:<tag>`; the path is lower-cased, as
Snowflake folds names. The tag is always the lock's, so it is refused in PATH.
"""

from __future__ import annotations

from cregraph.build import Built
from cregraph.cli.say import megabytes, talk, working
from cregraph.errors import CregraphError
from cregraph.image.base import BaseImage, registry_of
from cregraph.image.push import push_image, target_of
from cregraph.image.reference import Reference
from cregraph.image.registry import Registry
from cregraph.project import Project
from cregraph.sources.world import OneWorld

__all__ = ["place_of", "publish"]

_SNOWFLAKE = "snowflake"


def publish(project: Project, built: Built, base: BaseImage, rest: str, world: OneWorld) -> str:
    """Push the image; returns `host/repository:tag@digest`. `rest` is what stands after `registry:`, empty for the profile's.

    Raises Refused when the tag leads to another digest there, CregraphError for a place that is none or cannot be written to.
    """
    identity = built.plan.lock.identity
    path = "" if rest else project.asked().composition.profile.image_repo_path or ""
    to, registry = place_of(rest, path=path, image=identity.image, tag=built.plan.tag, world=world, profile=str(project.profile))
    with working(f"pushing {to}"):
        pushed = push_image(built.image, world.store, base, to, registry=registry)
    if pushed.unchanged:
        talk(f"{to} is there already, with this digest: nothing to push")
    else:
        talk(
            f"{to}: {megabytes(pushed.pushed)} pushed, {megabytes(pushed.mounted)} mounted from the base's repository, "
            f"{megabytes(pushed.skipped)} there before"
        )
    return str(pushed.reference)


def place_of(rest: str, *, path: str, image: str, tag: str, world: OneWorld, profile: str) -> tuple[Reference, Registry]:
    """Where the image goes, and the registry to speak to. `path` is the profile's, without slashes at its ends."""
    if rest:
        host, slash, path = rest.rstrip("/").partition("/")
        if not slash or not path or not (any(c in host for c in ".:") or host == "localhost"):
            raise CregraphError(
                f"`--output registry:{rest}` names no registry and path",
                hint="write registry:HOST/PATH; the image's name and tag are appended",
            )
        if ":" in path or "@" in path:
            raise CregraphError(
                f"`--output registry:{rest}` names a tag or digest; the tag is the lock's, {tag}",
                hint=f"write registry:{host}/{path.partition('@')[0].partition(':')[0]}",
            )
        named = next((r for r in world.table.registry.values() if r.host == host.lower()), None)
        registry = Registry.at(host.lower(), plain_http=True if named and named.plain_http else None)
    else:
        if not path:
            raise CregraphError(
                f"`{profile}`: snowflake.image_repo_path: is missing, so there is no place to push to",
                hint="write `snowflake: {image_repo_path: database/schema/repository}`, or name it: --output registry:HOST/PATH",
            )
        registry = registry_of(_SNOWFLAKE, world.routes)
    return target_of(f"{registry.host}/{path}/{image}:{tag}"), registry
