"""Why an engine does not run tasks on this machine, and what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass

from cregraph.engines import choice
from cregraph.engines.buildx import Buildx
from cregraph.errors import CregraphError
from cregraph.store import Store

__all__ = ["EngineState", "engine_states"]

_NO_PLUGIN = "the program `docker` has no plugin buildx"
_ENGINES = ("native", "docker")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineState:
    """An engine on this machine. `reason` says why it does not work, None if it works; `hint` is the way out, if one is known."""

    name: str
    reason: str | None
    hint: str | None = None


def engine_states(store: Store, *, builder: str | None, context: str | None) -> list[EngineState]:
    """Return the state of each engine, in the order in which `auto` tries them."""
    return [_state(name, store, builder, context) for name in _ENGINES]


def _state(name: str, store: Store, builder: str | None, context: str | None) -> EngineState:
    try:
        choice.check(name, builder=builder, context=context)
    except CregraphError as error:
        return EngineState(name=name, reason=error.message)  # the message says itself what the option wants
    try:
        reason = _NO_PLUGIN if name == "docker" and _lacks_buildx() else None
        reason = reason or choice.reasons(name, store=store, builder=builder, context=context)[name]
    except CregraphError as error:
        reason = error.message
    if reason is None or str(store.root) in reason:
        return EngineState(name=name, reason=reason)
    return EngineState(name=name, reason=reason, hint=_native_cure() if name == "native" else _docker_cure(reason))


def _lacks_buildx() -> bool:
    """Return whether there is a `docker` without its plugin. docker itself only says that it knows no such flag."""
    return bool(shutil.which("docker")) and Buildx().ask("version").returncode != 0


def _native_cure() -> str:
    if not sys.platform.startswith("linux"):
        return "it needs Linux; here the docker engine does the same (Docker Desktop, or an engine elsewhere)"
    from cregraph.engines.namespaces import forbidding

    found = forbidding()
    if found is not None and os.geteuid() != 0:
        return f"{found[1]}\n(for good: a line in /etc/sysctl.d/), or run cregraph as root, or take another engine"
    return (
        "run cregraph as root, in a container with --cap-add SYS_ADMIN, seccomp and AppArmor unconfined; or take another engine"
    )


def _docker_cure(reason: str) -> str:
    low = reason.lower()
    if not shutil.which("docker"):
        return "install Docker's command line (the package docker-cli or docker-ce-cli)"
    if reason == _NO_PLUGIN:
        return "install the plugin buildx (the package docker-buildx or docker-buildx-plugin)"
    if "permission denied" in low:
        return "this user may not use the engine's socket: join the group `docker`, or set DOCKER_HOST to another engine"
    if any(words in low for words in ("does not answer", "cannot connect", "connect", "dial", "no such host")):
        return "start the engine, or say where it is: DOCKER_HOST, `docker context use NAME`, or `--context NAME`"
    return "`docker info` and `docker buildx ls` say more"
