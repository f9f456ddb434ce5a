"""Addresses of sources on this machine (`sources.yaml`, design 6), never part of a lock.

    conda:    {conda-forge: https://mirror.example/conda-forge}   # an address or a list of them, asked in order
    cran:     https://cran.example/snapshots/{date}
    cran_binary: https://cran.example/binaries/{distribution}/{r}/{date}     # default: the layout of Posit Package Manager
    pypi:     https://index.example/simple
    image:    ./vendor/images                     # an OCI layout on disk, or a list of them, asked first for every image
    recipes:  ./vendor/recipes                    # sets of standard recipes, for locks whose set is not in locks/recipes/
    registry: {snowflake: {host: myorg-acct.registry.example, plain_http: false}}
    url:      {"https://github.com/": "https://mirror.example/github/"}
    cache:    {team: {ref: registry.example/team/cache, trusted: true}}     # remote caches by name; see docs/cache.md

An address starts with http(s)://, file://, `./`, `../` or `/`. Relative paths start at the folder of sources.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cregraph.errors import CregraphError, did_you_mean
from cregraph.text import redacted

__all__ = ["Cache", "Registry", "Routes", "is_web_address", "join", "read_routes"]

#: Addresses of names that sources.yaml does not state.
CONDA_DEFAULT = "https://conda.anaconda.org/{name}"
CRAN_DEFAULT = "https://packagemanager.posit.co/cran/{date}"

_SECTIONS = ("conda", "cran", "cran_binary", "pypi", "image", "recipes", "registry", "url", "cache")


@dataclass(frozen=True, kw_only=True, slots=True)
class Registry:
    """An image registry. `host` may have a port. `plain_http` means http, not https."""

    host: str
    plain_http: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Cache:
    """A remote cache. `ref` is `HOST/PATH` or `registry:NAME/PATH`. Builds also use unrecorded results of a `trusted` cache."""

    ref: str
    trusted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Routes:
    """Addresses of sources by name. `origin` is the file that states them, `host_field` the profile's field for a host."""

    origin: str = "the defaults"
    host_field: str = ""
    conda: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cran: tuple[str, ...] = ()
    cran_binary: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    recipes: Path | None = None
    registry: Mapping[str, Registry] = field(default_factory=dict)
    url: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cache: Mapping[str, Cache] = field(default_factory=dict)

    def channel(self, name: str) -> tuple[str, ...]:
        """Return the addresses of a conda channel, without final slash."""
        return self.conda.get(name) or (CONDA_DEFAULT.format(name=name),)

    def snapshots(self) -> tuple[str, ...]:
        """Return the addresses of CRAN, with `{date}`."""
        return self.cran or (CRAN_DEFAULT,)

    def binaries(self) -> tuple[str, ...]:
        """Return the addresses of built R packages, with `{distribution}`, `{r}` and `{date}`.

        By default they follow from the addresses of CRAN: Posit Package Manager has a folder `__linux__/<distribution>`
        before the date. A CRAN address without `{date}` is skipped.
        """
        if self.cran_binary:
            return self.cran_binary
        dated = [address for address in self.snapshots() if "{date}" in address]
        return tuple(address.replace("{date}", "__linux__/{distribution}/{date}") for address in dated)

    def of_url(self, url: str) -> tuple[str, ...]:
        """Return the addresses of a profile's URL: the longest matching prefix decides. By default, return the URL itself."""
        for prefix in sorted(self.url, key=len, reverse=True):
            if url.startswith(prefix):
                return tuple(address + url[len(prefix) :] for address in self.url[prefix])
        return (url,)


def read_routes(text: str, *, name: str, folder: Path) -> Routes:
    """Return the routes in a `sources.yaml`. Relative addresses start at `folder`. Raises CregraphError naming the field."""
    import yaml

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CregraphError(f"{name}{_why(error)}") from None
    if data is None:
        return Routes(origin=name)
    if not isinstance(data, dict):
        raise CregraphError(f"{name}: expected a mapping of {', '.join(_SECTIONS)}, not a {type(data).__name__}")
    for section in data:
        if section not in _SECTIONS:
            raise CregraphError(
                f"{name}: unknown section `{section}`",
                hint=did_you_mean(str(section), _SECTIONS, f"use one of these sections: {', '.join(_SECTIONS)}"),
            )

    def addresses(value: object, field: str) -> tuple[str, ...]:
        listed: list[object] = value if isinstance(value, list) else [value]
        texts = [item for item in listed if isinstance(item, str) and item]
        if not texts or len(texts) < len(listed):
            raise CregraphError(f"{name}: {field}: expected an address or a list of addresses")
        return tuple(_address(item, field, name, folder) for item in texts)

    def mapping(section: str) -> dict[str, object]:
        value = data.get(section) or {}
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise CregraphError(f"{name}: {section}: expected a mapping")
        return value

    def listed(section: str) -> tuple[str, ...]:
        return tuple(a.rstrip("/") for a in addresses(data[section], section)) if data.get(section) else ()

    def pairs(section: str, text: str, flag: str, example: str) -> Iterator[tuple[str, str, bool]]:
        """Yield (name, text, flag) for each entry of a section that maps names to a text, or to a text and a flag."""
        for key, value in mapping(section).items():
            fields = {text: value} if isinstance(value, str) else value
            if not isinstance(fields, dict) or not isinstance(fields.get(text), str) or set(fields) - {text, flag}:
                raise CregraphError(f"{name}: {section}.{key}: expected {{{text}: {example}, {flag}: false}}")
            if not isinstance(fields.get(flag, False), bool):
                raise CregraphError(f"{name}: {section}.{key}.{flag}: expected true or false")
            yield key, fields[text], fields.get(flag, False)

    return Routes(
        origin=name,
        conda={key: tuple(a.rstrip("/") for a in addresses(v, f"conda.{key}")) for key, v in mapping("conda").items()},
        cran=listed("cran"),
        cran_binary=listed("cran_binary"),
        pypi=listed("pypi"),
        image=tuple(_on_disk(a, "image", name) for a in addresses(data["image"], "image")) if data.get("image") else (),
        recipes=Path(_on_disk(addresses(data["recipes"], "recipes")[0], "recipes", name)) if data.get("recipes") else None,
        registry={
            key: Registry(host=host.lower().rstrip("/"), plain_http=plain)
            for key, host, plain in pairs("registry", "host", "plain_http", "NAME")
        },
        url={key: addresses(v, f"url.{key}") for key, v in mapping("url").items()},
        cache={key: Cache(ref=ref, trusted=trusted) for key, ref, trusted in pairs("cache", "ref", "trusted", "HOST/PATH")},
    )


def _on_disk(address: str, field: str, name: str) -> str:
    if not address.startswith("file://"):
        raise CregraphError(
            f"{name}: {field}: `{redacted(address)}` is not a folder on this machine",
            hint="write ./a/folder that holds an OCI layout; name a registry under `registry`"
            if field == "image"
            else "write ./a/folder that `cregraph vendor` wrote",
        )
    from urllib.request import url2pathname  # imports http and ssl

    return url2pathname(urlsplit(address).path)


def is_web_address(text: str) -> bool:
    """Return whether `text` is an http(s) address with a host, a valid port and no white space."""
    try:
        parts = urlsplit(text)
        well = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # .port raises if invalid
    except ValueError:
        return False
    return bool(well) and not re.search(r"[\s\0-\x1f]", text)


def join(address: str, *parts: str) -> str:
    """Return `address/part/part` with single slashes. Raises CregraphError if a part contains `..`."""
    for part in parts:
        if ".." in part.split("/"):
            raise CregraphError(f"{part!r} climbs out of {redacted(address)}")
    return "/".join([address.rstrip("/"), *(part.strip("/") for part in parts if part.strip("/"))])


def _address(text: str, field: str, name: str, folder: Path) -> str:
    if is_web_address(text) or text.startswith("file:///"):
        return text
    if text.startswith(("./", "../", "/")):
        end = "/" if text.endswith("/") else ""
        return re.sub(r"%7B(date|distribution|r)%7D", r"{\1}", (folder / text).resolve().as_uri()) + end
    raise CregraphError(
        f"{name}: {field}: `{redacted(text)}` is not an address", hint="write https://…, http://…, file:///… or ./a/folder"
    )


def _why(error: Exception) -> str:
    """Return line number and reason of a YAML error. The line itself may contain a password."""
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None else ""
    return f"{line}: not readable as YAML: {getattr(error, 'problem', None) or type(error).__name__}"
