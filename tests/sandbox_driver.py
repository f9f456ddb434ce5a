"""Runs tasks in a process of its own, for tests that need another user, another environment, or a death: JSON in, JSON out.

Argument: {"repository", "store", "layer", "tasks": [arguments of cregraph.plan.parts.task…],
"inputs": {sha256: path}, "limits", "jobs"}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def main() -> None:
    spec = json.loads(sys.argv[1])
    sys.path.insert(0, spec["repository"])
    from cregraph.engines.contract import Limits
    from cregraph.engines.native import Native
    from cregraph.engines.trees import Trees
    from cregraph.errors import CregraphError
    from cregraph.lock.pins import Artifact
    from cregraph.plan.parts import task
    from cregraph.store import Store
    from tests.task_runs import run_tasks

    def layers(_digest: str) -> Iterator[IO[bytes]]:
        with open(spec["layer"], "rb") as file:
            yield file

    def unpack(key: str, folder: Path) -> None:
        raise AssertionError(key)

    store = Store(Path(spec["store"]))
    tasks: list[Any] = []
    for arguments in spec["tasks"]:
        arguments["inputs"] = {name: Artifact(**a) for name, a in arguments.pop("inputs", {}).items()}
        arguments["argv"] = tuple(arguments["argv"])
        tasks.append(task(**arguments))
    engine = Native(store, Trees(store, layers=layers, unpack=unpack), limits=Limits(**spec.get("limits", {})))
    reason = engine.available()
    if reason:
        print(json.dumps({"unavailable": reason}))
        return
    inputs = spec.get("inputs", {})
    try:
        found = run_tasks(tasks, store=store, engine=engine, artifact=lambda a: Path(inputs[a.sha256]), jobs=spec.get("jobs", 1))
    except CregraphError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return
    print(json.dumps({"results": [found[t.key] for t in tasks], "uid": os.getuid()}))


if __name__ == "__main__":
    main()
