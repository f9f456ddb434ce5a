"""Which engine runs tasks here, why one does not, and what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from cregraph.engines.contract import Engine
from cregraph.errors import CregraphError, did_you_mean
from cregraph.formats.inflate import blocks_as_file, inflated
from cregraph.image.bases.base_image import BaseImage
from cregraph.image.model.segment_files import stored, unpack
from cregraph.store import Store

__all__ = ["ENGINES", "EngineState", "check", "choose", "engine_states", "open_layers", "reasons"]

#: What `auto` tries, in order: the fastest first.
_ORDER = ("native", "docker")
ENGINES = ("auto", *_ORDER)

_NO_PLUGIN = "the program `docker` has no plugin buildx"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineState:
    """An engine on this machine. `reason` says why it does not work, None if it works; `hint` is the way out, if one is known."""

    name: str
    reason: str | None
    hint: str | None = None


def check(name: str, *, builder: str | None = None, context: str | None = None) -> None:
    """Raise CregraphError unless an engine is called `name` and goes with the builder and the context that were named."""
    if name not in ENGINES:
        raise CregraphError(
            f"unknown engine `{name}` (expected auto, native or docker)",
            hint=did_you_mean(name, ENGINES, f"engines: {', '.join(ENGINES)}"),
        )
    if builder is not None and name not in ("auto", "docker"):
        raise CregraphError(
            f"`--builder` names a builder of BuildKit, which the {name} engine does not use",
            hint=f"leave `--engine {name}` away, or write `--engine docker`",
        )
    if context is not None and name == "native":
        raise CregraphError(
            "`--context` names a Docker engine, which the native engine does not use",
            hint="remove `--engine native`, or write `--engine docker`",
        )


def choose(
    name: str, *, store: Store, root: BaseImage, builder: str | None = None, context: str | None = None, fresh: bool = False
) -> Engine:
    """Return the engine called `name`, over the build root `root`; `auto` takes the first that works.

    A named `builder` or `context` leaves out engines that would not use it. With `fresh`, nothing that the engine itself keeps
    from earlier runs is taken for a result. Raises CregraphError saying why none works here.
    """
    check(name, builder=builder, context=context)
    refused = []
    for each, engine, reason in _tried(name, store, root, builder, context, fresh=fresh):
        if engine is not None and reason is None:
            return engine
        refused.append((each, reason))
    if len(refused) == 1:
        text = f"the {refused[0][0]} engine does not work here: {refused[0][1]}"
    else:
        text = "no engine works here\n" + "\n".join(f"  {each}: {reason}" for each, reason in refused)
    raise CregraphError(
        f"this image has packages to compile, and {text}",
        hint="run `cregraph doctor` for details, use a Docker engine on another machine (`--context NAME`, `--builder NAME`), "
        "or take packages from conda instead",
    )


def reasons(name: str, *, store: Store, builder: str | None = None, context: str | None = None) -> dict[str, str | None]:
    """Return why each engine that `name` may mean does not work here; None for one that does."""
    return {each: reason for each, _, reason in _tried(name, store, None, builder, context)}


def open_layers(root: BaseImage) -> Iterator[IO[bytes]]:
    """Open the uncompressed layers of an image, in order, each until the next is asked for."""
    for layer in root.manifest.layers:
        yield blocks_as_file(inflated(root.open_layer(layer), what=f"a layer of {root.name}"))


def _tried(
    name: str, store: Store, root: BaseImage | None, builder: str | None, context: str | None, *, fresh: bool = False
) -> Iterator[tuple[str, Engine | None, str | None]]:
    """Engines in order, each with why it does not work here; none is made, nor imported, before it is asked for.

    `root` is None if only whether they work is asked.
    """

    def layers(_digest: str) -> Iterator[IO[bytes]]:
        return open_layers(root) if root is not None else iter(())

    for each in _ORDER if name == "auto" else (name,):
        if each == "docker":
            from cregraph.engines.buildx import Buildx
            from cregraph.engines.docker import Docker
            from cregraph.engines.task_layers import TaskLayers

            docker = Docker(store, TaskLayers(store, layers=layers), Buildx(builder=builder, context=context), fresh=fresh)
            yield each, docker, docker.available()
        elif builder or context:
            continue
        elif not sys.platform.startswith("linux"):
            yield each, None, "namespaces need Linux, and this is another system"
        else:
            from cregraph.engines.native import Native
            from cregraph.engines.trees import Trees

            trees = Trees(store, layers=layers, unpack=lambda key, folder: unpack(store, stored(store, key, key[:12]), folder))
            native = Native(store, trees)
            yield each, native, native.available()


def engine_states(store: Store, *, builder: str | None, context: str | None) -> list[EngineState]:
    """Return the state of each engine, in the order in which `auto` tries them."""
    return [_state(name, store, builder, context) for name in _ORDER]


def _state(name: str, store: Store, builder: str | None, context: str | None) -> EngineState:
    try:
        check(name, builder=builder, context=context)
    except CregraphError as error:
        return EngineState(name=name, reason=error.message)  # the message says itself what the option wants
    try:
        from cregraph.engines.buildx import Buildx

        # Without its plugin, docker itself only says that it knows no such flag.
        lacks = name == "docker" and shutil.which("docker") and Buildx().ask("version").returncode != 0
        reason = _NO_PLUGIN if lacks else None
        reason = reason or reasons(name, store=store, builder=builder, context=context)[name]
    except CregraphError as error:
        reason = error.message
    if reason is None or str(store.root) in reason:
        return EngineState(name=name, reason=reason)
    return EngineState(name=name, reason=reason, hint=_native_cure() if name == "native" else _docker_cure(reason))


def _native_cure() -> str:
    if not sys.platform.startswith("linux"):
        return "use the docker engine: Docker Desktop, or an engine on another machine"
    from cregraph.engines.namespaces import forbidding

    found = forbidding()
    if found is not None and os.geteuid() != 0:
        return f"{found[1]}\n(permanently: a line in /etc/sysctl.d/), or run cregraph as root, or use another engine"
    return "run cregraph as root, in a container with --cap-add SYS_ADMIN, seccomp and AppArmor unconfined; or use another engine"


def _docker_cure(reason: str) -> str:
    low = reason.lower()
    if not shutil.which("docker"):
        return "install Docker's command line (the package docker-cli or docker-ce-cli)"
    if reason == _NO_PLUGIN:
        return "install the plugin buildx (the package docker-buildx or docker-buildx-plugin)"
    if "permission denied" in low:
        return "join the group `docker`, because this user may not use the engine's socket, or set DOCKER_HOST to another engine"
    if any(words in low for words in ("does not answer", "cannot connect", "connect", "dial", "no such host")):
        return "start the engine, or name another one: DOCKER_HOST, `docker context use NAME`, or `--context NAME`"
    return "run `docker info` and `docker buildx ls` for details"
