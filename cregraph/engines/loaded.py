"""Images for BuildKit in an engine of Docker's classic image store, which takes none by digest from a layout.

They are loaded under names below `cregraph.invalid`, a host that cannot be (RFC 2606): a name that is not there is nowhere asked
for. What many tasks see stays loaded, so that it goes over once; the rest is removed with its task.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Mapping

from cregraph.digest import key_of
from cregraph.engines.buildx import Buildx
from cregraph.engines.contract import Stopped
from cregraph.engines.task_image import Blob, TaskImage, load_archive
from cregraph.errors import CregraphError
from cregraph.image.media.docker_client import NoImage
from cregraph.image.media.docker_engine import inspect, load_stream, remove_images

__all__ = ["KEPT", "Loaded"]

#: The name of what stays loaded: a build root, and below it what many tasks see.
KEPT = "cregraph.invalid/environment"
_TASK = "cregraph.invalid/task"


class Loaded:
    """The images of the engine of a Docker context (None: the one that the docker CLI would use). Safe with many threads.

    Once `stopped` is set, an image that is being loaded raises Stopped.
    """

    def __init__(self, context: str | None, stopped: threading.Event) -> None:
        self._context = context
        self._stopped = stopped
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
                f"the builder {buildx.builder or 'in use'} does not accept images by digest",
                hint="use another builder (`docker buildx ls`): the BuildKit of this one is older than 0.11",
            )
        endpoint: str | None = found.get("Endpoint", "default")
        if endpoint == "default" or buildx.builder is None:
            endpoint = buildx.context
        return cls(endpoint, buildx.stopped)

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
            remove_images(names.values(), self._context)

    def keep(self, image: TaskImage) -> None:
        """Load `image` to stay."""
        name = f"{KEPT}:{key_of([layer.sha256 for layer in image.layers])[:16]}"
        with self._guard:
            if name in self._kept:
                return
            try:
                inspect(name, self._context)
            except NoImage:
                self._load({name: image}, [])
            self._kept.add(name)

    def _load(self, images: Mapping[str, TaskImage], held: list[Blob]) -> None:
        def pieces() -> Iterator[bytes]:
            for piece in load_archive(images, held=held):
                if self._stopped.is_set():
                    raise Stopped
                yield piece

        load_stream(pieces(), about="the Docker engine does not accept what a task needs", context=self._context)
