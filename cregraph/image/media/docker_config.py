"""Docker's own settings on this machine: `config.json` of the docker CLI, and the engine that DOCKER_HOST or a context names.

The SDK has a reader of contexts too, but it looks in another folder where DOCKER_CONFIG has no config.json, and drops a CA
certificate that comes without a client's.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cregraph.digest import sha256
from cregraph.errors import CregraphError

__all__ = ["Endpoint", "config_folder", "endpoint", "read_config"]

_SOCKET = "unix:///var/run/docker.sock"
_LIST = "run `docker context ls` to list the contexts"


def config_folder() -> Path:
    """Return `$DOCKER_CONFIG`, else `~/.docker`."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())


def read_config(folder: Path, *, hint: str) -> dict[str, Any]:
    """Return the object in `config.json` of `folder`, or an empty one if there is no such file.

    Raises:
        CregraphError: The file cannot be read or does not contain a JSON object. `hint` says how to repair it.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        raise CregraphError(f"{path}: is not readable as JSON", hint) from None
    if not isinstance(config, dict):
        raise CregraphError(f"{path}: invalid value (expected a JSON object)", hint)
    return config


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """The address of a Docker engine.

    Attributes:
        host: An address as DOCKER_HOST has it: `unix://`, `tcp://`, `ssh://`, `http://` or `https://`.
        tls: Folder of `ca.pem`, `cert.pem` and `key.pem`, each optional. None: no TLS.
        verify: Whether the engine's certificate is checked.
    """

    host: str
    tls: Path | None = None
    verify: bool = True


def endpoint(context: str | None = None) -> Endpoint:
    """Return the engine of the Docker context `context`; None: the engine that the docker CLI would use.

    Source: docker/cli, cli/command/cli.go, resolveContextName: DOCKER_HOST, DOCKER_CONTEXT, `currentContext`, the default.

    Raises:
        CregraphError: The context does not exist or cannot be read.
    """
    if context is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", context):
        raise CregraphError(f"`--context {context}`: invalid name of a Docker context", hint=_LIST)
    name = context
    if name is None and not os.environ.get("DOCKER_HOST"):
        name = os.environ.get("DOCKER_CONTEXT")
        name = name or read_config(config_folder(), hint="repair the file, or set DOCKER_HOST").get("currentContext")
    return _default() if not name or name == "default" else _of_context(str(name))


def _default() -> Endpoint:
    host = os.environ.get("DOCKER_HOST") or _SOCKET
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not os.environ.get("DOCKER_TLS"):
        return Endpoint(host=host)
    return Endpoint(host=host, tls=Path(os.environ.get("DOCKER_CERT_PATH") or config_folder()), verify=verify)


def _of_context(name: str) -> Endpoint:
    folder = config_folder() / "contexts"
    key = sha256(name.encode())
    path = folder / "meta" / key / "meta.json"
    try:
        found = json.loads(path.read_bytes())["Endpoints"]["docker"]
        host, skips = str(found["Host"]), bool(found.get("SkipTLSVerify"))
    except FileNotFoundError:
        raise CregraphError(f"the Docker context `{name}` does not exist", hint=_LIST) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CregraphError(f"{path}: is not readable as a Docker context", hint=f"remove the context `{name}`") from None
    tls = folder / "tls" / key / "docker"
    return Endpoint(host=host, tls=tls if tls.is_dir() or skips else None, verify=not skips)
