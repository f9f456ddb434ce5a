"""The sandbox made of Linux namespaces, with root or without.

Without root it needs user namespaces (Linux 5.11 for overlay mounts in them); the caller's user is then uid 0 inside. Where
they are forbidden (Ubuntu 24.04's AppArmor rule, most containers) `available` says why.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from cregraph.engines import contract, inside
from cregraph.engines.calls import FILTER
from cregraph.engines.contract import Limits, Stopped
from cregraph.engines.extract import extract
from cregraph.engines.terminal import Stdio
from cregraph.plan.parts import Task

__all__ = ["NotHere", "Running", "available", "end", "enter", "forbidding", "lay_out"]

_GRACE = 60  # seconds that a sandbox may stay after its own limit, before it is killed from outside
_ORDERLY = 15  # seconds between SIGTERM and SIGKILL
_MOST_LOWERS = 400  # overlayfs stacks 500, and its options must fit one page


class NotHere(Exception):
    """The sandbox cannot be made here; the text says why."""


class Running:
    """The processes that run now, so that all can be ended at once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self.stopped = threading.Event()

    @contextlib.contextmanager
    def holding(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Know `process` while the block lasts, and leave it only once the process is gone."""
        with self._guard:
            self._processes.add(process)
            if self.stopped.is_set():
                process.terminate()
        try:
            yield
        finally:
            end(process)
            with self._guard:
                self._processes.discard(process)

    def stop(self) -> None:
        """End all, now and in the future."""
        with self._guard:
            self.stopped.set()
            for process in self._processes:
                process.terminate()


def available(folder: Path) -> str | None:
    """None when tasks can run here with their files in `folder`'s file system, else the reason in words. Tries it: a few ms."""
    try:
        _user_namespace(folder)
    except NotHere as error:
        return str(error)
    return None


def lay_out(folder: Path) -> None:
    """Make the folders of a sandbox in the empty `folder`: `upper` takes what the command writes, `in` holds its inputs."""
    # A set-group-id bit on the store would give files a group that means nothing inside, and writing them would fail.
    os.chown(folder, -1, os.getegid())
    for name in ("upper", "work", "merged", "none", "in", "l", "skeleton"):
        (folder / name).mkdir()
        (folder / name).chmod(0o755)
    extract(io.BytesIO(inside.skeleton()), folder / "skeleton", title="the skeleton of a sandbox")
    for name in ("skeleton", "in"):
        os.utime(folder / name, (contract.EPOCH, contract.EPOCH))


def enter(
    folder: Path,
    task: Task,
    lowers: Sequence[Path],
    limits: Limits,
    *,
    log: Path,
    cpu: int,
    running: Running,
    shell: Stdio | None = None,
) -> inside.Report:
    """Run the command of `task` in a sandbox whose files lie in `folder` (made by `lay_out`) and wait for its end.

    `lowers` are the unpacked trees that make its root, the uppermost first; nothing writes to them. Afterwards `folder`/upper
    holds what the command left. With `shell`, those descriptors replace `log`, and no limit of time or number applies.
    Raises NotHere, and Stopped when `running` was stopped. No process is left, whatever happens.
    """
    if len(lowers) > _MOST_LOWERS:
        raise ValueError(f"{len(lowers)} trees are more than one overlay can hold")
    for number, lower in enumerate(lowers):
        (folder / "l" / str(number)).symlink_to(lower.absolute())
    env = dict(sorted({**contract.ENVIRONMENT, **task.env}.items()))
    command = {"argv": list(task.argv), "env": env, "cwd": task.cwd, "output": task.output, "cpu": cpu}
    spec = _spec(folder, len(lowers), limits, user=_user_namespace(folder.parent), shell=shell is not None) | command
    return _run(spec, log, running, None if shell else limits.seconds + _GRACE, shell)


def _spec(folder: Path, lowers: int, limits: Limits, *, user: bool, shell: bool) -> dict[str, object]:
    """What enter.py is told of the contract and of this one sandbox; all but the command."""
    return {
        "folder": str(folder.absolute()),
        "lowers": lowers,
        "user": user,
        "writable": [contract.WORK, contract.HOME],
        "inputs": contract.INPUTS,
        "shell": shell,
        "limits": asdict(limits),
        "hostname": contract.HOSTNAME,
        "umask": contract.UMASK,
        "epoch": contract.EPOCH,
        "timeless": ["/", *(path for path in contract.FOLDERS if path not in contract.MOUNTS)],
        "filter": FILTER.hex(),
        "capabilities": list(contract.KEPT.values()),
        "devices": list(contract.DEVICES),
        "links": dict(contract.LINKS),
        "masked": list(contract.MASKED),
        "read_only": list(contract.READ_ONLY),
    }


def _run(
    spec: dict[str, object], log: Path, running: Running, patience: float | None, shell: Stdio | None = None
) -> inside.Report:
    if running.stopped.is_set():
        raise Stopped
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    reader, report = os.pipe()
    orders, pipe = os.pipe()
    # By path and without site-packages: it needs the standard library only, and starts twice as fast.
    program = [sys.executable, "-I", "-S", "-B", str(Path(__file__).with_name("enter.py")), str(orders)]
    try:
        # A pipe, never the log itself: a command could change the file behind its stdout (/proc/self/fd/1).
        process = subprocess.Popen(
            program,
            stdin=shell[0] if shell else subprocess.DEVNULL,
            stdout=shell[1] if shell else subprocess.PIPE,
            stderr=shell[2] if shell else subprocess.STDOUT,
            env=kept,
            pass_fds=[orders, report],
            start_new_session=True,
        )
    except BaseException:
        os.close(reader)
        os.close(pipe)
        raise
    finally:
        os.close(orders)
        os.close(report)
    with (
        os.fdopen(reader, "rb") as answer,
        os.fdopen(pipe, "wb") as told,
        _copied(process.stdout, log, process.terminate),
        running.holding(process),
    ):
        with contextlib.suppress(BrokenPipeError), told:
            told.write(json.dumps({**spec, "parent": os.getpid(), "report": report}).encode())
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            end(process)
        data = answer.read() if select.select([answer], [], [], 0)[0] else b""
    if running.stopped.is_set():
        raise Stopped
    found = json.loads(data) if data else {"fault": f"its first process ended with status {process.returncode} and no report"}
    if "fault" in found:
        raise RuntimeError(f"a sandbox broke: {found['fault']}")
    if "setup" in found:
        raise NotHere(found["setup"])
    return inside.Report(exit=int(found["exit"]), end=found["end"], output=found["output"])


@contextlib.contextmanager
def _copied(source: IO[bytes] | None, log: Path, stop: Callable[[], object]) -> Iterator[None]:
    """Until the block and `source` end, add what `source` gives to `log`. Call `stop`, and raise, if it cannot be written."""
    failed: list[OSError] = []

    def copy(source: IO[bytes]) -> None:
        try:
            with log.open("ab", buffering=0) as file:
                while data := os.read(source.fileno(), 1 << 16):
                    file.write(data)
        except OSError as error:
            failed.append(error)
            stop()

    if source is None:
        yield
        return
    copier = threading.Thread(target=copy, args=(source,), daemon=True)
    copier.start()
    try:
        yield
    finally:
        copier.join()
        source.close()
    if failed:
        raise failed[0]


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process if it still runs. It gets time after SIGTERM: to end all inside, or the step of a build."""
    process.terminate()
    try:
        process.wait(_ORDERLY)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_known: dict[tuple[int, int], bool] = {}
_guard = threading.Lock()


def _user_namespace(folder: Path) -> bool:
    """Whether the sandbox needs a user namespace here. Found by making one; NotHere when none can be made."""
    with _guard:
        place = (folder.stat().st_dev, os.geteuid())
        if place not in _known:
            _known[place] = _try(folder)
        return _known[place]


def _try(folder: Path) -> bool:
    import tempfile

    from cregraph.store.atomic_file import remove_tree

    if not sys.platform.startswith("linux"):
        raise NotHere("namespaces need Linux, and this is another system")
    reasons = []
    for user in [False, True] if os.geteuid() == 0 else [True]:
        probe = Path(tempfile.mkdtemp(prefix="probe-", dir=folder))
        try:
            lay_out(probe)
            (probe / "l" / "0").symlink_to("../none")
            # The root is empty: that the command cannot be started is the right answer.
            spec = _spec(probe, 1, Limits(spare=0, temporary=1 << 20), user=user, shell=False)
            command = {"argv": ["/none"], "env": dict(contract.ENVIRONMENT), "cwd": contract.WORK, "output": "/out", "cpu": None}
            _run(spec | command, probe / "log", Running(), 30)
            return user
        except NotHere as error:
            reasons.append(f"{'with' if user else 'without'} a user namespace: {error}")
        finally:
            remove_tree(probe)
    found = forbidding()
    raise NotHere("; ".join(reasons) + (f" ({found[0]})" if found else ""))


def forbidding(root: Path = Path("/")) -> tuple[str, str] | None:
    """What is known to forbid user namespaces, when the files below `root` say that it does so here; and what allows them."""
    for name, value, allows, words in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0", "AppArmor forbids user namespaces to ordinary programs"),
        ("kernel/unprivileged_userns_clone", "0", "1", "user namespaces are for root only"),
        ("user/max_user_namespaces", "0", "15000", "no user namespaces are allowed"),
    ):
        path = f"/proc/sys/{name}"
        with contextlib.suppress(OSError):
            if (root / path[1:]).read_text().strip() == value:
                return f"{words}: {path} is {value}", f"sudo sysctl -w {name.replace('/', '.')}={allows}"
    return None
