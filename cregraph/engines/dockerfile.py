"""A task as Dockerfile text. Pure: a function of the task alone.

What a package or a person named (commands, environment, names of packages) never stands in the text: it is in the orders that the
program of `cregraph.engines.inside` reads. What does stand there is quoted here, in one place.
"""

from __future__ import annotations

import json
import re

from cregraph.engines import contract, inside
from cregraph.engines.contract import Limits
from cregraph.errors import CregraphError
from cregraph.plan.parts import Task
from cregraph.text import printable

__all__ = ["INPUTS", "OUTPUT", "ROOT", "copy", "stage_name", "task_file", "task_name", "task_stage"]

#: The named contexts of `task_stage`: an image of all that the task sees, and one of what is mounted into it.
ROOT = "root"
INPUTS = "inputs"

#: Where the last stage of `task_file` holds the output folder of the task.
OUTPUT = "out"

#: What COPY does not take as it stands: patterns of Go's path.Match, variables, escapes, and what could end the line.
_READ = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029$\\*?\[\]\"'`]")
_MOUNTED = ("/etc/hosts", "/etc/resolv.conf")


def stage_name(name: str, key: str) -> str:
    """Return `<name>-<12 digits of key>` in the letters that a stage's name may have (lower case, first a letter)."""
    plain = re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-._")[:80] or "stage"
    return f"{plain if plain[0].isalpha() else 's' + plain}-{key[:12]}"


def task_name(task: Task) -> str:
    """Return the name of a task's stage, such as `r-bitops-1a2b3c4d5e6f`."""
    return stage_name(f"{task.kind}-{task.name}", task.key)


def task_stage(task: Task, *, limits: Limits, root: str = ROOT, inputs: str = INPUTS) -> list[str]:
    """The stage that runs a task, as lines of Dockerfile.

    `root` is a stage, or named context, whose files are what the task sees (`TaskLayers.stack`, then `inside.skeleton()`,
    PROGRAM, and ORDERS of `inside.orders`); `inputs` one with the folder `in` of the task's inputs, and the files `hosts` and
    `resolv.conf` of the contract.
    """
    mounts = [
        f"type=bind,from={inputs},source=/in,target={contract.INPUTS}",
        # BuildKit writes these two for itself; a mount over them is what a command then sees.
        *(f"type=bind,from={inputs},source=/{path.rpartition('/')[2]},target={path}" for path in _MOUNTED),
        f"type=tmpfs,target=/tmp,size={limits.temporary}",
        f"type=tmpfs,target=/dev/shm,size={limits.temporary}",
    ]
    run = ["RUN --network=none \\", *(f"    --mount={mount} \\" for mount in mounts), f"    {json.dumps([inside.PROGRAM])}"]
    return [f"FROM {root} AS {task_name(task)}", *run]


def task_file(task: Task, *, limits: Limits) -> str:
    """The whole file for one task: its stage, and one that holds what it left as OUTPUT."""
    output = copy(task.output, f"/{OUTPUT}/", stage=task_name(task))
    return "\n".join([*task_stage(task, limits=limits), "", "FROM scratch", output, ""])


def copy(source: str, target: str, *, stage: str) -> str:
    """A COPY line of one path. Raises CregraphError for a path that BuildKit would read as a pattern, a variable or an escape."""
    for path in (source, target):
        if _READ.search(path):
            raise CregraphError(
                f"the path `{printable(path, 200)}` cannot be copied out of a stage",
                hint="use `--engine native`: BuildKit does not accept the signs $ \\ * ? [ ] and quotes in paths",
            )
    return f"COPY --from={stage} {json.dumps([source, target], ensure_ascii=False)}"
