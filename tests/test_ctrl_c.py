"""Ctrl-C at any moment: exit 130 without a traceback, from the first statement of cregraph on."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults import GENEROUS, Demo
from tests.real_project import Done

COMMANDS = (("lock", "demo.yaml", "--check"), ("plan", "demo.yaml"), ("build", "demo.yaml", "--jobs", "1"))
MOMENTS = 50
#: Sends itself SIGINT when the nth module is imported, counted from the first one that cregraph's entry point imports.
AT_IMPORT = """
import os, runpy, signal, sys
left = int(sys.argv.pop(1))
counting = False
def hook(event, args):
    global left, counting
    counting = counting or (event == "import" and args[0] == "cregraph.cli")
    if counting and event == "import":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
sys.argv[0] = "cregraph"
runpy.run_module("cregraph", run_name="__main__")
"""


def seeded() -> random.Random:
    seed = int(os.environ.get("CREGRAPH_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CREGRAPH_TEST_SEED={seed}")
    return random.Random(seed)


def interrupted(done: Done) -> bool:
    """Return whether the process says that it was interrupted. Fails for a traceback of cregraph and for any other end.

    Until the interpreter runs the first statement of cregraph, Ctrl-C is its own: it ends with its own words. That is out of
    our hands, so such an end is accepted if no file of the package is in it.
    """
    if done.code == 130:
        assert "Traceback" not in done.err and done.err.endswith(("error: interrupted\n", "to continue\n")), done.err
        return True
    assert not re.search(r'File "[^"]*/cregraph/[^"]*\.py"', done.err), done.err
    assert done.code == 0 or "Traceback" in done.err or done.err == "", (done.code, done.err)
    return False


def after(process: subprocess.Popen[str], seconds: float) -> Done:
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=GENEROUS)
    return Done(process.returncode, out, err)


def test_ctrl_c_at_random_moments_is_exit_130_and_no_traceback(made: Demo, tmp_path: Path) -> None:
    """Moments from the start of the process to the usual end of the command. What is left is whole."""
    chance = seeded()
    demo = made.copy(tmp_path / "p", cold=True)
    start = time.monotonic()
    demo.ok(*COMMANDS[0])
    whole = time.monotonic() - start
    count = 0
    for _ in range(MOMENTS):
        words = chance.choice(COMMANDS)
        count += interrupted(after(demo.start(*words), chance.uniform(0, whole * (3 if words[0] == "build" else 1))))
    assert count >= MOMENTS // 4
    demo.ok("build", "demo.yaml", "--jobs", "1")
    demo.is_whole()


@pytest.mark.parametrize("words", COMMANDS, ids=[words[0] for words in COMMANDS])
def test_ctrl_c_while_any_module_is_imported_is_exit_130_and_no_traceback(made: Demo, words: tuple[str, ...]) -> None:
    chance = seeded()
    for moment in (1, 2, 3, *sorted(chance.sample(range(4, 150), 9))):
        done = made.run(str(moment), *words, program=("-c", AT_IMPORT))
        assert interrupted(done), (moment, done.code, done.err)


def test_ctrl_c_that_python_wraps_is_still_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 raises RuntimeError from an exception in `__set_name__`, also while a module is imported."""
    from cregraph import cli

    def wrapped(_words: list[str]) -> None:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    def ended() -> None:
        raise SystemExit(130)

    monkeypatch.setattr("cregraph.cli.direct_parser.direct_call", wrapped)
    monkeypatch.setattr(cli, "_interrupted", ended)
    with pytest.raises(SystemExit) as caught:
        cli._outcome([])
    assert caught.value.code == 130
