"""The command line: the only code that prints or exits.

stdout carries the result, stderr everything else. Exit codes: 0 done, yes, equal; 1 the answer is no; 2 no answer; 3 a bug in
cregraph; 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]

#: Errors of the machine, which are not faults of cregraph.
_OF_THE_MACHINE = {"EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENAMETOOLONG"}
_GRACE = 3.0  # seconds for what runs to end in order after Ctrl-C


def main() -> None:
    """Run the command line and exit."""
    import signal

    from cregraph.errors import CregraphError

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell runs us with Ctrl-C ignored
        signal.signal(signal.SIGINT, _on_interrupt)
    if sys.stdout is not None:  # names of files need not be UTF-8: they leave as they came
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        from cregraph.cli.app import app_for
        from cregraph.cli.direct_parser import direct_call

        words = sys.argv[1:]
        call = direct_call(words)
        code = call() if call is not None else app_for(words)(standalone_mode=False)
        if code == 130:  # what some versions of typer make of Ctrl-C
            _interrupted()
        sys.exit(code if isinstance(code, int) else 0)
    except CregraphError as error:
        _error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _interrupted()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        sys.exit(_otherwise(error))


def _error(message: str, hint: str | None = None) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def _on_interrupt(_number: int, _frame: object) -> None:
    """End in order but soon after Ctrl-C, and at once after a second one."""
    import signal
    import threading

    signal.signal(signal.SIGINT, lambda *_: _interrupted())
    timer = threading.Timer(_GRACE, _interrupted)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _interrupted() -> NoReturn:
    """End now, without waiting for threads: unfinished files have temporary names, as after a kill."""
    import os

    _error("interrupted", "nothing is half-written; the same command goes on where it stopped")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


def _otherwise(error: Exception) -> int:
    import errno

    import typer

    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, typer.Abort):
        _interrupted()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())  # type: ignore[attr-defined]
        return 2
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in _OF_THE_MACHINE and error.filename:
        _error(f"`{error.filename}`: {error.strerror}", "give it room and rights, or name another place")
        return 2
    if isinstance(error, _usage_errors(typer.BadParameter)):
        _error(error.format_message(), _usage(error))  # type: ignore[attr-defined]
        return 2
    return _fault(error)


def _usage_errors(bad: type[Exception]) -> type[Exception]:
    """Return the class of typer's usage errors. Some versions of typer contain click, others depend on it."""
    return next((kind for kind in bad.__mro__ if kind.__name__ == "ClickException"), bad)


def _usage(error: object) -> str:
    context = getattr(error, "ctx", None)
    return (
        f"`{context.command_path} --help` says what it takes" if context is not None else "`cregraph --help` lists the commands"
    )


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
        where = f"please report it with the file {Path(file.name)}; look through it first, it may name your files"
    except OSError:
        where = "please report it with this text:\n" + head + text
    _error(f"a fault of cregraph: {type(error).__name__}: {error}", where)
    return 3
