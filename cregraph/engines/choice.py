"""Which engine runs tasks here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cregraph.engines.contract import Engine, Limits
from cregraph.errors import CregraphError, nearest
from cregraph.formats.inflate import blocks_as_file, inflated
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.model import segment as segments
from cregraph.image.model.segment_files import unpack
from cregraph.store import Store

__all__ = ["ENGINES", "check", "choose", "reasons"]

ENGINES = ("auto", "native", "docker")

#: What `auto` tries, in order: the fastest first.
_ORDER = ("native", "docker")


def check(name: str, *, builder: str | None = None, context: str | None = None) -> None:
    """Raises CregraphError unless an engine is called `name` and goes with the builder and the context that were named."""
    if name not in ENGINES:
        meant = nearest(name, ENGINES)
        raise CregraphError(
            f"`--engine {name}`: no engine is called so",
            hint=f"did you mean `{meant}`?" if meant else f"engines: {', '.join(ENGINES)}",
        )
    if builder is not None and name not in ("auto", "docker"):
        raise CregraphError(
            f"`--builder` names a builder of BuildKit, and the {name} engine uses none",
            hint=f"leave `--engine {name}` away, or write `--engine docker`",
        )
    if context is not None and name == "native":
        raise CregraphError(
            "`--context` names a Docker engine, and the native engine uses none",
            hint="leave `--engine native` away, or write `--engine docker`",
        )


def choose(
    name: str,
    *,
    store: Store,
    root: BaseImage,
    builder: str | None = None,
    context: str | None = None,
    fresh: bool = False,
    limits: Limits | None = None,
) -> Engine:
    """The engine called `name`, over the build root `root`; `auto` takes the first that works.

    A named `builder` or `context` leaves out engines that would not use it. `fresh`: nothing that the engine itself keeps from
    earlier runs is taken for a result. Raises CregraphError saying why none works here.
    """
    check(name, builder=builder, context=context)
    refused = []
    for each, engine, reason in _tried(
        name, store=store, root=root, builder=builder, context=context, fresh=fresh, limits=limits
    ):
        if reason is None and engine is not None:
            return engine
        refused.append((each, reason or "it does not work here"))
    if len(refused) == 1:
        text = f"the {refused[0][0]} engine does not work here: {refused[0][1]}"
    else:
        text = "no engine works here\n" + "\n".join(f"  {each}: {reason}" for each, reason in refused)
    raise CregraphError(
        f"this image has packages to compile, and {text}",
        hint="`cregraph doctor` looks closer; a Docker engine elsewhere will do (`--context NAME`, `--builder NAME`), "
        "or take packages from conda instead",
    )


def reasons(
    name: str, *, store: Store, root: BaseImage | None = None, builder: str | None = None, context: str | None = None
) -> dict[str, str | None]:
    """Why each engine that `name` may mean does not work here; None for one that does."""
    tried = _tried(name, store=store, root=root, builder=builder, context=context, fresh=False, limits=None)
    return {each: reason for each, _, reason in tried}


def _tried(
    name: str,
    *,
    store: Store,
    root: BaseImage | None,
    builder: str | None,
    context: str | None,
    fresh: bool,
    limits: Limits | None,
) -> Iterator[tuple[str, Engine | None, str | None]]:
    """Engines in order, each with why it does not work here; none is made before it is asked for."""

    def layers(_digest: str) -> Iterator[IO[bytes]]:
        if root is None:  # only whether it works was asked
            return
        for layer in root.manifest.layers:
            yield blocks_as_file(inflated(root.open_layer(layer), what=f"a layer of {root.name}"))

    makers: dict[str, Callable[[], tuple[Engine | None, str | None]]] = {
        "native": lambda: _native(store, layers, limits),
        "docker": lambda: _docker(store, layers, builder, context, fresh, limits),
    }
    for each in _ORDER if name == "auto" else (name,):
        if each == "native" and (builder or context):
            continue
        yield each, *makers[each]()


# What an engine is made of is imported with it: none needs what another needs.


def _native(
    store: Store, layers: Callable[[str], Iterator[IO[bytes]]], limits: Limits | None
) -> tuple[Engine | None, str | None]:
    if not sys.platform.startswith("linux"):
        return None, "namespaces are a thing of Linux; this is another system"
    from cregraph.engines.native import Native
    from cregraph.engines.trees import Trees

    def files(key: str, folder: Path) -> None:
        record = segments.read(store, key)
        if record is None:
            raise CregraphError(f"segment {key[:12]} vanished from the store while it was used", hint="run the command again")
        unpack(store, record, folder)

    engine = Native(store, Trees(store, layers=layers, unpack=files), limits=limits)
    return engine, engine.available()


def _docker(
    store: Store,
    layers: Callable[[str], Iterator[IO[bytes]]],
    builder: str | None,
    context: str | None,
    fresh: bool,
    limits: Limits | None,
) -> tuple[Engine | None, str | None]:
    from cregraph.engines.buildx import Buildx
    from cregraph.engines.docker import Docker
    from cregraph.engines.task_layers import TaskLayers

    buildx = Buildx(builder=builder, context=context)
    engine = Docker(store, TaskLayers(store, layers=layers), buildx, limits=limits, fresh=fresh)
    return engine, engine.available()
