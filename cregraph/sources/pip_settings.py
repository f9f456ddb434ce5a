"""Where the ordinary Python clients look for packages on this machine: pip's and uv's configuration, both.

Only what says where packages lie is read (indexes, folders of wheels, certificates); what chooses versions is not, for a lock
must not depend on it. pip: https://pip.pypa.io/en/stable/topics/configuration/. uv reads its own files and variables itself;
here only those that pip's would be in the way of are looked for.
"""

from __future__ import annotations

import configparser
import contextlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PYPI", "Indexes", "beyond_uv", "ordinary"]

PYPI = "https://" + ".".join(("pypi", "org")) + "/simple"

_ASKED = {"index-url", "extra-index-url", "find-links", "no-index", "cert", "trusted-host"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexes:
    """Addresses of indexes, the first one first, and folders or pages of files (`find_links`).

    `default` is the last index that is asked; None leaves it to uv. `cert` is a file of certificates to trust.
    """

    default: str | None = None
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    cert: str | None = None
    trusted_hosts: tuple[str, ...] = ()

    def addresses(self) -> tuple[str, ...]:
        """Every index in the order in which it is asked."""
        last = () if self.no_index else (self.default or PYPI,)
        return tuple(dict.fromkeys((*self.extra, *last)))


def ordinary(environ: Mapping[str, str], home: Path, *, system: Path = Path("/etc")) -> Indexes:
    """What pip and uv are told on this machine. Where both name a default index, uv's holds."""
    pip = _pip(environ, home, system)
    uv = _uv(environ, home, system)
    default = uv.default or _one(pip, "index-url")
    return Indexes(
        default=default.rstrip("/") if default else None,
        extra=tuple(dict.fromkeys(a.rstrip("/") for a in (*uv.extra, *_many(pip, "extra-index-url")))),
        find_links=tuple(dict.fromkeys((*uv.find_links, *_many(pip, "find-links")))),
        no_index=uv.no_index or _one(pip, "no-index", "").lower() in ("1", "true", "yes", "on"),
        cert=environ.get("SSL_CERT_FILE") or _one(pip, "cert") or None,
        trusted_hosts=_many(pip, "trusted-host"),
    )


def beyond_uv(environ: Mapping[str, str], home: Path, *, system: Path = Path("/etc")) -> Indexes:
    """What pip is told and uv is not: what uv must be told to look where pip does."""
    merged, uv = ordinary(environ, home, system=system), _uv(environ, home, system)
    return Indexes(
        default=None if uv.default else merged.default,
        extra=tuple(a for a in merged.extra if a not in {u.rstrip("/") for u in uv.extra}),
        find_links=tuple(a for a in merged.find_links if a not in uv.find_links),
        no_index=merged.no_index and not uv.no_index,
        cert=merged.cert,
        trusted_hosts=merged.trusted_hosts,
    )


def _pip(environ: Mapping[str, str], home: Path, system: Path) -> dict[str, str]:
    """pip's settings: global, user and site files, the file that a variable names, then variables; later ones hold."""
    asked: dict[str, str] = {}
    for file in _pip_files(environ, home, system):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # pip itself says so when it is used
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
    default: str | None = None
    extra: list[str] = []
    links: list[str] = []
    no_index = False
    files = [system / "uv/uv.toml", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "uv/uv.toml"]
    if environ.get("UV_CONFIG_FILE"):
        files = [Path(environ["UV_CONFIG_FILE"])]
    for file in files if not environ.get("UV_NO_CONFIG") else []:
        with contextlib.suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            data = tomllib.loads(file.read_text(encoding="utf-8"))
            for table in (data, data.get("pip", {})):
                default = _text(table.get("index-url")) or default
                extra += _texts(table.get("extra-index-url"))
                links += _texts(table.get("find-links"))
                no_index = no_index or table.get("no-index") is True
            for index in data.get("index", []):
                url = _text(index.get("url")) if isinstance(index, dict) and not index.get("explicit") else None
                if url and index.get("default"):
                    default = url
                elif url:
                    extra.append(url)
    default = _after_name(environ.get("UV_DEFAULT_INDEX") or "") or environ.get("UV_INDEX_URL") or default
    named = [_after_name(a) for a in environ.get("UV_INDEX", "").split()] + environ.get("UV_EXTRA_INDEX_URL", "").split()
    links = environ.get("UV_FIND_LINKS", "").replace(",", " ").split() + links
    return Indexes(default=default, extra=(*named, *extra), find_links=tuple(links), no_index=no_index)


def _after_name(address: str) -> str:
    """uv writes an index as `URL` or `name=URL`."""
    name, equals, rest = address.partition("=")
    return rest if equals and "/" not in name else address


def _one(pip: Mapping[str, str], key: str, default: str = "") -> str:
    values = pip.get(key, "").split()
    return values[0] if values else default


def _many(pip: Mapping[str, str], key: str) -> tuple[str, ...]:
    return tuple(pip.get(key, "").split())


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
