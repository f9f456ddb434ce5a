"""Which engine runs tasks here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cregraph.engines.contract import Engine
from cregraph.engines.native import Native
from cregraph.engines.trees import Trees
from cregraph.errors import CregraphError, nearest
from cregraph.image import segment as segments
from cregraph.image.base import BaseImage
from cregraph.image.blocks import blocks_as_file, inflated
from cregraph.image.unpack import unpack
from cregraph.store import Store

__all__ = ["ENGINES", "check", "choose"]

ENGINES = ("auto", "native")


def check(name: str) -> None:
    """Raises CregraphError unless an engine is called `name`."""
    if name not in ENGINES:
        meant = nearest(name, ENGINES)
        raise CregraphError(
            f"`--engine {name}`: no engine is called so",
            hint=f"did you mean `{meant}`?" if meant else f"engines: {', '.join(ENGINES)}",
        )


def choose(name: str, *, store: Store, root: BaseImage) -> Engine:
    """The engine called `name`, over the build root `root`. Raises CregraphError saying why it does not work here."""
    check(name)

    def layers(_digest: str) -> Iterator[IO[bytes]]:
        for layer in root.manifest.layers:
            yield blocks_as_file(inflated(root.open_layer(layer), what=f"a layer of {root.name}"))

    def files(key: str, folder: Path) -> None:
        record = segments.read(store, key)
        if record is None:
            raise CregraphError(f"segment {key[:12]} vanished from the store while it was used", hint="run the command again")
        unpack(store, record, folder)

    engine = Native(store, Trees(store, layers=layers, unpack=files))
    reason = engine.available()
    if reason is not None:
        raise CregraphError(
            f"this image has packages to compile, and the native engine does not work here: {reason}",
            hint="run cregraph on Linux as root or where user namespaces are allowed, or take packages from conda instead",
        )
    return engine
