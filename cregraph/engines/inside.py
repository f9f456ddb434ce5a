"""The script that makes the sandbox's contract inside a container that somebody else made; docs/adr/0022-a-script-inside.md.

`enter.sh` is the script. A container gets it as PROGRAM with its orders as ORDERS, and starts it as the first process, as uid 0.
All that the command prints goes to stdout; the last words on stderr are the report.
"""

from __future__ import annotations

import io
import re
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cregraph.engines import contract
from cregraph.engines.capture import Undeclared, no_content
from cregraph.engines.contract import Limits, TaskFailed
from cregraph.errors import CregraphError
from cregraph.image.model import tar_writer as tar
from cregraph.plan.parts import Task

__all__ = ["NOT_MADE", "ORDERS", "PROGRAM", "Report", "judge", "orders", "program", "report_in", "skeleton"]

PROGRAM = "/cregraph/enter"
ORDERS = "/cregraph/orders"

NOT_MADE = 220  # the exit status when the sandbox cannot be made

_REPORT = "\ncregraph-report: "
_ODD = {"p": "a FIFO", "s": "a socket"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How a command ended. `setup` says why the sandbox could not be made; then the rest means nothing.

    `exit` is the command's status, negative for a signal; `end` the limit that ended it; `output` where its output folder really
    lies, if the engine needs to know. `changes`, sorted by path, are those of `cregraph.engines.capture.undeclared`. `odd` has
    the path in the output, and the kind, of the first thing that no image can hold. `gone`: the output folder is missing.
    """

    setup: str | None = None
    exit: int = 0
    end: str | None = None
    output: str = ""
    changes: tuple[str, ...] = ()
    odd: tuple[str, str] | None = None
    gone: bool = False


def program() -> bytes:
    """Return the script."""
    return Path(__file__).with_name("enter.sh").read_bytes()


def orders(task: Task, *, limits: Limits, terminal: bool = False) -> bytes:
    """Return what the script is told, as POSIX shell: variables, and functions that write files and become the command.

    `terminal`: a shell for a person; its standard input stays, nothing is limited in time or number, looked for or reported.
    """
    values = {
        "output": task.output,
        "cwd": task.cwd,
        "work": contract.WORK,
        "home": contract.HOME,
        "hostname": contract.HOSTNAME,
        "mask": f"{contract.UMASK:o}",
        "epoch": contract.EPOCH,
        "capabilities": ",".join(f"+{name}" for name in contract.KEPT),
        "timeless": " ".join(path for path in ("/", *contract.FOLDERS) if path not in contract.MOUNTS),
        "aside": " ".join((*contract.MOUNTS, "/dev/shm", "/dev/pts", "/dev/mqueue", contract.WORK, contract.HOME)),  # noqa: S108
        "terminal": "1" if terminal else "",
        **{name: getattr(limits, name) for name in ("seconds", "memory", "processes", "file", "temporary", "spare")},
    }
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    lines += ["files() {", *(f"put {path} {shlex.quote(text)}" for path, text in contract.FILES.items()), "}"]
    env = (f"{name}={value}" for name, value in sorted({**contract.ENVIRONMENT, **task.env}.items()))
    # A shell has the commands that it puts into the background ignore two signals.
    words = shlex.join(["env", "-i", *([] if terminal else ["--default-signal=INT,QUIT"]), *env, *task.argv])
    return "\n".join([*lines, f'start() {{ exec "$@" {words}; }}', ""]).encode("utf-8", "surrogateescape")


def skeleton() -> bytes:
    """Return the uppermost files of every root, as a tar: the contract's folders, its files and links in /etc."""
    out = io.BytesIO()
    for path, mode in contract.FOLDERS.items():
        out.write(tar.header(path=path[1:], type="directory", mode=mode))
    for path, text in contract.FILES.items():
        out.writelines(tar.file(path[1:], text.encode()))
    for path, target in contract.ETC_LINKS.items():
        out.write(tar.header(path=path[1:], type="symlink", link=target))
    out.write(tar.END)
    return out.getvalue()


def report_in(printed: bytes) -> Report | None:
    """Return the report that ends what a failed sandbox printed to stderr, or None."""
    _, found, text = printed.decode("utf-8", "backslashreplace").rpartition(_REPORT)
    word, rest = (*re.split(r"[ \r\n]", text.rstrip(), maxsplit=1), "")[:2] if found else ("", "")
    match word:
        case "setup":
            return Report(setup=rest)
        case "end":
            return Report(end=rest, exit=-signal.SIGKILL)
        case "exit" if rest.isdecimal():
            status = int(rest)
            return Report(exit=128 - status if status - 128 in signal.valid_signals() else status)
        case "changes":
            return Report(changes=_changes(rest))
        case "odd":
            kind, _, path = rest.partition(" ")
            return Report(odd=(path, _ODD.get(kind, "a device")))
        case "gone":
            return Report(gone=True)
    return None


def _changes(text: str) -> tuple[str, ...]:
    """Read lines of `comm -3`: how a thing is and its name, after a tab if it is so now and without one if it was so before."""
    before: dict[str, str] = {}
    now: dict[str, str] = {}
    for line in text.splitlines():
        how, _, path = line.partition(" ")
        (now if how.startswith("\t") else before)[path] = how.strip()
    wrote = {path: f"wrote {path}/" if how == "d" else f"wrote {path}" for path, how in now.items()}
    found = {**{path: f"deleted {path}" for path in before}, **wrote}
    # What lies below a folder that was made or deleted goes without saying.
    outermost = [words for path, words in found.items() if not any(str(above) in found for above in PurePosixPath(path).parents)]
    return tuple(sorted(outermost, key=lambda change: change.partition(" ")[2]))


def judge(report: Report, task: Task) -> None:
    """Raise what became of the command.

    Raises:
        TaskFailed: The command failed, was ended, or left what no image can hold; Undeclared if it wrote elsewhere.
        CregraphError: There was no sandbox.
    """
    if report.setup is not None:
        raise CregraphError(
            f"the sandbox for task {task.name} cannot be made in this container: {report.setup}",
            hint="run `cregraph doctor` to see which engines work here, and choose one with `--engine`",
        )
    if report.end:
        raise TaskFailed(f"it was ended: {report.end}")
    if report.exit < 0:
        raise TaskFailed(f"its command was killed by signal {-report.exit} ({signal.strsignal(-report.exit)})")
    if report.exit:
        raise TaskFailed(f"its command ended with exit status {report.exit}", status=report.exit)
    if report.changes:
        raise Undeclared(report.changes, task.output)
    if report.gone:
        raise TaskFailed(f"it removed its output folder {task.output}")
    if report.odd:
        raise no_content(*report.odd)
