"""A terminal lent to a sandbox: nothing in there has the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.at_a_terminal import at_a_terminal

LENT = """
import os, subprocess, sys
from cregraph.engines.terminal import terminal
with terminal() as (stdin, stdout, stderr):
    print("lent", os.isatty(stdin), os.path.sameopenfile(stdin, 0), file=sys.stderr, flush=True)
    subprocess.run(["head", "-n1"], stdin=stdin, stdout=stdout, stderr=stderr, check=True)
print("whole again", os.isatty(0), file=sys.stderr)
"""


@pytest.mark.parametrize("piped", [False, True])
def test_a_command_reads_what_is_typed_and_never_has_our_terminal(tmp_path: Path, piped: bool) -> None:
    """Also where its output goes to a file or another program, as in `cregraph shell TASK -- ls | head`."""
    (tmp_path / "lent.py").write_text(LENT)
    where = " | cat > out" if piped else ""
    command = ["sh", "-c", f"{sys.executable} lent.py{where}"]
    code, shown = at_a_terminal(command, [(f"lent {not piped} False", "hello\r")], folder=tmp_path, env=os.environ)
    assert code == 0, shown
    assert f"lent {not piped} False" in shown
    assert "whole again True" in shown
    assert "hello" in ((tmp_path / "out").read_text() if piped else shown)


def test_without_a_terminal_a_command_has_pipes_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    (tmp_path / "lent.py").write_text(LENT)
    done = subprocess.run([sys.executable, "lent.py"], cwd=tmp_path, input="hello\n", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    assert done.stderr == "lent False False\nwhole again False\n"
