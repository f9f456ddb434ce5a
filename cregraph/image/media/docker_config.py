"""Docker's own settings on this machine: the folder and `config.json` of the docker CLI."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cregraph.errors import CregraphError

__all__ = ["config_folder", "read_config"]


def config_folder() -> Path:
    """Return `$DOCKER_CONFIG`, else `~/.docker`."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())


def read_config(folder: Path, *, hint: str) -> dict[str, Any]:
    """Return the object in `config.json` of `folder`, or an empty one if there is no such file.

    Raises:
        CregraphError: The file cannot be read or holds no JSON object. `hint` says how to repair it.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        raise CregraphError(f"`{path}`: is not readable as JSON", hint) from None
    if not isinstance(config, dict):
        raise CregraphError(f"`{path}`: a JSON object is wanted", hint)
    return config
