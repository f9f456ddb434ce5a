"""The entry point, for `python -m cregraph` and the program `cregraph`.

It installs a handler for Ctrl-C before it imports anything that takes time. `_signal` is the part of `signal` that is built
into the interpreter; `signal` itself imports enum and takes milliseconds.
"""

from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]  # typeshed lacks it

__all__ = ["main"]


def _end(_number: int, _frame: object) -> None:
    """End at once: nothing has been written yet."""
    import posix

    posix.write(2, b"error: interrupted\n")
    posix._exit(130)


def main() -> None:
    """Run the command line and exit."""
    if getsignal(SIGINT) is default_int_handler:  # a shell that runs this in the background ignores Ctrl-C: leave it so
        signal(SIGINT, _end)
    from cregraph.cli import main as run

    run(_end)


if __name__ == "__main__":
    main()
