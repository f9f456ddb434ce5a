"""Opens the sandbox of a task, for tests: JSON (argument): {"repository", "engine", "store", "layer", "command", "name"}."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def main() -> int:
    spec = json.loads(sys.argv[1])
    sys.path.insert(0, spec["repository"])
    from cregraph.engines.buildx import Buildx
    from cregraph.engines.docker import Docker
    from cregraph.engines.native import Native
    from cregraph.engines.task_layers import TaskLayers
    from cregraph.engines.trees import Trees
    from cregraph.plan.parts import task
    from cregraph.store import Store

    def layers(_digest: str) -> Iterator[IO[bytes]]:
        with open(spec["layer"], "rb") as file:
            yield file

    store = Store(Path(spec["store"]))
    engine: Any = Docker(store, TaskLayers(store, layers=layers), Buildx())
    if spec["engine"] == "native":
        engine = Native(store, Trees(store, layers=layers, unpack=lambda _key, _folder: None))
    if reason := engine.available():
        print("unavailable:", reason)
        return 99
    one = task(
        assembly=1,
        kind="test",
        stage="test",
        name=spec["name"],
        root="sha256:" + "5a" * 32,
        argv=tuple(spec["command"]),
        env={"PS1": "in> ", "TERM": os.environ.get("TERM", "dumb")},
        output="/cregraph/out",
    )
    return int(engine.shell(one, inputs={"src.txt": store.path_of(store.add(b"source\n"))}, results={}))


if __name__ == "__main__":
    sys.exit(main())
