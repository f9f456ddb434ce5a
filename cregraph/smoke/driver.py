"""Driver that runs the checks of smoke_checks.py inside an image, in Jupyter kernels, and prints JSON lines.

It needs Python 3.8 with its standard library, and reads checks.json in its own folder. It uses the image's jupyter_client;
if that is missing, checks fail. No check can end the driver: a dead kernel is restarted for the next check.
"""

from __future__ import annotations

import importlib
import json
import queue
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START_SECONDS = 240.0
CELL_SECONDS = 600.0
#: A free kernel reports at once that it runs a cell. ipykernel 7 sometimes misses a cell: then the driver tries again.
TAKEN_SECONDS = 20.0
TRIES = 3
MARK = "cregraph-answer:"

R_NAMES = f'cat(paste0("{MARK}", rownames(utils::installed.packages()), "\\n"), sep = "")'
R_LOAD = f"""
local({{
  before <- search()
  suppressPackageStartupMessages(library("NAME", character.only = TRUE))
  cat("\\n{MARK}", as.character(getNamespaceVersion("NAME")), "\\n", sep = "")
  for (one in setdiff(search(), before)) try(detach(one, character.only = TRUE, force = TRUE), silent = TRUE)
}})
"""

PYTHON_LOAD = """
def _cregraph_probe(name):
    import importlib, json
    from importlib import metadata
    from pathlib import PurePosixPath
    try:
        dist = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return {"version": None}
    files = [PurePosixPath(str(f)) for f in dist.files or ()]
    folders = {f.parent for f in files if f.name == "__init__.py"}
    names = {".".join(d.parts) for d in folders if d.parts and d.parent not in folders}
    for f in files:
        if len(f.parts) == 1 and f.suffix in (".py", ".so", ".pyd"):
            names.add(f.name.partition(".")[0])
    names = {n for n in names if all(p.isidentifier() and not p.startswith("_") for p in n.split("."))}
    names = names - {"test", "tests", "docs", "examples", "benchmarks", "scripts"} or names
    wrong = {}
    for module in sorted(names):
        try:
            importlib.import_module(module)
        except BaseException as error:
            wrong[module] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return {"version": dist.version, "wrong": wrong}
"""


class Failed(Exception):
    """A check failed; the text says why."""


class NotTaken(Failed):
    """The kernel is alive but did not begin. The check has no result, so it is retried in a new kernel."""


class Kernel:
    """A Jupyter kernel of this image in `folder`. It starts on first use, and again after it died."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.manager: Any = None
        self.client: Any = None
        self.said_at_start = ""
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (open until the driver ends)

    def start(self) -> None:
        if self.manager is not None and self.manager.is_alive():
            return
        self.stop()
        try:
            manager_class = importlib.import_module("jupyter_client.manager").KernelManager
        except ImportError as error:
            raise Failed(f"this image cannot start a Jupyter kernel: {line(error)}") from None
        try:
            self.manager = manager_class(kernel_name="python3")
            self.manager.start_kernel(cwd=self.folder, stdout=self.log, stderr=self.log)
        except Exception as error:
            self.manager = None
            raise Failed(f"the kernel cannot be started: {line(error)}") from None
        self.client = self.manager.client()
        self.client.start_channels()
        self.ready()

    def restart(self) -> None:
        """Restart the kernel, as a user does from the menu."""
        self.start()
        self.manager.restart_kernel(now=False)
        self.ready()

    def ready(self) -> None:
        """Wait until the kernel answers. Keep its own start-up output."""
        self.said_at_start = ""
        end = time.monotonic() + START_SECONDS
        request = self.client.kernel_info()
        while True:
            try:
                if self.client.get_shell_msg(timeout=1)["parent_header"].get("msg_id") == request:
                    break
            except queue.Empty:
                self.still_there(end)
        # The output channel may connect later: run a cell until its answer arrives.
        limit = time.monotonic() + TAKEN_SECONDS
        while self.run("pass", 1, quiet=True) is None:
            if time.monotonic() > limit:
                raise NotTaken(f"the kernel started, and published nothing within {TAKEN_SECONDS:.0f} s")

    def still_there(self, end: float) -> None:
        if not self.manager.is_alive():
            raise Failed(f"the kernel died: {self.last_words()}")
        if time.monotonic() > end:
            self.stop()
            raise Failed(f"the kernel did not answer within {START_SECONDS:.0f} s of its start")

    def run(self, code: str, seconds: float, quiet: bool = False) -> Any:
        """Return a cell's (text, error); error is empty on success. With `quiet`, return None if nothing arrives."""
        request = self.client.execute(code, store_history=not quiet, allow_stdin=False)
        text: list[str] = []
        error, begun = "", False
        end = time.monotonic() + seconds
        taken = time.monotonic() + TAKEN_SECONDS
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                if not self.manager.is_alive():
                    raise Failed(f"the kernel died: {self.last_words()}") from None
                if quiet and time.monotonic() > end:
                    return None
                if not begun and time.monotonic() > taken:
                    raise NotTaken("the kernel lives, and does not begin what it is asked") from None
                if time.monotonic() < end:
                    continue
                self.stop()
                raise Failed(f"no answer within {seconds:.0f} s") from None
            kind, content = message["msg_type"], message["content"]
            said = content.get("text", "") if kind == "stream" else content.get("data", {}).get("text/plain", "")
            ours = message["parent_header"].get("msg_id") == request
            begun = begun or ours
            if not ours:
                self.said_at_start += said
            elif kind == "error":
                error = error_text(content)
            elif kind == "status" and content.get("execution_state") == "idle":
                return "".join(text), error
            else:
                text.append(said)

    def cell(self, code: str) -> str:
        """Return a cell's text. Raises Failed if it fails or uses an unknown magic."""
        self.start()
        text, error = self.run(code, CELL_SECONDS)
        missing = re.search(r"UsageError: .*", text)
        if error or missing:
            raise Failed(error or plain(missing.group() if missing else ""))
        return str(text)

    def last_words(self) -> str:
        self.log.seek(0)
        rows = self.log.read().decode("utf-8", "replace").splitlines()[-50:]
        return plain(" ".join(row for row in rows if "WARNING" not in row))[-400:] or "it said nothing"

    def stop(self) -> None:
        if self.client is not None:
            self.client.stop_channels()
        if self.manager is not None:
            self.manager.shutdown_kernel(now=True)
        self.manager = self.client = None


class Image:
    """The kernels of this image, and a function for each check. `program` is the R to run; None to use %%R."""

    def __init__(self, asked: Any) -> None:
        self.kernel = Kernel(str(Path.cwd()))
        self.renv = Kernel(asked["renv"])
        self.program = asked["programs"].get("r")
        self.names: Any = None

    def stop(self) -> None:
        self.kernel.stop()
        self.renv.stop()

    def start(self) -> None:
        self.kernel.start()

    def banner(self, file: str, says: str) -> None:
        self.kernel.start()
        said = self.kernel.said_at_start
        if says not in said:  # it may have come before the driver listened; the file may run again
            said = self.kernel.cell(f"exec(compile(open({file!r}).read(), {file!r}, 'exec'))")
        found = next((row for row in said.splitlines() if says in row), None)
        if found is None:
            raise Failed(f"the kernel's start does not say `{says}`")
        if "not available" in found:
            raise Failed(plain(found))

    def file(self, file: str, text: str) -> None:
        try:
            with open(file, encoding="utf-8") as opened:
                found = opened.read(1 << 16).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(line(error)) from None
        if found != text:
            raise Failed(f"it says `{plain(found)[:100]}` (expected `{text}`)")

    def r_version(self, version: str, first: str = "") -> None:
        kernel = self.renv if first == "renv" else self.kernel
        if first == "restart":
            kernel.restart()
        try:
            said = kernel.cell("%%R\ncat(R.version.string)")
        finally:
            if first == "renv":
                kernel.stop()
        if f"R version {version} " not in said + " ":
            raise Failed(f"R.version.string is `{plain(said)[:200]}` (expected R {version})")

    def r_package(self, package: str, version: str) -> None:
        if self.names is None:
            self.names = {name.lower(): name for name in answers(self.r(R_NAMES))}
        name = self.names.get(package.lower())
        if name is None or not re.fullmatch(r"[A-Za-z0-9.]+", name):
            raise Failed("R has no package of that name")
        found = (answers(self.r(R_LOAD.replace("NAME", name))) or ["nothing"])[-1]
        if parts(found) != parts(version):
            raise Failed(f"it is version {found}, and {version} is locked")

    def python_package(self, package: str, version: str) -> None:
        said = answers(
            self.kernel.cell(f"{PYTHON_LOAD}\nprint({MARK!r} + __import__('json').dumps(_cregraph_probe({package!r})))")
        )
        found = json.loads(said[-1])
        if found["version"] is None:
            raise Failed("it is not installed")
        if found["version"] != version:
            raise Failed(f"it is version {found['version']}, and {version} is locked")
        for module, why in found["wrong"].items():
            raise Failed(f"import {module}: {why}")

    def pip_check(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "check"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CELL_SECONDS
        )
        rows = done.stdout.decode("utf-8", "replace").splitlines()
        # Snowflake's own check ignores lines that name jupyter-lsp.
        rows = [plain(row) for row in rows if row.strip() and "jupyter-lsp" not in row and "WARNING" not in row]
        if done.returncode and rows:
            raise Failed("; ".join(rows[:5]) + (f"; and {len(rows) - 5} more" if len(rows) > 5 else ""))

    def recipe(self, language: str, code: Any) -> None:
        for cell in code:
            if language == "r":
                self.r(cell)
            else:
                self.kernel.cell(cell)

    def r(self, code: str) -> str:
        if self.program is None:
            return self.kernel.cell("%%R\n" + code)
        try:
            done = subprocess.run(
                [self.program, "--vanilla", "--slave"],
                input=code.encode() + b"\n",
                capture_output=True,
                timeout=CELL_SECONDS,
            )
        except OSError as error:
            raise Failed(line(error)) from None
        if done.returncode:
            raise Failed(plain(done.stderr.decode("utf-8", "replace"))[-400:] or f"R ends with {done.returncode}")
        return done.stdout.decode("utf-8", "replace")


def error_text(content: Any) -> str:
    """Return a cell's error as one line; for an error of R, R's message."""
    name, value = plain(str(content.get("ename", ""))), str(content.get("evalue", ""))
    r_said = re.search(r"R error message:(.*)", value, re.DOTALL)
    if r_said:
        return plain(r_said.group(1).replace("\\n", " ")).strip("\"' ")[:400]
    return f"{name}: {plain(value)}"[:400]


def answers(text: str) -> list[str]:
    return [row[len(MARK) :].strip() for row in text.splitlines() if row.startswith(MARK)]


def parts(version: str) -> list[int | str]:
    """Return a version's parts. To R, 1.0-16 equals 1.0.16; conda writes 1.0_16."""
    return [int(part) if part.isdigit() else part for part in re.split(r"[._-]", version)]


def plain(text: str) -> str:
    """Return text as one line, without terminal control sequences."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def line(error: BaseException) -> str:
    return plain(f"{type(error).__name__}: {error}")[:400]


#: The functions that a check may name (`do` in checks.json).
CHECKS: dict[str, Callable[..., None]] = {
    check.__name__: check
    for check in (
        *(Image.start, Image.banner, Image.file, Image.recipe),
        *(Image.pip_check, Image.python_package, Image.r_package, Image.r_version),
    )
}


def attempt(image: Image, check: Any) -> None:
    start = time.monotonic()
    why = None
    for _ in range(TRIES):
        try:
            CHECKS[check["do"]](image, **check["data"])
            why = None
        except NotTaken as error:
            why = str(error)
            image.stop()
            continue
        except Failed as error:
            why = str(error)
        except subprocess.TimeoutExpired:
            why = f"no answer within {CELL_SECONDS:.0f} s"
        except Exception as error:
            why = line(error)
        break
    answer = {"cregraph-check": check["name"], "ok": why is None, "why": why, "seconds": round(time.monotonic() - start, 2)}
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Run every check of checks.json, which is next to this file."""
    asked = json.loads(Path(__file__).with_name("checks.json").read_text(encoding="utf-8"))
    image = Image(asked)
    try:
        for check in asked["checks"]:
            attempt(image, check)
    finally:
        image.stop()


if __name__ == "__main__":
    main()
