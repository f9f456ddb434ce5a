"""The report of a build: one line for people, one object for `--json`."""

from __future__ import annotations

import time

from cregraph.build.image_build import Built
from cregraph.cli.terminal_output import counted, megabytes, seconds
from cregraph.session.session import Session

__all__ = ["answer", "summary"]


def answer(session: Session, built: Built) -> dict[str, object]:
    """Return the `--json` object of a build that sent the image nowhere and asked no remote cache."""
    image = {"image": session.image_name, "tag": built.plan.tag, "digest": built.image.digest, "key": built.plan.key}
    return {**image, "outputs": [], "made": built.made, "cache": {}}


def summary(built: Built, start: float, *, fetched: str) -> str:
    """Return one line on what a build made and reused since `start`, a monotonic time."""
    made, own = built.made, sum(layer.size for layer in built.layers)
    return (
        f"{counted(len(built.layers), 'layer')}, {megabytes(own)} over the base: "
        f"{made['layers']} made, {len(built.layers) - made['layers']} reused; "
        f"tasks: {made['tasks']} run, {len(built.plan.tasks) - made['tasks']} reused; {fetched}; "
        f"{seconds(time.monotonic() - start)}"
    )
