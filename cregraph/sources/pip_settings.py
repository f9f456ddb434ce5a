"""Package locations from the configuration of pip and uv on this machine.

Reads only settings of locations and access: indexes, folders of wheels, certificates, credentials. Ignores settings that
choose versions, because a lock must not depend on them. uv runs without its files (`--no-config`) and gets these settings.

pip: https://pip.pypa.io/en/stable/topics/configuration/. uv: https://docs.astral.sh/uv/reference/settings/.
"""

from __future__ import annotations

import configparser
import contextlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

__all__ = ["PYPI", "Indexes", "ordinary"]

#: The index that pip and uv ask by default.
PYPI = "https://" + ".".join(("pypi", "org")) + "/simple"

_ASKED = {"index-url", "extra-index-url", "find-links", "no-index", "cert", "trusted-host"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexes:
    """Addresses of indexes in order, and folders or pages of files (`find_links`).

    `default` is the index asked last; None means PyPI. If `equal` is true, all indexes have the same priority, as in pip.
    Otherwise the first index that has a package answers for it, as in uv. `cert` is a file of trusted certificates.
    `system_certs` also trusts those of the system. `keyring` is uv's keyring provider.
    """

    default: str | None = None
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    cert: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    equal: bool = False
    system_certs: bool = False
    keyring: str | None = None

    def addresses(self) -> tuple[str, ...]:
        """Return all indexes in the order in which they are asked."""
        last = () if self.no_index else (self.default or PYPI,)
        return tuple(dict.fromkeys((*self.extra, *last)))


def ordinary(environ: Mapping[str, str], home: Path, *, system: Path = Path("/etc")) -> Indexes:
    """Return the settings of pip and uv on this machine. uv's default index has priority over pip's."""
    pip = _pip(environ, home, system)
    uv = _uv(environ, home, system)
    default = uv.default or _one(pip, "index-url")
    pip_extra = _many(pip, "extra-index-url")
    return Indexes(
        default=default.rstrip("/") if default else None,
        extra=tuple(dict.fromkeys(a.rstrip("/") for a in (*uv.extra, *pip_extra))),
        find_links=tuple(dict.fromkeys((*uv.find_links, *_many(pip, "find-links")))),
        no_index=uv.no_index or _one(pip, "no-index", "").lower() in ("1", "true", "yes", "on"),
        cert=environ.get("SSL_CERT_FILE") or _one(pip, "cert") or None,
        trusted_hosts=tuple(dict.fromkeys((*uv.trusted_hosts, *_many(pip, "trusted-host")))),
        equal=bool({a.rstrip("/") for a in pip_extra} - {a.rstrip("/") for a in uv.extra}),
        system_certs=uv.system_certs,
        keyring=uv.keyring,
    )


def _pip(environ: Mapping[str, str], home: Path, system: Path) -> dict[str, str]:
    """Return pip's settings: global, user and site files, PIP_CONFIG_FILE, then variables. Later values win."""
    asked: dict[str, str] = {}
    for file in _pip_files(environ, home, system):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # pip itself reports this error
        for section in ("global", "install", "download"):
            if parser.has_section(section):
                for key, value in parser.items(section):
                    if key.replace("_", "-") in _ASKED:
                        asked[key.replace("_", "-")] = value
    for key in _ASKED:
        if stated := environ.get("PIP_" + key.upper().replace("-", "_")):
            asked[key] = stated
    return asked


def _pip_files(environ: Mapping[str, str], home: Path, system: Path) -> list[Path]:
    named = environ.get("PIP_CONFIG_FILE")
    if named == "/dev/null":
        return []
    folders = [Path(f) / "pip" for f in environ.get("XDG_CONFIG_DIRS", "").split(":") if f]
    files = [*(f / "pip.conf" for f in folders), system / "pip.conf", home / ".pip/pip.conf"]
    files.append(Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf")
    files.append(home / "Library/Application Support/pip/pip.conf")
    if environ.get("VIRTUAL_ENV"):
        files.append(Path(environ["VIRTUAL_ENV"]) / "pip.conf")
    if named:
        files.append(Path(named))
    return files


def _uv(environ: Mapping[str, str], home: Path, system: Path) -> Indexes:
    """Return uv's settings: its files or UV_CONFIG_FILE, then variables. Later values win."""
    files = [system / "uv/uv.toml", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "uv/uv.toml"]
    if environ.get("UV_CONFIG_FILE"):
        files = [Path(environ["UV_CONFIG_FILE"])]
    found = Indexes()
    for file in files if not environ.get("UV_NO_CONFIG") else []:
        with contextlib.suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            found = _with_file(found, tomllib.loads(file.read_text(encoding="utf-8")), environ)
    default = _after_name(environ.get("UV_DEFAULT_INDEX") or "", environ) or environ.get("UV_INDEX_URL") or found.default
    named = [_after_name(a, environ) for a in environ.get("UV_INDEX", "").split()] + environ.get("UV_EXTRA_INDEX_URL", "").split()
    return replace(
        found,
        default=default,
        extra=(*named, *found.extra),
        find_links=(*environ.get("UV_FIND_LINKS", "").replace(",", " ").split(), *found.find_links),
        keyring=environ.get("UV_KEYRING_PROVIDER") or found.keyring,
    )


def _with_file(found: Indexes, data: Mapping[str, object], environ: Mapping[str, str]) -> Indexes:
    """Return `found` with one file of uv: its own settings, those under `pip`, then its named indexes."""
    pip = data.get("pip")
    for table in (data, pip if isinstance(pip, dict) else {}):
        found = replace(
            found,
            default=_text(table.get("index-url")) or found.default,
            extra=(*found.extra, *_texts(table.get("extra-index-url"))),
            find_links=(*found.find_links, *_texts(table.get("find-links"))),
            trusted_hosts=(*found.trusted_hosts, *_texts(table.get("allow-insecure-host"))),
            no_index=found.no_index or table.get("no-index") is True,
            system_certs=found.system_certs or True in (table.get("system-certs"), table.get("native-tls")),
            keyring=_text(table.get("keyring-provider")) or found.keyring,
        )
    listed = data.get("index", [])
    for index in listed if isinstance(listed, list) else []:
        url = _text(index.get("url")) if isinstance(index, dict) and not index.get("explicit") else None
        if url:
            url = _known(url, _text(index.get("name")), environ)
            found = replace(found, default=url) if index.get("default") else replace(found, extra=(*found.extra, url))
    return found


def _after_name(address: str, environ: Mapping[str, str]) -> str:
    """Return the address of an index that uv writes as `URL` or `name=URL`."""
    name, equals, rest = address.partition("=")
    return _known(rest, name, environ) if equals and "/" not in name else address


def _known(address: str, name: str | None, environ: Mapping[str, str]) -> str:
    """Return the address with uv's credentials for index `name`: UV_INDEX_<NAME>_USERNAME and …_PASSWORD."""
    variable = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", (name or "").upper())
    user, password = environ.get(f"{variable}_USERNAME"), environ.get(f"{variable}_PASSWORD")
    url = urlsplit(address)
    if not name or not (user or password) or "@" in url.netloc or not url.netloc:
        return address
    secret = quote(user or "", safe="") + (":" + quote(password, safe="") if password else "")
    return urlunsplit(url._replace(netloc=f"{secret}@{url.netloc}"))


def _one(pip: Mapping[str, str], key: str, default: str = "") -> str:
    values = pip.get(key, "").split()
    return values[0] if values else default


def _many(pip: Mapping[str, str], key: str) -> tuple[str, ...]:
    return tuple(pip.get(key, "").split())


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
