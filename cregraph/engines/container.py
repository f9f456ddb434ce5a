"""The container engine: tasks in plain containers of a Docker engine, filled and emptied by copying.

For where there are no namespaces and no BuildKit, and as a second opinion: nothing is mounted from this machine, so the engine
may be anywhere that the `docker` program reaches. What tasks stand on is kept in the engine as images `cregraph-task:<key>`, one
laid over the other, so that what is shared goes there once; the record `container-images/<engine and key>` {"id"} says which
image that was. `cregraph.engines.inside` makes the contract in the container.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import re
import secrets
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cregraph.digest import key_of
from cregraph.engines import contract, inside
from cregraph.engines.capture import capture_tar
from cregraph.engines.contract import Limits, Stopped, TaskFailed
from cregraph.engines.namespaces import Running
from cregraph.engines.task_layers import Layer, TaskLayers
from cregraph.errors import CregraphError
from cregraph.image.media import docker_engine
from cregraph.image.media.docker_engine import NoImage
from cregraph.image.model import tar_writer as tar
from cregraph.plan.parts import Task
from cregraph.store import Store

__all__ = ["Container"]

_FORM = 1  # how images are made; another number, other images
_GRACE = 120  # seconds that a container may stay after its own limit
_PIECE = 1 << 20
_LABEL = "cregraph.task"
_OLD = datetime.timedelta(days=1)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")

#: What makes the place: an address space of its own, and the few rights that `inside` needs to give up the others.
_OPTIONS = (
    *("--network", "none", "--hostname", contract.HOSTNAME, "--init=false", "--no-healthcheck", "--restart", "no"),
    *("--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE", "--cap-add", "FOWNER", "--cap-add", "FSETID", "--cap-add", "KILL"),
    *("--cap-add", "SETPCAP", "--cap-add", "SETGID", "--security-opt", "no-new-privileges"),
    *("--user", "0:0", "--workdir", "/", "--entrypoint", inside.PROGRAM, "--ipc", "private", "--log-driver", "none"),
)


class Container:
    """Runs tasks in containers, over the layers of `layers`. See `cregraph.engines.contract.Engine`.

    `context` names a Docker context; None: the user's own, or DOCKER_HOST.
    """

    name = "container"

    def __init__(self, store: Store, layers: TaskLayers, *, context: str | None = None, limits: Limits | None = None) -> None:
        self._store = store
        self._layers = layers
        self._context = context
        self._limits = limits or Limits()
        self._running = Running()
        self._names: set[str] = set()
        self._guard = threading.Lock()
        self._engine: str | None = None

    def available(self) -> str | None:
        """None when this engine works here, else why not."""
        try:
            self._identity()
        except CregraphError as error:
            return error.message
        return None

    def perform(
        self,
        task: Task,
        *,
        inputs: Mapping[str, Path],
        results: Mapping[str, Path],
        write: Callable[[bytes], object],
        log: Path,
        slot: int,
    ) -> None:
        """Run one task; see `Engine.perform`. Also raises CregraphError when the engine does not do what it is asked."""
        contract.check(task)
        try:
            with self._filled(task, inputs, results, self._spec(task, slot), "--interactive") as name:
                report = self._run(name, task, log)
                inside.judge(report, task)
                self._take(name, report.output, task, write)
        except (CregraphError, TaskFailed):
            if self._running.stopped.is_set():
                raise Stopped from None
            raise

    def shell(self, task: Task, *, inputs: Mapping[str, Path], results: Mapping[str, Path]) -> int:
        """Run the command of `task` for a person, at this process's terminal; see `cregraph.engines.contract.Opens`."""
        contract.check(task)
        orders = inside.spec(
            argv=task.argv, env=task.env, cwd=task.cwd, output=task.output, limits=self._limits, slot=0, terminal=True
        )
        tty = os.isatty(0) and os.isatty(1)
        with self._filled(task, inputs, results, orders, "--interactive", *(["--tty"] if tty else []), tty=tty) as name:
            start = ("container", "start", "--attach", "--interactive", name)
            code = docker_engine.at_terminal(*start, context=self._context, held=self._running.holding)
            report = self._report(name, task) if code == inside.NOT_MADE else None
            if report is not None:
                inside.judge(report, task)
            return code

    def stop(self) -> None:
        """End all that runs, now; what is asked for later raises Stopped."""
        self._running.stop()
        with self._guard:
            names = list(self._names)
        for name in names:
            docker_engine.remove(name, self._context)

    def _spec(self, task: Task, slot: int) -> bytes:
        return inside.spec(
            argv=task.argv, env=task.env, cwd=task.cwd, output=task.output, limits=self._limits, slot=slot, leash=True
        )

    def _run(self, name: str, task: Task, log: Path) -> inside.Report:
        about = f"task {task.name}"
        with log.open("ab") as out:
            code, said = docker_engine.attached(
                *("container", "start", "--attach", "--interactive", name),
                out=out,
                seconds=self._limits.seconds + _GRACE,
                context=self._context,
                held=self._running.holding,
            )
        if code is None:
            raise TaskFailed(f"it was ended: its container still ran {_GRACE} s after its limit of {self._limits.seconds} s")
        if self._running.stopped.is_set():
            raise Stopped
        report = self._report(name, task)
        if report is not None:
            return report
        words = inside.without_report(said).decode("utf-8", "replace").strip()[-600:]
        raise CregraphError(
            f"{about}: its container ended with status {code} and no report{f': {words}' if words else ''}",
            hint="the engine may have ended it: is there room and memory? `docker info` says whether the engine is well",
        )

    def _report(self, name: str, task: Task) -> inside.Report | None:
        """What the ended container left as its answer; None when that is none."""
        about = f"task {task.name}"
        try:
            with docker_engine.reading(
                *("container", "cp", f"{name}:{inside.REPORT}", "-"),
                about=about,
                context=self._context,
                held=self._running.holding,
            ) as stream:
                data = stream.read(_PIECE << 6)
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                member = archive.next()
                content = archive.extractfile(member) if member is not None and member.isfile() else None
                if content is not None:
                    return inside.read_report(content.read())
        except (CregraphError, tarfile.TarError, ValueError):
            pass
        return None

    def _take(self, name: str, output: str, task: Task, write: Callable[[bytes], object]) -> None:
        """Copy the output out of the ended container, as the one form of a result."""
        with docker_engine.reading(
            *("container", "cp", f"{name}:{output}", "-"),
            about=f"the output of task {task.name}",
            context=self._context,
            held=self._running.holding,
        ) as stream:
            capture_tar(
                stream,
                write,
                at=task.output,
                limit=self._limits.output,
                scratch=self._store.scratch_file,
                below=PurePosixPath(output).name,
            )

    @contextlib.contextmanager
    def _filled(
        self,
        task: Task,
        inputs: Mapping[str, Path],
        results: Mapping[str, Path],
        spec: bytes,
        *options: str,
        tty: bool = False,
    ) -> Iterator[str]:
        """A container for `task` that was not started yet. It is removed at the end."""
        about = f"the container of task {task.name}"
        layers = self._layers.stack(task, results)
        base = 1 + len(self._layers.environment(task.environment))
        image = self._image(layers[:base])
        name = f"cregraph-{secrets.token_hex(8)}"
        store = f"{name}-in"
        with self._guard:
            self._names.update((name, store))
        try:
            # Inputs are a volume: filled through a container that is never started, read-only in the one that is.
            label = f"{_LABEL}={task.key}"
            volume = f"type=volume,dst={contract.INPUTS},volume-nocopy"
            idle = ("container", "create", "--name", store, "--entrypoint", inside.PROGRAM, "--label", label)
            self._docker(*idle, "--mount", volume, image, about=about)
            self._docker("container", "cp", "-", f"{store}:/", about=about, stdin=_inputs(inputs))
            create = ("container", "create", "--name", name, *_OPTIONS, *self._memory(tty), "--volumes-from", f"{store}:ro")
            self._docker(*create, *options, "--label", label, image, about=about)
            own = {inside.PROGRAM: (0o755, inside.program()), inside.SPEC: (0o644, spec)}
            self._docker("container", "cp", "-", f"{name}:/", about=about, stdin=_above(layers[base:], own))
            yield name
        finally:
            docker_engine.remove(name, self._context)
            docker_engine.remove(store, self._context)
            with self._guard:
                self._names.difference_update((name, store))

    def _memory(self, tty: bool) -> Iterable[str]:
        """File systems in memory, for what the contract has so. A terminal needs the engine's own /dev/pts."""
        size = self._limits.temporary
        yield from ("--tmpfs", f"/tmp:rw,exec,nosuid,nodev,mode=1777,size={size}")  # noqa: S108
        yield from ("--tmpfs", f"/dev/shm:rw,exec,nosuid,nodev,mode=1777,size={size}")  # noqa: S108
        for folder in ("/dev/mqueue",) if tty else ("/dev/mqueue", "/dev/pts"):
            yield from ("--tmpfs", f"{folder}:rw,noexec,nosuid,nodev,mode=755,size=64k")

    def _image(self, layers: Sequence[Layer]) -> str:
        """The engine's image of these layers, the lowest first; made from the one below it where it is not there."""
        image = ""
        for count in range(1, len(layers) + 1):
            key = key_of({"form": _FORM, "layers": [layer.sha256 for layer in layers[:count]]})
            below, image = image, self._known(key) or ""
            if not image:
                with self._store.lock(f"container-image-{key}"):  # what two tasks share is sent once
                    image = self._known(key) or self._make(key, below, layers[count - 1])
        return image

    def _known(self, key: str) -> str | None:
        record = self._store.record("container-images", key_of({"engine": self._identity(), "key": key}))
        found = record.get("id") if isinstance(record, dict) else None
        if not isinstance(found, str) or not _IMAGE_ID.fullmatch(found):
            return None
        try:
            docker_engine.inspect(found, self._context)
        except NoImage:
            return None
        return found

    def _make(self, key: str, below: str, layer: Layer) -> str:
        about = "an image for tasks"
        tag = f"cregraph-task:{key[:16]}-{secrets.token_hex(8)}"  # its own: a name that moves leaves an image that may vanish
        if not below:
            empty = ("image", "import", "--platform", "linux/amd64", "-", tag)
            said = self._docker(*empty, about=about, stdin=_pieces(layer.path))
        else:
            name = f"cregraph-{secrets.token_hex(8)}"
            try:
                self._docker("container", "create", "--name", name, "--entrypoint", inside.PROGRAM, below, about=about)
                self._docker("container", "cp", "-", f"{name}:/", about=about, stdin=_pieces(layer.path))
                said = self._docker("container", "commit", name, tag, about=about)
            finally:
                docker_engine.remove(name, self._context)
        found = said.decode("ascii", "replace").strip()
        if not _IMAGE_ID.fullmatch(found):
            raise CregraphError(f"{about}: the Docker engine's answer cannot be read: {found[:200]}")
        self._store.put_record("container-images", key_of({"engine": self._identity(), "key": key}), {"id": found})
        return found

    def _identity(self) -> str:
        """The engine's own name for itself. Raises CregraphError when it does not answer, or is none for Linux on x86-64."""
        if self._engine is None:
            said = self._docker("info", "--format", "{{json .}}", about="the Docker engine does not answer")
            found = json.loads(said)
            if not isinstance(found, dict) or not found.get("ID"):
                errors = found.get("ServerErrors") if isinstance(found, dict) else None
                raise CregraphError(
                    f"the Docker engine does not answer: {' '.join(map(str, errors or ['it has no name']))[:600]}"
                )
            if found.get("OSType") != "linux":
                raise CregraphError(f"the Docker engine runs containers of {found.get('OSType')}, and tasks need Linux")
            self._sweep()
            self._engine = str(found["ID"])
        return self._engine

    def _sweep(self) -> None:
        """Remove what a killed run left, a day later: until then its container may be one that is about to be read."""
        states = ("--filter", "status=exited", "--filter", "status=created")
        shown = "{{.Names}} {{.CreatedAt}}"
        said = self._docker("ps", "--all", "--filter", f"label={_LABEL}", *states, "--format", shown, about="old containers")
        for line in said.decode("utf-8", "replace").splitlines():
            name, _, made = line.partition(" ")
            with contextlib.suppress(ValueError):
                when = datetime.datetime.strptime(made[:25], "%Y-%m-%d %H:%M:%S %z")
                if datetime.datetime.now(datetime.UTC) - when > _OLD and name.startswith("cregraph-"):
                    docker_engine.remove(name, self._context)

    def _docker(self, *argv: str, about: str, stdin: Iterable[bytes] | None = None) -> bytes:
        if self._running.stopped.is_set():
            raise Stopped
        return docker_engine.docker(*argv, about=about, stdin=stdin, context=self._context, held=self._running.holding)


def _pieces(path: Path, *, leave: int = 0) -> Iterator[bytes]:
    """The bytes of a file but for the last `leave`."""
    left = path.stat().st_size - leave
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece


def _above(layers: Sequence[Layer], own: Mapping[str, tuple[int, bytes]]) -> Iterator[bytes]:
    """One tar: the layers, the contract's own files, and the program with its orders."""
    for layer in layers:
        yield from _pieces(layer.path, leave=len(tar.END))
    yield inside.skeleton(inputs=False)[: -len(tar.END)]
    for path, (mode, data) in own.items():
        yield tar.header(path=path[1:], mode=mode, size=len(data)) + data + tar.padding(len(data))
    yield tar.END


def _inputs(inputs: Mapping[str, Path]) -> Iterator[bytes]:
    """The inputs as a tar, each with the one mode and time that the contract gives it."""
    folder = contract.INPUTS[1:]
    yield tar.header(path=folder, type="directory", mode=0o755)
    for name, path in sorted(inputs.items()):
        size = path.stat().st_size
        yield tar.header(path=f"{folder}/{name}", mode=0o444, size=size)
        yield from _pieces(path)
        yield tar.padding(size)
    yield tar.END
