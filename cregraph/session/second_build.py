"""A second build of a session's image in another process, and its comparison with the first.

Everything that must not decide bytes is different there. The clock cannot be set, so a result that holds only the date differs
on another day only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from cregraph.build.rebuild_comparison import Compared, compare, seed
from cregraph.errors import CregraphError
from cregraph.session.session import Session
from cregraph.store import Store

__all__ = ["build_again"]

#: Variables of the second process, besides the time zone, the store and the folder for temporary files.
_ENV = {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "USER": "somebody", "LOGNAME": "somebody", "PYTHONHASHSEED": "77"}


def build_again(session: Session, *, program: str, on_start: Callable[[dict[str, str]], None]) -> tuple[Compared, dict[str, str]]:
    """Build the image of the lock once more into another store. Return what differs, and the second build's circumstances.

    The second store begins with the artifacts and images of the first, and with none of its results. `program` is the module
    that builds; it reads JSON on stdin. `on_start` gets the circumstances before it starts.

    Raises:
        CregraphError: The second build failed.
    """
    options, store = session.options, session.store
    with store.scratch_folder() as folder:
        other = Store(folder / "another store, by another name")
        seed(store, other, sorted(set(_inputs(session))))
        temporary = folder / "another folder for temporary files"
        temporary.mkdir()
        zone = "UTC" if os.environ.get("TZ") == "Asia/Kolkata" else "Asia/Kolkata"
        package = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
        places = {"CREGRAPH_CACHE": str(other.root), "TMPDIR": str(temporary), "PYTHONPATH": package}
        mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        processors = mine[-1:] if len(mine) > 1 else []
        user, prefix = _other_user() if options.engine in ("auto", "native") else ("", [])
        jobs = 1 if options.workers > 1 else 2
        circumstances = {"time zone": zone, "locale": "C", "umask": "077", "hash seed": "77"}
        circumstances |= {"processors": f"{len(processors) or len(mine)} of {len(mine)}"} if mine else {}
        circumstances |= {"user": user} if user else {}
        circumstances["jobs"] = str(jobs)
        on_start(circumstances)
        again = asdict(replace(options, jobs=jobs, fresh=True))
        asked = {"profile": str(session.project.profile), "options": again, "processors": processors}
        env = {**os.environ, **_ENV, **places, "TZ": zone}
        started = subprocess.Popen([*prefix, sys.executable, "-m", program], stdin=subprocess.PIPE, env=env, umask=0o077)
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
        compared = compare(session.plan, store, other, session.outputs.expected(), keep=store.root / "differences")
        return compared, circumstances


def _other_user() -> tuple[str, list[str]]:
    """Return another user, for people, and the words before a command that then runs as that user; empty if there is none."""
    is_root = os.geteuid() == 0
    unshare = shutil.which("unshare") if sys.platform == "linux" else None
    words = [str(unshare), "--user", *(["--map-user=4242", "--map-group=4242"] if is_root else ["--map-root-user"])]
    if unshare is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        return "", []
    return f"{4242 if is_root else 0}, in a namespace", words


def _inputs(session: Session) -> Iterator[str]:
    """Yield the sha256 of every object that a build reads and no build makes."""
    plan = session.plan
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
