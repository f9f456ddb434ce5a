"""Errors as people and programs read them: text on stderr and, with `--json`, one object on stdout."""

from __future__ import annotations

import errno
import re
import sys
from itertools import pairwise

from cregraph.cli import terminal_output

__all__ = ["explained", "report"]

#: Errors of the machine, which are not faults of cregraph.
_OF_THE_MACHINE = {"EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENAMETOOLONG"}
#: A line of a message that begins with a place: `file:line: ...` or `file: field: ...`, after its number if it has one.
_PLACE = re.compile(r"\s*(?:\d+\. )?`?([^\s`:]+\.(?:ya?ml|json))`?(?::(\d+))?: *(.*)")


def report(message: str, hint: str | None = None, *, code: int) -> int:
    """Print an error. Return the exit code `code`."""
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print("hint: " + re.sub(r"\n(?=\d+\. )", "\nhint: ", re.sub(r"\n(?!\d+\. )", "\n      ", hint)), file=sys.stderr)
    if _wants_json(sys.argv[1:]) and not terminal_output.answered:
        error = {"message": message, "hint": hint, "places": _places(message)}
        terminal_output.as_json({"error": error, "exit": code})
    return code


def explained(error: Exception) -> int:
    """Report an exception that is not a CregraphError. Return the exit code."""
    import typer

    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())  # type: ignore[attr-defined]  # known by its name only
        return 2
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in _OF_THE_MACHINE and error.filename:
        return report(f"{error.filename}: {error.strerror}", "make space, change its permissions, or use another path", code=2)
    if isinstance(error, _usage_errors(typer.BadParameter)):
        return report(error.format_message(), _usage(error), code=2)  # type: ignore[attr-defined]  # a ClickException
    return _fault(error)


def _wants_json(words: list[str]) -> bool:
    """Return whether the command line asks for JSON. It may be one that no parser accepts."""
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own or "--format=json" in own or ("--format", "json") in pairwise(own)


def _places(message: str) -> list[dict[str, object]]:
    """Return the places that the lines of a message begin with."""
    found = [match for line in message.splitlines() if (match := _PLACE.fullmatch(line))]
    return [{"file": each[1], "line": int(each[2]) if each[2] else None, "text": each[3]} for each in found]


def _usage_errors(bad: type[Exception]) -> type[Exception]:
    """Return the class of typer's usage errors. Some versions of typer contain click, others depend on it."""
    return next((kind for kind in bad.__mro__ if kind.__name__ == "ClickException"), bad)


def _usage(error: object) -> str:
    context = getattr(error, "ctx", None)
    return f"run `{context.command_path} --help`" if context is not None else "run `cregraph --help` to list the commands"


def _fault(error: Exception) -> int:
    """Report a bug: one line for the user, the traceback in a file."""
    import platform
    import tempfile
    import traceback
    from pathlib import Path

    from cregraph import __version__

    text = "".join(traceback.format_exception(error))
    head = f"cregraph {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", prefix="cregraph-fault-", suffix=".txt", delete=False
        ) as file:
            file.write(head + "cregraph " + " ".join(sys.argv[1:]) + "\n" + text)
        where = f"report it with the file {Path(file.name)}. Read the file first: it may name files of yours"
    except OSError:
        where = "report it with this text:\n" + head + text
    return report(f"a bug in cregraph: {type(error).__name__}: {error}", where, code=3)
