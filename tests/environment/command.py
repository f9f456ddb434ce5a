"""Running other programs, and running them inside a root file system."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from .parts import EPOCH, EnvironmentUnavailable

# A mount namespace of its own: whatever happens, no mount outlives the command and none is seen by the host.
_ENTER = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=16m tmpfs "$1/dev"
for node in null zero full random urandom; do touch "$1/dev/$node"; mount --bind "/dev/$node" "$1/dev/$node"; done
mkdir "$1/dev/shm"; mount -t tmpfs -o mode=1777,size=512m tmpfs "$1/dev/shm"
ln -s /proc/self/fd "$1/dev/fd"
mount -t proc proc "$1/proc"
root="$1"; shift
exec chroot "$root" "$@"
"""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, told: str | None = None) -> str:
    """Standard output of a program; EnvironmentUnavailable with the end of what it said when it fails or is missing."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as missing:
        raise EnvironmentUnavailable(f"{command[0]} is not installed") from missing
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-15:]
        line = told or shlex.join(str(word) for word in command)[:300]
        raise EnvironmentUnavailable("\n".join([f"`{line}` failed with {done.returncode}", *said]))
    return done.stdout


def run_in(root: Path, *command: str, env: dict[str, str] | None = None) -> str:
    """Standard output of a program started in `root`, without network, with nothing of the caller's environment.

    /dev and /proc are there while it runs. Needs root and util-linux.
    """
    inside = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", **(env or {})}
    inside.setdefault("SOURCE_DATE_EPOCH", str(EPOCH))
    assignments: list[str] = [f"{name}={value}" for name, value in inside.items()]
    entering = ("unshare", "--mount", "--net", "--pid", "--fork", "--uts", "sh", "-c", _ENTER, "enter", root)
    return run(*entering, "env", "-i", *assignments, *command, told=shlex.join(command)[:300])
