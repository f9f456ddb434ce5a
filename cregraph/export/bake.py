"""Several images in one build: `docker-bake.json` with a target for each profile, over one Dockerfile with every stage once.

The name of a stage follows from its content, so profiles that share a stage have one name for it. The highest shared stage is a
target of its own, and the other targets use it as the context `target:…`: the build runs it once, also without a cache.

Source: Bake file reference (JSON form), https://docs.docker.com/build/bake/reference/.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cregraph.errors import CregraphError
from cregraph.export import artifacts
from cregraph.export.artifacts import Chain
from cregraph.export.folder import Content

__all__ = ["FILE", "Image", "files_of"]

FILE = "docker-bake.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A target: the profile's name, the image's name with its tag, its stages, and the value of `--build-context`."""

    target: str
    name: str
    chain: Chain
    context: str | None


def files_of(images: Sequence[Image], tasks: Sequence[str] = ()) -> dict[str, Content]:
    """Return all files of the export. `tasks` are lines about tasks.

    Raise CregraphError if targets or images of two profiles have one name.
    """
    targets: dict[str, dict[str, object]] = {}
    named: dict[str, Image] = {}
    tops = _tops([image.chain for image in images])
    for image in images:
        target = re.sub(r"[^A-Za-z0-9_-]", "-", image.target)
        if target in targets or target == "default" or target in tops:
            raise CregraphError(
                f"the profile `{image.target}` would be the target `{target}`, which another profile uses",
                hint="rename one of the profiles",
            )
        other = named.setdefault(image.name, image)
        if other.chain.plan.key != image.chain.plan.key:
            raise CregraphError(
                f"`{other.target}` and `{image.target}` would both be `{image.name}`", hint="change cre.image in one of them"
            )
        targets[target] = {**_target(image, image.chain.last, tops), "tags": [image.name]}
    wanted = list(targets)
    for image in images:
        for stage in image.chain.stages:
            if stage.name in tops:
                targets.setdefault(_shared(stage.name), _target(image, stage.name, tops))
    listing = {"group": {"default": {"targets": wanted}}, "target": targets}
    chains = [image.chain for image in images]
    said = [f"{image.target}: {image.name}" for image in images]
    text = artifacts.text_of(chains, artifacts.head("bake", [*said, "docker buildx bake"]), tasks)
    files: dict[str, Content] = {**artifacts.files_of(chains), "Dockerfile": text.encode()}
    files[FILE] = (json.dumps(listing, indent=2, sort_keys=True) + "\n").encode()
    return files


def _tops(chains: Sequence[Chain]) -> frozenset[str]:
    """Return the highest stages that several images share: above each, at least one image has another stage."""
    users = Counter(name for names in {chain.last: [s.name for s in chain.stages] for chain in chains}.values() for name in names)
    found = set()
    for chain in chains:
        for stage, above in zip(chain.stages, [*chain.stages[1:], None], strict=True):
            if users[stage.name] > 1 and (above is None or users[above.name] < users[stage.name]):
                found.add(stage.name)
    return frozenset(found)


def _target(image: Image, stage: str, tops: frozenset[str]) -> dict[str, object]:
    """Return the target that ends with `stage`. The highest shared stage below it comes from that stage's own target."""
    below = [s.name for s in image.chain.stages]
    below = below[: below.index(stage)] if stage in below else below
    contexts = {}
    shared = next((name for name in reversed(below) if name in tops), None)
    if shared is not None:
        contexts[shared] = f"target:{_shared(shared)}"
    if image.context is not None:  # BuildKit looks it up also where a stage above it is given
        name, _, place = image.context.partition("=")
        # Texts in this file are templates: what would begin one is doubled. All other names are made of plain letters.
        contexts[name] = re.sub(r"([$%])(?=\{)", r"\1\1", place)
    made: dict[str, object] = {"context": ".", "dockerfile": "Dockerfile", "target": stage}
    made["platforms"] = [image.chain.plan.lock.platform]
    return {**made, "contexts": contexts} if contexts else made


def _shared(stage: str) -> str:
    """Return the target of a shared stage. Names of targets have no dots."""
    return "shared-" + stage.replace(".", "-")
