"""The assembler on other processors: the tiny project built whole by emulated ones, every digest that of the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.environment import EnvironmentUnavailable
from tests.environment.arm64 import interpreter
from tests.golden_tiny import GOLDEN, build

REQUIRE = os.environ.get("CREGRAPH_REQUIRE_EMULATION") == "1"
ROOT = Path(__file__).parent.parent

#: Asks the processor (CPUID leaf 1, ecx) by a few bytes of machine code; bits 28 and 29 are AVX and F16C, 19 is SSE4.1.
_CPUID = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("53b801000000" "0fa2" "89c8" "5bc3"))
ask = ctypes.CFUNCTYPE(ctypes.c_uint32)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
bits = ask()
print(bits >> 19 & 1, bits >> 28 & 1, bits >> 29 & 1)
"""


def emulator(processor: str) -> str:
    """The program that runs another processor's programs; skips with the reason, or fails where CI asks for it."""
    for name in (f"qemu-{processor}-static", f"qemu-{processor}"):
        if found := shutil.which(name):
            return found
    return unavailable(f"no qemu-{processor} (Debian: qemu-user-static)")


def unavailable(why: str) -> str:
    if REQUIRE:
        pytest.fail(f"emulation is asked for and not to be had: {why}", pytrace=False)
    pytest.skip(why)


def said(python: Sequence[str], code: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run([*python, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def golden() -> dict[str, object]:
    found = json.loads((GOLDEN / "tiny.json").read_text())
    del found["assembly"]
    return dict(found)


@pytest.mark.parametrize(
    ("model", "bits"),
    [("core2duo", "0 0 0"), ("Nehalem", "1 0 0")],  # of 2006: no SSE4.1; of 2008: no AVX
)
def test_an_old_x86_64_gives_the_same_bytes(tmp_path: Path, model: str, bits: str) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("its interpreter is this machine's own, which is another one")
    python = (emulator("x86_64"), "-cpu", model, sys.executable)
    assert said(python, _CPUID) == bits
    assert build(tmp_path / "tiny", python=python) == golden()


@pytest.mark.environment
def test_an_aarch64_gives_the_same_bytes(tmp_path: Path) -> None:
    qemu = emulator("aarch64")
    try:
        root, executable, site = interpreter()
    except EnvironmentUnavailable as why:
        unavailable(str(why))
        return
    python = (qemu, "-L", str(root), str(executable), "-S", "-B")
    env = {"PYTHONPATH": f"{ROOT}:{site}"}
    assert said(python, "import platform, deflate; print(platform.machine(), deflate.__file__)", env).split()[0] == "aarch64"
    assert build(tmp_path / "tiny", python=python, env=env) == golden()
