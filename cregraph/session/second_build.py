"""A second build of a session's image in another process, under other circumstances, and its comparison with the first."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from cregraph.build.rebuild_circumstances import other_circumstances
from cregraph.build.rebuild_comparison import Compared, compare, seed
from cregraph.errors import CregraphError
from cregraph.plan.planner import Plan
from cregraph.session.session import Session
from cregraph.store import Store

__all__ = ["build_again"]


def build_again(session: Session, *, program: str, on_start: Callable[[dict[str, str]], None]) -> tuple[Compared, dict[str, str]]:
    """Build the image of the lock once more into another store. Return what differs, and the second build's circumstances.

    The second store begins with the artifacts and images of the first, and with none of its results. `program` is the module
    that builds; it reads JSON on stdin. `on_start` gets the circumstances before it starts.

    Raises:
        CregraphError: The second build failed.
    """
    options, plan, store = session.options, session.plan, session.store
    with store.scratch_folder() as folder:
        other = Store(folder / "another store, by another name")
        seed(store, other, sorted(set(_inputs(session, plan))))
        native = options.engine in ("auto", "native")
        circumstances = other_circumstances(folder, other.root, jobs=options.workers, native=native)
        again = asdict(replace(options, jobs=circumstances.jobs))
        asked = {"profile": str(session.project.profile), "options": again, "processors": circumstances.processors}
        on_start(circumstances.described)
        command = [*circumstances.prefix, sys.executable, "-m", program]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, env=circumstances.env, umask=0o077)
        try:
            started.communicate(json.dumps(asked).encode())
        except BaseException:
            started.terminate()
            started.wait()
            raise
        if started.returncode == 130:
            raise KeyboardInterrupt
        if started.returncode:
            raise CregraphError(
                "the second build, under other circumstances, failed; the reason is above",
                hint="run `cregraph shell TASK` to open the sandbox of a task",
            )
        compared = compare(plan, store, other, session.outputs.expected(), keep=store.root / "differences")
        return compared, circumstances.described


def _inputs(session: Session, plan: Plan) -> Iterator[str]:
    """Yield the sha256 of every object that a build reads and no build makes."""
    for segment in (*plan.segments.values(), *plan.hidden.values()):
        if segment.artifact:
            yield segment.artifact.sha256
    for task in plan.tasks:
        yield from (artifact.sha256 for artifact in task.artifacts)
    for image in (session.base, session.build_root):
        manifest = image.manifest
        yield manifest.digest.removeprefix("sha256:")
        yield manifest.config.hex
        yield from (layer.hex for layer in manifest.layers)
