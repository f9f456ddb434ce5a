"""The docker engine: each task a stage of BuildKit, here or elsewhere; docs/adr/0011-tasks-as-buildkit-stages.md.

Nothing of this machine is mounted, so the builder may be anywhere: what a task sees goes there as images named by digest, of
which BuildKit asks for the layers that it lacks; what it left comes back as a tar, which is normalised as that of any engine.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cregraph.digest import key_of
from cregraph.engines import contract, inside
from cregraph.engines.buildx import Build, Buildx, Said, one_line
from cregraph.engines.capture import capture_tar
from cregraph.engines.contract import Files, Limits, Preparation, Stopped, TaskFailed, Write
from cregraph.engines.dockerfile import INPUTS, OUTPUT, ROOT, task_file, task_name
from cregraph.engines.loaded import Loaded
from cregraph.engines.task_container import open_sandbox
from cregraph.engines.task_image import Blob, TaskImage, inputs_blob, orders_blob, write_layout
from cregraph.engines.task_layers import TaskLayers
from cregraph.errors import CregraphError
from cregraph.image.model import tar_writer as tar
from cregraph.plan.parts import Task
from cregraph.store import Store

__all__ = ["Docker"]

#: Seconds that sending a root or an environment is expected to take.
_SENDING = 5.0
#: Where BuildKit's frontend finds no image by digest in a layout of ours (Docker's classic image store), it says this.
_NO_LAYOUTS = "unknown scheme oci-layout"
_COMMON = (
    *("--platform", "linux/amd64", "--provenance=false", "--sbom=false", "--output", "type=tar,dest=-", "--file", "Dockerfile"),
    *("--build-arg", f"BUILDKIT_SANDBOX_HOSTNAME={contract.HOSTNAME}"),
)
#: From how many bytes of a log on BuildKit may have dropped some: what comes faster than 200 KiB/s, and all beyond 2 MiB.
_CLIPPED = 200 << 10
_GAPS = (
    b"\ncregraph: BuildKit drops what is printed fast or beyond 2 MiB: lines may be missing here; another --engine shows all\n"
)
_CACHED = b"cregraph: BuildKit had this result; what the command printed is in the log of the run that made it\n"


class Docker:
    """Runs tasks as stages of BuildKit. See `cregraph.engines.contract.Engine`.

    `fresh`: no result that BuildKit kept is taken. BuildKit never keeps that of a failed task.
    """

    name = "docker"

    def __init__(
        self, store: Store, layers: TaskLayers, buildx: Buildx, *, limits: Limits | None = None, fresh: bool = False
    ) -> None:
        self._store = store
        self._layers = layers
        self._buildx = buildx
        self._limits = limits or Limits()
        self._fresh = fresh
        self._loaded: Loaded | None = None
        #: The bytes of each layer (`sha256:…`) that BuildKit asked for. Layers that are loaded instead are not counted.
        self.sent: dict[str, int] = {}

    def available(self) -> str | None:
        """None when this engine works here, else why not. Tries it: a build of one small file."""
        return self._refusal

    def ahead(self, tasks: Sequence[Task]) -> Sequence[Preparation]:
        """Build roots, and what several tasks see above one, made and sent; see `Engine.ahead`."""
        self._layers.expect(tasks)
        roots: dict[str, list[str]] = {}
        groups: dict[tuple[str, frozenset[str]], list[str]] = {}
        for task in tasks:
            roots.setdefault(task.root, []).append(task.key)
            group = self._layers.lowest(task)
            if group is not None:
                groups.setdefault((task.root, group), []).append(task.key)
        found = []
        for root, of in roots.items():
            send = functools.partial(self._send, root, None)
            found.append(Preparation(name=root, make=send, tasks=tuple(of), seconds=_SENDING))
        for (root, group), of in groups.items():
            if len(of) > 1:
                keys, send = tuple(sorted(group)), functools.partial(self._send, root, group)
                name = f"{root} {key_of(list(keys))}"
                found.append(Preparation(name=name, make=send, segments=keys, needs=(root,), tasks=tuple(of), seconds=_SENDING))
        return found

    def perform(self, task: Task, *, inputs: Files, results: Files, write: Write, log: Path, slot: int) -> None:
        """Run one task; see `Engine.perform`. Also raises CregraphError when the engine does not answer or does not obey."""
        contract.check(task)
        self._works()
        layers = self._layers.stack(task, results)
        with self._store.scratch_folder() as folder, log.open("ab", buffering=0) as out:
            mark = secrets.randbelow(1 << 30) + 1 if self._fresh else 0
            orders = orders_blob(task, limits=self._limits, mark=mark)
            images = {
                ROOT: TaskImage(layers=(*layers, orders), lasting=2 if task.environment else 1),
                INPUTS: TaskImage(layers=(inputs_blob(inputs, folder / "inputs.tar"),)),
            }
            wrong: Exception | None = None
            with self._run(folder, images, task_file(task, limits=self._limits), out.write) as build:
                try:
                    scratch, limit = self._store.scratch_file, self._limits.output
                    capture_tar(build.out, write, at=task.output, limit=limit, scratch=scratch, below=OUTPUT)
                except (TaskFailed, CregraphError) as error:
                    wrong = error  # if the build failed, that is why
                code = build.ended()
            if self._buildx.stopped.is_set():
                raise Stopped
            if code:
                if log.stat().st_size >= _CLIPPED:
                    out.write(_GAPS)
                self._failed(task, build.said)
            if wrong is not None:
                raise wrong
            if any(f"[{task_name(task)} " in name or f" {task_name(task)} " in name for name in build.said.cached):
                out.write(_CACHED)

    def shell(self, task: Task, *, inputs: Files, results: Files) -> int:
        """Run the command of `task` for a person, in a container of the task's image; see `Engine.shell`."""
        contract.check(task)
        self._works()
        layers = self._layers.stack(task, results)
        image = TaskImage(layers=(*layers, orders_blob(task, limits=self._limits, terminal=True)))
        with Loaded(self._buildx.context, self._buildx.stopped).images({ROOT: image}) as names:
            return open_sandbox(names[ROOT], task, inputs, limits=self._limits, context=self._buildx.context)

    def _send(self, root: str, group: frozenset[str] | None) -> None:
        """Let the builder have a build root, and what tasks see right above it, unpacked."""
        self._works()
        layers = [self._layers.root(root), *([self._layers.group(group)] if group else [])]
        if self._loaded is not None:
            self._loaded.keep(TaskImage(layers=tuple(layers)))
            return
        said = self._unpacked(layers)
        if self._buildx.stopped.is_set():
            raise Stopped
        if said is not None:
            raise _refused("what tasks need", said)

    def _works(self) -> None:
        refusal = self.available()
        if refusal is not None:
            raise CregraphError(f"the docker engine does not work here: {refusal}", hint=_DOCTOR)

    def stop(self) -> None:
        self._buildx.running.stop()

    @contextlib.contextmanager
    def _run(self, folder: Path, images: Mapping[str, TaskImage], text: str, output: Write) -> Iterator[Build]:
        """Build the file `text`, whose named contexts are `images`, with nothing else in its context."""
        (folder / "Dockerfile").write_text(text, encoding="utf-8")
        (folder / "empty").mkdir()
        with contextlib.ExitStack() as held:
            if self._loaded is not None:
                names = held.enter_context(self._loaded.images(images))
                contexts = [f"{name}=docker-image://{leads}" for name, leads in names.items()]
            else:
                write_layout(folder / "layout", images.values())
                # By a relative name: in a path the signs @ and : would be read as something else.
                contexts = [f"{name}=oci-layout://layout@{image.digest()}" for name, image in images.items()]
            given = [word for context in contexts for word in ("--build-context", context)]
            build = held.enter_context(self._buildx.build([*_COMMON, *given, "empty"], folder=folder, output=output))
            yield build
            for blob, count in build.said.sent.items():
                self.sent[blob] = self.sent.get(blob, 0) + count

    @functools.cached_property
    def _refusal(self) -> str | None:
        try:
            said = self._unpacked(())
            if said is not None and _NO_LAYOUTS in "\n".join((*said.errors, said.words)):
                self._loaded = Loaded.of(self._buildx)
                said = self._unpacked(())
        except CregraphError as error:
            return error.message
        if said is None:
            return None
        words = _words(said)
        if self._buildx.builder and f"docker --context={self._buildx.builder}" in words:
            return f"`{self._buildx.builder}` is a context: write `--context {self._buildx.builder}`"
        return words

    def _unpacked(self, layers: Sequence[Blob]) -> Said | None:
        """Have the builder unpack `layers` and copy one small file. Return what the build said if it failed, else None."""
        note = Blob.of(*tar.file("cregraph-ready", b"", mode=0o444))
        text = "FROM ready\nFROM scratch\nCOPY --from=ready /cregraph-ready /\n"
        images = {"ready": TaskImage(layers=(*layers, note))}
        with self._store.scratch_folder() as folder, self._run(folder, images, text, lambda _data: None) as build:
            code = build.ended()
        return build.said if code else None

    def _failed(self, task: Task, said: Said) -> None:
        """Raise what became of a build that failed."""
        report = inside.report_in(bytes(said.stderr))
        if report is not None:
            inside.judge(report, task)
        words = _words(said)
        if inside.PROGRAM in words and "did not complete successfully" in words:
            raise TaskFailed(f"its sandbox was ended from outside: {words}", hint="give the engine more memory (`docker info`)")
        raise _refused(f"task {task.name}", said)


def _words(said: Said) -> str:
    return one_line(said.errors[-1:] or [said.words])[-600:] or "it gives no reason"


def _refused(what: str, said: Said) -> CregraphError:
    """What BuildKit said for itself, with a way out."""
    words = _words(said)
    low = words.lower()
    if "no space left" in low or "disk quota" in low:
        hint = "run `docker buildx du` to see what fills the builder's disk, and `docker buildx prune` to free space"
    elif "failed to fetch" in low or "connect" in low or "eof" in low or "unavailable" in low:
        hint = "run the command again; `docker buildx ls` lists the builders"
    else:
        hint = _DOCTOR
    return CregraphError(f"{what}: BuildKit refuses: {words}", hint=hint)


_DOCTOR = "run `cregraph doctor` to see which engines work here, and choose one with `--engine`"
