"""Images as a source: the image of a name now, the image of a pin, and its base facts.

sources.yaml states the host of a named registry (`registry: snowflake`). Pins and base facts do not contain that host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from cregraph.digest import sha256
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import BaseImage, ask, beside, find, registry_of
from cregraph.image.media.registry import NotInRegistry
from cregraph.image.model.reference import DockerName, ImageName, LayoutName, parse_reference
from cregraph.lock import base_facts_json as facts_json
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.sources.protocol import Sources
from cregraph.store import Store
from cregraph.store.atomic_file import write_file

__all__ = ["ImageSources", "facts_digest", "facts_for", "facts_path", "first_with_tag", "named", "opened"]


class ImageSources(Sources, Protocol):
    """Sources with a store, which keeps the manifests and configs of images."""

    store: Store


def named(name: ImageName, sources: ImageSources, project: Path) -> tuple[Artifact, BaseImage]:
    """Return the artifact (host, `oci:DIR` or `docker:NAME`; `repository:tag`; digest) and the image of `name` now."""
    if isinstance(name, LayoutName):
        source, file = f"oci:{name.folder}", name.tag
    elif isinstance(name, DockerName):
        source, file = str(name), ""
    else:
        source, file = name.host, name.name
    known = beside(source, file, sources.routes("image", ""))
    if known is not None:
        return known, opened(known, sources, project)
    image = ask(name, project=project, store=sources.store, offline=sources.offline)
    return _artifact(image, source, file), image


def first_with_tag(
    registry: str, repositories: Sequence[str], tag: str, sources: ImageSources, project: Path
) -> tuple[Artifact, BaseImage]:
    """Return artifact and image from the first of `repositories` of the named registry that has `tag`.

    Raises CregraphError that names all images tried if no repository has it. A refused login is raised immediately,
    so that the pin never depends on the user's rights.
    """
    for repository in repositories:
        known = beside(f"registry:{registry}", f"{repository}:{tag}", sources.routes("image", ""))
        if known is not None:
            return known, opened(known, sources, project)
    if sources.offline:
        raise CregraphError(
            f"tag `{tag}` needs registry `{registry}`, but --offline is set",
            "run once without --offline",
        )
    asked = registry_of(registry, sources.routes)
    for repository in repositories:
        name = parse_reference(f"{asked.host}/{repository}:{tag}")
        try:
            image = ask(name, project=project, store=sources.store, registry=asked)
        except NotInRegistry:
            continue
        return _artifact(image, f"registry:{registry}", f"{repository}:{tag}"), image
    tried = "".join(f"\n  {repository}:{tag}" for repository in repositories)
    raise CregraphError(
        f"{asked.host} (registry `{registry}`) has none of these images:{tried}",
        "check the tag (`cre.snowbooks_tag`), and that your role may read the repository",
    )


def opened(artifact: Artifact, sources: ImageSources, project: Path) -> BaseImage:
    """Return the image that a lock pins, by its digest."""
    return find(artifact, routes=sources.routes, project=project, store=sources.store, offline=sources.offline)


def facts_path(project: Path, sha256: str) -> Path:
    return project / "bases" / f"{sha256}.json"


def facts_for(
    artifact: Artifact,
    sources: ImageSources,
    project: Path,
    *,
    image: BaseImage | None = None,
    pinned: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> BaseFacts:
    """Return the base facts of a pinned image from `bases/<digest>.json`, else from its layers. Writes the missing file.

    If `pinned` is known, a file with another sha256 is replaced.

    Raises CregraphError naming the file and field if the file does not hold facts of that image.
    """
    path = facts_path(project, artifact.sha256)
    name = f"bases/{path.name}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = None
    except (OSError, UnicodeDecodeError) as error:
        raise CregraphError(f"`{name}` cannot be read: {error}", f"remove `{name}` and run `cregraph lock`") from None
    if text is not None and pinned in (None, sha256(text.encode())):
        facts = facts_json.loads(text, name=name)
        if facts.digest != f"sha256:{artifact.sha256}":
            raise CregraphError(
                f"{name}: digest: {facts.digest} does not match the file name",
                f"remove `{name}` and run `cregraph lock` to make it again",
            )
        return facts
    from cregraph.image.bases.facts_from_layers import facts_of

    facts = facts_of(image or opened(artifact, sources, project), progress=progress)
    write_file(path, facts_json.dumps(facts).encode())
    return facts


def facts_digest(facts: BaseFacts) -> str:
    """Return the sha256 of the file that holds `facts`. The image's pin states it, to detect changes of the file."""
    return sha256(facts_json.dumps(facts).encode())


def _artifact(image: BaseImage, source: str, file: str) -> Artifact:
    digest = image.manifest.digest.removeprefix("sha256:")
    return Artifact(kind="image", source=source, file=file, sha256=digest, size=len(image.manifest.raw))
