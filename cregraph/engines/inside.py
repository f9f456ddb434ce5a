"""The program that makes the sandbox's contract inside a container that somebody else made; docs/adr/0010-a-program-inside.md.

`inside.c` is its source, `inside.x86-64` the program: static, 17 kB, and in need of nothing that the root may lack. A container
gets it as PROGRAM with its orders as SPEC, and starts it as the first process, as uid 0. It removes both, makes what is left of
`cregraph.engines.contract`, runs the command, watches its limits, ends all that runs, and leaves its answer as REPORT. All that
the command prints goes to stdout. It ends with status 0 if and only if the command did, within its limits, and changed nothing
that it did not declare; else the last line on stderr is the report in hex, since a failed step of BuildKit gives no files.
"""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import sha256
from cregraph.engines import contract
from cregraph.engines.calls import FILTER
from cregraph.engines.capture import Undeclared, no_content
from cregraph.engines.contract import Limits, TaskFailed
from cregraph.errors import CregraphError
from cregraph.image.model import tar_writer as tar
from cregraph.plan.parts import Task

__all__ = [
    *("NOT_MADE", "PROGRAM", "REPORT", "SHA256", "SPEC"),
    *("Report", "judge", "program", "read_report", "report_in", "skeleton", "spec"),
]

PROGRAM = contract.FIRST
SPEC = "/cregraph/spec"
REPORT = "/cregraph/report"

NOT_MADE = 220  # its exit status when the sandbox cannot be made

#: The sha256 of `inside.x86-64`. tests/test_inside.py says how it is built.
SHA256 = "1959edc925124a140fe960d77480ee21e3b9878e420ab70f9181df5b6c44d01a"

#: What containers add and namespaces do not have.
_REMOVED = ("/.dockerenv", "/run/.containerenv", "/dev/core", "/dev/tty", "/dev/ptmx", "/dev/console")
_HEAD = b"cregraph-report 1"
_LINE = re.compile(rb"\n?cregraph-report: ((?:[0-9a-f]{2})+)\n?\s*\Z")
_ODD = {"F": "a FIFO", "S": "a socket", "D": "a device"}
_LIMITS = ("seconds", "memory", "processes", "file", "temporary", "spare")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How a command ended. `setup` says why the sandbox could not be made; then the rest means nothing.

    `exit` is the command's status, negative for a signal; `end` the limit that ended it; `output` where its output folder
    really lies. `changes`, sorted by path, are those of `cregraph.engines.capture.undeclared`; `count` says how many they are,
    where not all are told.
    `odd` has the path in the output, and the kind, of the first thing that no image can hold. `gone`: there is no output folder.
    """

    setup: str | None = None
    exit: int = 0
    end: str | None = None
    output: str = ""
    changes: tuple[str, ...] = ()
    count: int = 0
    odd: tuple[str, str] | None = None
    gone: bool = False


def program() -> bytes:
    """The program, for x86-64 Linux. Raises CregraphError when its file is not what this version came with."""
    place = Path(__file__).with_name("inside.x86-64")
    try:
        data = place.read_bytes()
    except OSError as error:
        raise CregraphError(f"`{place}` cannot be read: {error.strerror}", hint="install cregraph again") from None
    if sha256(data) != SHA256:
        raise CregraphError(
            f"`{place}` has sha256 {sha256(data)}; this version came with {SHA256}", hint="install cregraph again"
        )
    return data


def spec(
    *,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    output: str,
    limits: Limits,
    slot: int | None = None,
    terminal: bool = False,
) -> bytes:
    """The orders: records that end with NUL, whose first byte says what they are.

    `env` is laid over the contract's. `slot` counts what runs at the same time and chooses the processor; None: any one.
    `terminal`: a shell for a person; its standard input stays, nothing is limited, looked for or reported.
    """
    records = [f"a{text}" for text in argv]
    records += [f"e{name}={value}" for name, value in sorted({**contract.ENVIRONMENT, **env}.items())]
    records += [f"w{folder}" for folder in (contract.WORK, contract.HOME)]
    records += [f"r{path}" for path in _REMOVED]
    records += [f"z{path}" for path in ("/", *contract.FOLDERS) if path not in contract.MOUNTS]
    records.append(f"q{FILTER.hex()}")
    records += [f"d{cwd}", f"o{output}", f"h{contract.HOSTNAME}", f"k{sum(1 << n for n in contract.KEPT)}"]
    records += [f"u{contract.UMASK}", f"t{contract.EPOCH}"]
    records += [f"l{name}={getattr(limits, name)}" for name in _LIMITS]
    for path, text in contract.FILES.items():
        records += [f"f{path}", text]
    for path, target in contract.ETC_LINKS.items():
        records += [f"s{path}", target]
    if slot is not None:
        records.append(f"c{slot}")
    if terminal:
        records.append("T")
    if any("\0" in record for record in records):
        raise ValueError("a command, its environment or its folders hold a NUL byte")
    return b"".join(record.encode("utf-8", "surrogateescape") + b"\0" for record in ["cregraph-spec 1", *records, "."])


def skeleton() -> bytes:
    """The uppermost files of every root, as a tar: the contract's folders, its files and links in /etc."""
    out = io.BytesIO()
    for path, mode in contract.FOLDERS.items():
        out.write(tar.header(path=path[1:], type="directory", mode=mode))
    for path, text in contract.FILES.items():
        out.writelines(tar.file(path[1:], text.encode()))
    for path, target in contract.ETC_LINKS.items():
        out.write(tar.header(path=path[1:], type="symlink", link=target))
    out.write(tar.END)
    return out.getvalue()


def read_report(data: bytes) -> Report:
    """The report that the file REPORT holds. Raises ValueError when it is none, or not a whole one."""
    head, *records = data.split(b"\0")
    if head != _HEAD or records[-2:] != [b".", b""]:
        raise ValueError("this is no report of a sandbox")
    found: dict[str, str] = {}
    changes: list[str] = []
    odd: list[tuple[str, str]] = []
    for record in records[:-2]:
        letter, text = record[:1].decode("ascii", "replace"), record[1:].decode("utf-8", "backslashreplace")
        words = {"w": f"wrote {text}", "W": f"wrote {text}/", "d": f"deleted {text}", "a": f"deleted {text} and wrote it again"}
        if letter in words:
            changes.append(words[letter])
        elif letter in _ODD:
            odd.append((text.removeprefix("/"), _ODD[letter]))
        else:
            found[letter] = text
    changes.sort(key=lambda change: change.partition(" ")[2])
    if "s" in found:
        return Report(setup=found["s"])
    if not {"x", "o"} <= found.keys():
        raise ValueError("this report of a sandbox says nothing")
    return Report(
        exit=int(found["x"]),
        end=found.get("e"),
        output=found["o"],
        changes=tuple(changes),
        count=int(found.get("n", "0")),
        odd=min(odd, default=None),
        gone="g" in found,
    )


def report_in(log: bytes) -> Report | None:
    """The report at the end of what a failed sandbox printed; None when there is none."""
    found = _LINE.search(log)
    try:
        return read_report(bytes.fromhex(found[1].decode())) if found else None
    except ValueError:
        return None


def judge(report: Report, task: Task) -> None:
    """Raise what became of the command: TaskFailed, Undeclared, or CregraphError where there was no sandbox."""
    if report.setup is not None:
        raise CregraphError(
            f"the sandbox for task {task.name} cannot be made in this container: {report.setup}",
            hint="`cregraph doctor` says which engines work here; `--engine` chooses another",
        )
    if report.end:
        raise TaskFailed(f"it was ended: {report.end}")
    if report.exit < 0:
        raise TaskFailed(f"its command was killed by signal {-report.exit} ({signal.strsignal(-report.exit)})")
    if report.exit:
        raise TaskFailed(f"its command ended with exit status {report.exit}")
    if report.changes:
        raise Undeclared(report.changes, task.output, count=report.count)
    if report.gone:
        raise TaskFailed(f"it removed its output folder {task.output}")
    if report.odd:
        raise no_content(*report.odd)
    if not report.output.startswith("/"):
        raise TaskFailed(f"its output folder {task.output} cannot be found")
