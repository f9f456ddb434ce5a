"""The command line: the only code that prints or exits.

stdout carries the result, stderr everything else. Exit codes: 0 done, yes, equal; 1 the answer is no; 2 no answer; 3 a bug in
cregraph; 130 interrupted.
"""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from cregraph.cli.error_output import explained, report
from cregraph.errors import CregraphError

__all__ = ["main"]

_GRACE = 3.0  # seconds for what runs to end in order after Ctrl-C


def main(early: Callable[[int, object], None] | None = None) -> None:
    """Run the command line and exit. `early` is the handler of Ctrl-C that the entry point has installed, if any."""
    handled = signal.getsignal(signal.SIGINT) in (early, signal.default_int_handler)  # else a shell has it ignored
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be UTF-8: cregraph prints them as they are
        sys.stdout.reconfigure(errors="surrogateescape")
    sys.unraisablehook = _unraisable
    try:
        try:
            if handled:
                signal.signal(signal.SIGINT, _on_interrupt)
            code = _outcome(sys.argv[1:])
        finally:
            if handled:
                signal.signal(signal.SIGINT, lambda *_: _interrupted())
    except KeyboardInterrupt:
        _interrupted()
    if handled:  # the last moments of the interpreter, when the answer is given
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _outcome(words: list[str]) -> int:
    """Run the command that `words` name. Return its exit code, after a report of what went wrong."""
    try:
        from cregraph.cli.app import app_for
        from cregraph.cli.direct_parser import direct_call

        call = direct_call(words)
        code = call() if call is not None else app_for(words)(prog_name="cregraph", standalone_mode=False)
        if code == 130:  # what some versions of typer make of Ctrl-C
            _interrupted()
        return code if isinstance(code, int) else 0
    except CregraphError as error:
        return report(error.message, error.hint, code=error.exit_code)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        # What typer makes of Ctrl-C, and Python 3.11 of one during `__set_name__`.
        if type(error).__name__ == "Abort" or isinstance(error.__cause__, KeyboardInterrupt):
            _interrupted()
        return explained(error)


def _on_interrupt(_number: int, _frame: object) -> None:
    """End in order but soon after Ctrl-C, and at once after a second one."""
    signal.signal(signal.SIGINT, lambda *_: _interrupted())
    # A module that is only half imported has no Timer yet. Then the command still loads, and nothing has been written.
    make_timer = getattr(sys.modules.get("threading"), "Timer", None)
    if make_timer is None:
        _interrupted()
    timer = make_timer(_GRACE, _interrupted)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    """End after a Ctrl-C that arrived where Python lets no exception out, such as in a callback of the garbage collector."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        _interrupted()
    sys.__unraisablehook__(found)


def _interrupted() -> NoReturn:
    """End now, without waiting for threads: unfinished files have temporary names, as after a kill."""
    try:
        report("interrupted: no file was left incomplete", "run the same command again to continue", code=130)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # also if Ctrl-C came while something was printed, so that nothing more can be
        os._exit(130)
