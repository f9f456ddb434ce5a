"""Credentials for a registry: those that `docker login` stored, read as Docker reads them.

`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`: for a host first its `credHelpers`, then `credsStore`, then
`auths`. Helpers are the programs `docker-credential-NAME`, called as Docker calls them (host on stdin, JSON on stdout).
No credential is printed, logged, stored or put into a message.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cregraph.errors import CregraphError
from cregraph.image.media.docker_config import config_folder, read_config
from cregraph.image.model.reference import DOCKER_HUB

__all__ = ["ANONYMOUS", "Credentials", "docker_credentials"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A user and password, or an identity token (OAuth 2's refresh token). Never shown."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.user or self.identity)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()


def docker_credentials(host: str, *, folder: Path | None = None) -> Credentials:
    """Return the credentials that Docker would send to `host`, or ANONYMOUS. `folder` stands in for `$DOCKER_CONFIG`.

    Raises:
        CregraphError: The file, or a helper that it names, cannot be used.
    """
    folder = folder or config_folder()
    path = folder / "config.json"
    config = read_config(folder, hint=f"repair it, or run `docker login {host}` again")
    names = [f"https://index.{DOCKER_HUB}/v1/", DOCKER_HUB] if host == DOCKER_HUB else [host]
    helpers = _mapping(config, "credHelpers")
    for name in names:
        if isinstance(helper := helpers.get(name), str) and helper:
            return _ask_helper(helper, name)
    if isinstance(store := config.get("credsStore"), str) and store:
        for name in names:
            if found := _ask_helper(store, name):
                return found
    bare = {_bare(key): value for key, value in _mapping(config, "auths").items() if isinstance(value, dict)}
    return _of_entry(bare.get(_bare(names[0])) or bare.get(host) or {}, path, host)


def _mapping(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _bare(key: str) -> str:
    """Return the host in a key of `auths`: older clients wrote addresses."""
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]


def _of_entry(entry: dict[str, Any], path: Path, host: str) -> Credentials:
    identity = entry.get("identitytoken")
    if isinstance(identity, str) and identity:
        return Credentials(identity=identity)
    auth = entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            user, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise CregraphError(f"{path}: auths: the entry for {host} is damaged", f"run `docker login {host}` again")
        return Credentials(user=user, password=password.rstrip("\0"))
    name, secret = entry.get("username"), entry.get("password")
    if isinstance(name, str) and isinstance(secret, str) and name:
        return Credentials(user=name, password=secret)
    return ANONYMOUS


def _ask_helper(helper: str, host: str) -> Credentials:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", helper):
        raise CregraphError("Docker's config.json names a credential helper that is not the name of a program")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=host.encode(), capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        raise CregraphError(
            f"Docker's config.json keeps credentials in `{program}`, which is not on PATH",
            f"install it, or remove the entry and run `docker login {host}`",
        ) from None
    except (OSError, subprocess.TimeoutExpired):
        raise CregraphError(f"`{program}` does not answer", "unlock its keychain, and run the command again") from None
    if done.returncode:
        said = done.stdout + done.stderr  # Docker's own helpers write the reason to stdout
        if b"not found" in said.lower():
            return ANONYMOUS
        raise CregraphError(f"`{program}` has no credentials for {host}", f"run `docker login {host}` again")
    try:
        found = json.loads(done.stdout)
        user, secret = found["Username"], found["Secret"]
        if not isinstance(user, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise CregraphError(f"`{program}` does not return readable credentials") from None
    if not secret:
        return ANONYMOUS
    return Credentials(identity=secret) if user == "<token>" else Credentials(user=user, password=secret)
