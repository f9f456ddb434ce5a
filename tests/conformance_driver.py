"""Runs tasks on one engine in a process of its own, for tests/test_conformance.py: JSON in (argument), JSON out.

Argument: {"repository", "engine": "native"|"docker", "store", "layer", "tasks": [{"argv", "output", "limits"…}]}.
Answer: a list of {"files": {path: [mode, text]}, "error": text or null, "hint", "log"}, one for each task.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

NEEDED = "cc" * 32
ENVIRONMENT = "aa" * 32
FILES = {"opt/env/bin/tool": (b"tool", 0o755), "opt/env/lib/one": (b"1", 0o644)}
DIGEST = "sha256:" + "5a" * 32


def main() -> None:
    spec = json.loads(sys.argv[1])
    sys.path.insert(0, spec["repository"])
    from cregraph.errors import CregraphError
    from cregraph.store import Store

    store = Store(Path(spec["store"]))
    if spec["engine"] != "native":
        from cregraph.image.model import segment
        from cregraph.image.model.tar_entry import from_bytes

        entries = [from_bytes(path, data, mode=mode) for path, (data, mode) in FILES.items()]
        segment.write(entries, store, ENVIRONMENT, 1)
    needed = io.BytesIO()
    with tarfile.open(fileobj=needed, mode="w") as tar:
        info = tarfile.TarInfo("DESCRIPTION")
        info.size, info.mtime = 4, 315532800
        tar.addfile(info, io.BytesIO(b"desc"))
    result = store.path_of(store.add(needed.getvalue()))
    source = store.path_of(store.add(b"source\n"))

    def one(number: int) -> dict[str, Any]:
        wanted = spec["tasks"][number]
        try:
            return perform(spec, store, wanted, {"src.txt": source}, {NEEDED: result}, number)
        except CregraphError as error:
            return {"files": {}, "error": f"no answer: {error.message}", "hint": error.hint, "log": ""}

    with ThreadPoolExecutor(spec.get("jobs", 2)) as pool:
        print(json.dumps(list(pool.map(one, range(len(spec["tasks"]))))))


def perform(
    spec: dict[str, Any], store: Any, wanted: dict[str, Any], inputs: dict[str, Path], results: dict[str, Path], number: int
) -> dict[str, Any]:
    from cregraph.engines.contract import Limits, TaskFailed
    from cregraph.plan.parts import task

    engine = engine_of(spec, store, Limits(**wanted.get("limits", {})))
    reason = engine.available()
    if reason:
        return {"unavailable": reason}
    made = task(
        assembly=1,
        kind="test",
        stage="test",
        name=f"probe {wanted['name']}",
        root=DIGEST,
        argv=tuple(wanted["argv"]),
        env={"OUT": "/cregraph/out", **wanted.get("env", {})},
        output=wanted.get("output", "/cregraph/out"),
        results=dict.fromkeys(results, "/opt/env/lib/needed"),
        environment=(ENVIRONMENT,),
    )
    out = io.BytesIO()
    log = Path(spec["store"]) / f"log-{number}"
    log.write_bytes(b"")
    error = hint = None
    try:
        engine.perform(made, inputs=inputs, results=results, write=out.write, log=log, slot=number)
    except TaskFailed as failure:
        error, hint = failure.reason, failure.hint
    files = {}
    if error is None:
        with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                text = content.read().decode("utf-8", "backslashreplace") if content else member.linkname
                files[member.name] = [f"{member.type.decode()}{member.mode:o}", text]
    return {"files": files, "error": error, "hint": hint, "log": log.read_text(errors="replace")}


def engine_of(spec: dict[str, Any], store: Any, limits: Any) -> Any:
    from cregraph.engines.native import Native
    from cregraph.engines.task_layers import TaskLayers
    from cregraph.engines.trees import Trees

    def layers(_digest: str) -> Iterator[IO[bytes]]:
        with open(spec["layer"], "rb") as file:
            yield file

    def unpack(_key: str, folder: Path) -> None:  # an ordinary user's interpreter may lack the compressor of segments
        for path, (data, mode) in FILES.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
            (folder / path).chmod(mode)

    if spec["engine"] == "native":
        return Native(store, Trees(store, layers=layers, unpack=unpack), limits=limits)
    from cregraph.engines.buildx import Buildx
    from cregraph.engines.docker import Docker

    return Docker(store, TaskLayers(store, layers=layers), Buildx(), limits=limits, fresh=True)


if __name__ == "__main__":
    main()
