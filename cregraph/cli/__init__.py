"""The command line: the only code that prints or exits. One module a command; each imports what it needs when it runs.

stdout carries the result, stderr the talk. Exit 0: done, yes, the same. 1: the answer is no. 2: no answer. 3: our fault.
130: interrupted.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]

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
    """Ctrl-C: an orderly end, but soon. A second one ends now."""
    import signal
    import threading

    signal.signal(signal.SIGINT, lambda *_: _interrupted())
    timer = threading.Timer(_GRACE, _interrupted)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _interrupted() -> NoReturn:
    """End now. A thread that waits for a server is not waited for: what it holds is under a temporary name, as after a kill."""
    import os

    _error("interrupted", "nothing is half-written; the same command goes on where it stopped")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


def _otherwise(error: Exception) -> int:
    import typer

    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, typer.Abort):
        _interrupted()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())  # type: ignore[attr-defined]
        return 2
    if isinstance(error, OSError) and error.errno in _machine() and error.filename:
        _error(f"`{error.filename}`: {error.strerror}", "give it room and rights, or name another place")
        return 2
    if isinstance(error, _usage_errors(typer.BadParameter)):
        _error(error.format_message(), _usage(error))  # type: ignore[attr-defined]
        return 2
    return _fault(error)


def _machine() -> set[int]:
    """What a machine refuses, to whatever program."""
    import errno

    return {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENAMETOOLONG,
    }


def _usage_errors(bad: type[Exception]) -> type[Exception]:
    """What typer raises for a wrong command line. It carries click inside, or beside it, depending on its version."""
    return next((kind for kind in bad.__mro__ if kind.__name__ == "ClickException"), bad)


def _usage(error: object) -> str:
    context = getattr(error, "ctx", None)
    return (
        f"`{context.command_path} --help` says what it takes" if context is not None else "`cregraph --help` lists the commands"
    )


def _fault(error: Exception) -> int:
    """An error that nobody foresaw: a short report for a person, the whole of it in a file for us."""
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
