"""The tasks of an image in its Dockerfile: as comments for people, or as stages that run them again.

    described   comments: inputs by digest, command, variables, and the result
    runnable    the stages of `cregraph.engines.dockerfile`, with all that they see as tars in the folder

No other stage needs these, because the results are in the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cregraph.engines import contract
from cregraph.engines.contract import Limits
from cregraph.engines.dockerfile import stage_name, task_name, task_stage
from cregraph.engines.task_image import inputs_blob, orders_blob
from cregraph.engines.task_layers import TaskLayers
from cregraph.errors import CregraphError
from cregraph.export.docker_text import comment, exec_form
from cregraph.export.folder import Content
from cregraph.formats.inflate import blocks_of
from cregraph.lock.pins import Artifact
from cregraph.plan.parts import Task
from cregraph.store import Store
from cregraph.store.task_records import verified_result

__all__ = ["described", "runnable"]

#: The sandbox's contract fixes the host name.
_HOSTNAME = f"--build-arg BUILDKIT_SANDBOX_HOSTNAME={contract.HOSTNAME}"


def described(task: Task, store: Store) -> list[str]:
    named = zip(task.inputs, task.artifacts, strict=True)
    gave = verified_result(store, task.key)
    env = [f"{name}={value}" for name, value in sorted(task.env.items())]
    return [
        comment(f"task {task.name} of stage {task.stage}, key {task.key}" + (f"; it gave sha256:{gave}" if gave else "")),
        *(
            comment(f"  reads {artifact.file or artifact.source}, sha256:{artifact.sha256}, as {name}")
            for name, artifact in named
        ),
        comment(f"  sees {len(task.environment)} packages and the results of {len(task.needs)} tasks, over {task.root}"),
        comment(f"  runs {exec_form(task.argv)} with {exec_form(env)}"),
    ]


def runnable(
    tasks: Sequence[Task], store: Store, layers: TaskLayers, fetch: Callable[[Artifact], Path]
) -> tuple[list[str], dict[str, Content]]:
    """Return the stages of `tasks` and the files that they add. Raise CregraphError for a result that the store does not have."""
    layers.expect(tasks)
    limits = Limits()
    lines: list[str] = []
    files: dict[str, Content] = {}

    def tar(sha256: str, content: Content) -> str:
        files[f"inputs/{sha256}.tar"] = content
        return f"ADD --link inputs/{sha256}.tar /"

    for task in tasks:
        results = {key: store.path_of(_result(store, task, key)) for key in task.needs}
        root, inputs = stage_name("root", task.key), stage_name("inputs", task.key)
        lines += ["", *described(task, store), f"FROM scratch AS {root}"]
        lines += [tar(layer.sha256, layer.sha256) for layer in layers.stack(task, results)]
        orders = orders_blob(task, limits=limits)
        lines.append(tar(orders.sha256, orders.data))
        context = _inputs(task, store, fetch)
        lines += [f"FROM scratch AS {inputs}", tar(context, context)]
        lines += [comment(f"docker build {_HOSTNAME} --target {task_name(task)} .")]
        lines += task_stage(task, limits=limits, root=root, inputs=inputs)
    return lines, files


def _result(store: Store, task: Task, key: str) -> str:
    found = verified_result(store, key)
    if found is None:
        raise CregraphError(
            f"task {task.name} needs the result of task {key[:12]}, which is not in this store",
            hint="build once with an empty CREGRAPH_CACHE, or omit `--with-tasks`: a remote cache gave only the later results",
        )
    return found


def _inputs(task: Task, store: Store, fetch: Callable[[Artifact], Path]) -> str:
    """Return the sha256 of the tar of a task's inputs, an object of the store."""
    with store.scratch_folder() as folder:
        place = folder / "inputs.tar"
        inputs_blob({name: fetch(artifact) for name, artifact in zip(task.inputs, task.artifacts, strict=True)}, place)
        with store.writer() as out:
            for block in blocks_of(place):
                out.write(block)
    return out.sha256
