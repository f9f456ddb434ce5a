"""The tiny project built by the program itself, and what came out of it, as data. Also under an emulated processor."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "tiny"


def build(
    folder: Path, *, python: Sequence[str] = (sys.executable,), env: Mapping[str, str] | None = None, timeout: float = 300
) -> dict[str, Any]:
    """Build a copy of the tiny project in the new `folder` from a cold store; every digest of what came out.

    `python` starts the interpreter, emulated or not.
    """
    shutil.copytree(TINY, folder)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "PYTHONPATH") if name in os.environ}

    def cregraph(*words: str) -> str:
        done = subprocess.run(
            [*python, "-m", "cregraph", *words],
            cwd=folder,
            env={**kept, "CREGRAPH_CACHE": str(folder / "cache"), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = cregraph("build", "tiny.yaml", "--output", "oci:image").strip()
    key = json.loads(cregraph("plan", "tiny.yaml", "--json"))["key"]
    blobs = folder / "image" / "blobs" / "sha256"
    name, _, digest = said.partition("@")
    manifest = json.loads((blobs / digest.removeprefix("sha256:")).read_bytes())
    for path in blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    return {
        "lock": hashlib.sha256((folder / "locks/tiny.lock.json").read_bytes()).hexdigest(),
        "key": key,
        "reference": name,
        "manifest": digest,
        "config": manifest["config"]["digest"],
        "layers": [layer["digest"] for layer in manifest["layers"]],
    }
