"""`docker buildx build` as a process: what it streams out, what its steps print, and why it refuses.

It reaches the engine as the user set it up (DOCKER_HOST, contexts, `docker buildx use`); a builder or a context may be named.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from cregraph.engines.contract import Stopped
from cregraph.engines.namespaces import Running
from cregraph.errors import CregraphError
from cregraph.text import printable

__all__ = ["Build", "Buildx", "Said", "one_line"]

_GRACE = 15  # seconds to wait for the last words of a build that ended
_SAID = 8000  # characters of what it says that are kept
_HELD = 16 << 20  # bytes of stderr of a step that are kept
_LARGEST = 64 << 20  # characters of one object
_PIECE = 1 << 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}")
#: Settings of a user or a CI that would change what is built, or how it is said.
_UNSET = (
    "SOURCE_DATE_EPOCH",
    "BUILDKIT_PROGRESS",
    "BUILDX_METADATA_PROVENANCE",
    "BUILDX_METADATA_WARNINGS",
    "BUILDX_BAKE_GIT_AUTH_TOKEN",
)
_SET = {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "BUILDX_GIT_INFO": "false", "DOCKER_CLI_HINTS": "false", "NO_COLOR": "1"}


class Said:
    """What a build said on its way: `errors`, of steps and of the whole; `stderr`, what steps wrote there; `cached`, the steps
    that were not run; `sent`, the bytes of each blob (`sha256:…`) that went to the builder."""

    def __init__(self, output: Callable[[bytes], object]) -> None:
        self._output = output
        self._decoder = json.JSONDecoder()
        self._waiting = ""
        self.errors: list[str] = []
        self.words = ""
        self.stderr = bytearray()
        self.cached: set[str] = set()
        self.sent: dict[str, int] = {}
        self.broken: BaseException | None = None

    def feed(self, text: str) -> None:
        """Take more of what `--progress rawjson` writes: objects, on any number of lines, and plain lines between them."""
        text = self._waiting + text
        at = 0
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            if text[at] == "{":
                try:
                    found, at = self._decoder.raw_decode(text, at)
                except ValueError:
                    if len(text) - at < _LARGEST:
                        break
                    found, at = None, len(text)  # whatever it is, it is no progress
                if isinstance(found, dict):
                    self._status(found)
                continue
            end = text.find("\n", at)
            if end < 0:
                break
            self._word(text[at:end])
            at = end + 1
        self._waiting = text[at:]

    def end(self) -> None:
        """Nothing more comes."""
        self._word(self._waiting)
        self._waiting = ""

    def _word(self, line: str) -> None:
        line = line.strip()
        if line:
            self.words = f"{self.words}\n{line}"[-_SAID:]

    def _status(self, status: dict[str, object]) -> None:
        for vertex in _dicts(status.get("vertexes")):
            error = vertex.get("error")
            if isinstance(error, str) and error and error not in self.errors:
                self.errors.append(error[:_SAID])
            if vertex.get("cached"):
                self.cached.add(str(vertex.get("name", "")))
        for each in _dicts(status.get("statuses")):
            blob, count = str(each.get("id", "")), each.get("current")
            if blob.startswith("sha256:") and isinstance(count, int):
                self.sent[blob] = max(count, self.sent.get(blob, 0))
        for log in _dicts(status.get("logs")):
            with contextlib.suppress(ValueError):
                data = base64.b64decode(str(log.get("data", "")))
                if log.get("stream") == 2:
                    self.stderr += data[: _HELD - len(self.stderr)]
                else:
                    self._output(data)


def _dicts(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))


class Build:
    """A build that runs. `out` is what it exports to standard output."""

    def __init__(self, process: subprocess.Popen[bytes], said: Said, reader: threading.Thread) -> None:
        self._process = process
        self._reader = reader
        self.said = said
        assert process.stdout is not None
        self.out: IO[bytes] = process.stdout

    def ended(self) -> int:
        """Its exit status once it has ended; afterwards `said` is whole. What is left of `out` is read and dropped."""
        while self.out.read(_PIECE):
            pass
        code = self._process.wait()
        self._reader.join()
        self.said.end()
        if self.said.broken is not None:
            raise self.said.broken
        return code


class Buildx:
    """Runs builds, many at once, with the builder and the context that were named; None: those that the user has set."""

    def __init__(self, *, builder: str | None = None, context: str | None = None) -> None:
        for option, name in (("--builder", builder), ("--context", context)):
            if name is not None and not _NAME.fullmatch(name):
                raise CregraphError(
                    f"`{option} {printable(name, 120)}` is not the name of a builder or context",
                    hint="use letters, digits and . _ + -",
                )
        self.builder = builder
        self.context = context
        self.running = Running()
        self.stopped = self.running.stopped

    def docker(self) -> list[str]:
        """The words that begin a command of Docker's for this engine."""
        return ["docker", *(["--context", self.context] if self.context else [])]

    @contextlib.contextmanager
    def build(self, words: Sequence[str], *, folder: Path, output: Callable[[bytes], object]) -> Iterator[Build]:
        """Start `docker buildx build --progress rawjson <words>` in `folder`; it is ended when the block is left before it.

        `output` gets what steps print, as it comes, from another thread. Raises Stopped after `stop`.
        """
        argv = [*self.docker(), "buildx", "build", *(["--builder", self.builder] if self.builder else [])]
        env = {name: value for name, value in os.environ.items() if name not in _UNSET} | _SET
        if self.stopped.is_set():
            raise Stopped
        process = _start([*argv, "--progress", "rawjson", *words], env, folder)
        said = Said(output)
        reader = threading.Thread(target=_read, args=(process.stderr, said), daemon=True)
        reader.start()
        try:
            with self.running.holding(process):
                yield Build(process, said, reader)
        finally:
            reader.join(_GRACE)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `docker buildx <words>` and wait, at most a minute."""
        argv = [*self.docker(), "buildx", *words]
        try:
            return subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, 1, "", "no answer within a minute")
        except OSError as error:
            return subprocess.CompletedProcess(argv, 1, "", f"the program `docker` cannot be started: {error.strerror}")


def _start(argv: Sequence[str], env: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    try:
        # A session of its own: Ctrl-C is for us, and we end what we began in order.
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        raise CregraphError(
            f"the program `docker` cannot be started: {error.strerror}",
            hint="install Docker's command line with its plugin buildx; it reaches the engine, here or elsewhere",
        ) from None


def _read(stream: IO[bytes], said: Said) -> None:
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    try:
        while data := os.read(stream.fileno(), _PIECE):
            said.feed(decoder.decode(data))
    except BaseException as error:  # a log that cannot be written: said by who waits for the build
        said.broken = error
        with contextlib.suppress(OSError, ValueError):
            while os.read(stream.fileno(), _PIECE):
                pass


def one_line(parts: Iterable[str]) -> str:
    """Texts of a program as one line that no terminal obeys."""
    return printable(" ".join(" ".join(parts).split()))
