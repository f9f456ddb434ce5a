"""Images for BuildKit in an engine of Docker's classic image store, which takes none by digest from a layout.

They are loaded under names below `cregraph.invalid`, a host that cannot be (RFC 2606): a name that is not there is nowhere asked
for. What many tasks see stays loaded, so that it goes over once; the rest is removed with its task.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import threading
from collections.abc import Iterator, Mapping

from cregraph.digest import key_of
from cregraph.engines.buildx import Buildx, one_line
from cregraph.engines.task_image import Blob, TaskImage, load_archive
from cregraph.errors import CregraphError

__all__ = ["KEPT", "Loaded"]

#: The name of what stays loaded: a build root, and below it what many tasks see.
KEPT = "cregraph.invalid/environment"
_TASK = "cregraph.invalid/task"


class Loaded:
    """The images of one engine. Safe with many threads. `docker` are the words that begin a command for it."""

    def __init__(self, docker: list[str]) -> None:
        self._docker = docker
        self._guard = threading.Lock()
        self._kept: set[str] = set()

    @classmethod
    def of(cls, buildx: Buildx) -> Loaded:
        """That of the engine which builds; a builder of another driver has no image store to load into."""
        done = buildx.ask("inspect", *([buildx.builder] if buildx.builder else []))
        fields = [line.partition(":") for line in done.stdout.splitlines()]
        found = {name.strip(): value.strip() for name, _, value in reversed(fields)}  # the first of each name
        if done.returncode or found.get("Driver") != "docker":
            raise CregraphError(
                f"the builder {buildx.builder or 'in use'} takes no images by digest",
                hint="its BuildKit is older than 0.11: use another builder (`docker buildx ls`)",
            )
        endpoint = found.get("Endpoint", "default")
        if endpoint == "default" or buildx.builder is None:
            return cls(buildx.docker())
        return cls(["docker", "--context", endpoint])

    @contextlib.contextmanager
    def images(self, images: Mapping[str, TaskImage]) -> Iterator[dict[str, str]]:
        """Load `images` while the block lasts; their names by the caller's names."""
        below: list[Blob] = []
        for image in images.values():
            if image.lasting:
                below += image.layers[: image.lasting]
                self.keep(TaskImage(layers=image.layers[: image.lasting]))
        own = secrets.token_hex(6)
        names = {name: f"{_TASK}:{own}-{number}" for number, name in enumerate(images)}
        wanted = {names[name]: image for name, image in images.items()}
        try:
            try:
                self._load(wanted, below)
            except CregraphError:
                self._load(wanted, [])  # somebody may have removed what stays loaded
            yield names
        finally:
            self._run("image", "rm", "--force", *names.values())

    def keep(self, image: TaskImage) -> None:
        """Load `image` to stay."""
        name = f"{KEPT}:{key_of([layer.sha256 for layer in image.layers])[:16]}"
        with self._guard:
            if name in self._kept:
                return
            if self._run("image", "inspect", "--format", "{{.Id}}", name).returncode:
                self._load({name: image}, [])
            self._kept.add(name)

    def _load(self, images: Mapping[str, TaskImage], held: list[Blob]) -> None:
        with subprocess.Popen(
            [*self._docker, "image", "load", "--quiet"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            try:
                with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                    for piece in load_archive(images, held=held):
                        pipe.write(piece)
            except BaseException:
                process.kill()
                raise
            said = process.stderr.read(1 << 16)
        if process.returncode:
            raise CregraphError(
                f"the Docker engine does not take what a task needs: {one_line([said.decode('utf-8', 'replace')])[-400:]}",
                hint="`docker system df` says what fills the engine's disk; `docker info` whether it is well",
            )

    def _run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._docker, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, start_new_session=True
        )
