"""`bases/<digest>.json`: base facts as text that reads well in a diff.

One line a layer, user, distribution, directory, link and file, sorted, equal facts to equal bytes. A directory is
`"<mode, octal> <uid> <gid> <mtime>"`, files are grouped by their folder, their first line break aside. `version` is read first.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.lock.base_facts import BaseFacts, DirFact, LayerFact, PythonFact

__all__ = ["VERSION", "dumps", "loads"]

VERSION = 1
_LIMIT = 512 << 20
_FIELDS = {"version", "digest", "glibc", "config", "layers", "users", "python", "directories", "links", "files"}
_PYTHON = ("version", "executable", "prefix", "site_packages", "scripts")


def dumps(facts: BaseFacts) -> str:
    """The text of `facts`, ending in a line break."""
    python: list[str] = ["null"]
    if facts.python is not None:
        head = [f"{_text(name)}: {_text(getattr(facts.python, name))}" for name in _PYTHON]
        inner = _object((f"{_text(k)}: {_text(v)}" for k, v in sorted(facts.python.distributions.items())), 2)
        python = ["{", ",\n".join(f"  {line}" for line in [*head, f'"distributions": {inner}']), " }"]
    layers = (
        json.dumps({"digest": one.digest, "diff_id": one.diff_id, "size": one.size, "media_type": one.media_type})
        for one in facts.layers
    )
    folders: dict[str, list[str]] = {}
    for path in facts.files:
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder or "/", []).append(name)
    lists = (
        f"{_text(folder)}: [\n" + ",\n".join(f"   {_text(name)}" for name in sorted(names)) + "\n  ]"
        for folder, names in sorted(folders.items())
    )
    directories = (
        f'{_text(path)}: "{one.mode:o} {one.uid} {one.gid} {one.mtime}"' for path, one in sorted(facts.directories.items())
    )
    fields = [
        f'"version": {VERSION}',
        f'"digest": {_text(facts.digest)}',
        f'"glibc": {json.dumps(facts.glibc)}',
        f'"config": {_text(facts.config)}',
        f'"layers": {_object(layers, 1, "[]")}',
        f'"users": {_object((f"{_text(name)}: {_text(list(user))}" for name, user in sorted(facts.users.items())), 1)}',
        '"python": ' + "\n".join(python),
        f'"directories": {_object(directories, 1)}',
        f'"links": {_object((f"{_text(path)}: {_text(link)}" for path, link in sorted(facts.links.items())), 1)}',
        f'"files": {_object(lists, 1)}',
    ]
    return "{\n" + ",\n".join(f" {field}" for field in fields) + "\n}\n"


@functools.lru_cache(maxsize=4)  # a command asks for those of one base several times
def loads(text: str, *, name: str) -> BaseFacts:
    """The facts that `text` states. Raises CregraphError that names the file `name` and the field that is wrong."""
    if len(text) > _LIMIT:
        raise CregraphError(f"`{name}`: is larger than {_LIMIT >> 20} MiB")
    if re.search(r"^(<{7} |>{7} |={7}$)", text, re.MULTILINE):
        raise CregraphError(f"`{name}`: holds the marks of an unfinished merge", _again(name))
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        raise CregraphError(f"`{name}`: is not readable as JSON: {error}", _again(name)) from None
    if not isinstance(value, dict):
        raise CregraphError(f"`{name}`: a JSON object is wanted", _again(name))
    version = value.get("version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise CregraphError(f"`{name}`: version: an integer is wanted", _again(name))
    if version > VERSION:
        raise CregraphError(f"`{name}` has version {version}; this cregraph reads up to {VERSION}", "upgrade cregraph")
    return _Reader(name).facts(value)


def _again(name: str) -> str:
    return f"restore it, or remove `{name}` and run `cregraph lock`, which makes it anew"


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name

    def facts(self, value: dict[str, Any]) -> BaseFacts:
        if unknown := sorted(set(value) - _FIELDS):
            raise self.bad(unknown[0], "is not a field of base facts")
        if missing := sorted(_FIELDS - set(value)):
            raise self.bad(missing[0], "is missing")
        glibc = value["glibc"]
        if glibc is not None and not (isinstance(glibc, str) and re.fullmatch(r"[0-9]+\.[0-9]+", glibc)):
            raise self.bad("glibc", "a version such as 2.36, or null, is wanted")
        layers = value["layers"]
        if not isinstance(layers, list):
            raise self.bad("layers", "a list is wanted")
        return BaseFacts(
            digest=self.digest(value["digest"], "digest"),
            config=self.mapping(value["config"], "config"),
            layers=tuple(self.layer(layer, f"layers[{i}]") for i, layer in enumerate(layers)),
            glibc=glibc,
            users={k: self.user(v, f"users.{k}") for k, v in self.mapping(value["users"], "users").items()},
            python=None if value["python"] is None else self.python(self.mapping(value["python"], "python")),
            directories={
                self.path(k, "directories"): self.directory(v, f"directories.{k}")
                for k, v in self.mapping(value["directories"], "directories").items()
            },
            links={self.path(k, "links"): self.text(v, f"links.{k}") for k, v in self.mapping(value["links"], "links").items()},
            files=frozenset(self.files(self.mapping(value["files"], "files"))),
        )

    def layer(self, value: object, field: str) -> LayerFact:
        layer = self.mapping(value, field)
        if set(layer) != {"digest", "diff_id", "size", "media_type"}:
            raise self.bad(field, "digest, diff_id, size and media_type are wanted")
        return LayerFact(
            digest=self.digest(layer["digest"], f"{field}.digest"),
            diff_id=self.digest(layer["diff_id"], f"{field}.diff_id"),
            size=self.number(layer["size"], f"{field}.size"),
            media_type=self.text(layer["media_type"], f"{field}.media_type"),
        )

    def user(self, value: object, field: str) -> tuple[int, int, str]:
        if not isinstance(value, list) or len(value) != 3:
            raise self.bad(field, "[uid, gid, home] is wanted")
        return self.number(value[0], f"{field}[0]"), self.number(value[1], f"{field}[1]"), self.path(value[2], f"{field}[2]")

    def python(self, value: dict[str, Any]) -> PythonFact:
        if set(value) != {*_PYTHON, "distributions"}:
            raise self.bad("python", f"{', '.join(_PYTHON)} and distributions are wanted")
        if not isinstance(value["version"], str) or not re.fullmatch(r"3\.[0-9]+\.[0-9]+[a-z0-9]*", value["version"]):
            raise self.bad("python.version", "a full version such as 3.11.2 is wanted")
        distributions = self.mapping(value["distributions"], "python.distributions")
        return PythonFact(
            version=value["version"],
            executable=self.path(value["executable"], "python.executable"),
            prefix=self.path(value["prefix"], "python.prefix"),
            site_packages=self.path(value["site_packages"], "python.site_packages"),
            scripts=self.path(value["scripts"], "python.scripts"),
            distributions={k: self.text(v, f"python.distributions.{k}") for k, v in distributions.items()},
        )

    def directory(self, value: object, field: str) -> DirFact:
        found = (
            re.fullmatch(r"([0-7]{1,4}) ([0-9]{1,19}) ([0-9]{1,19}) (-?[0-9]{1,19})", value) if isinstance(value, str) else None
        )
        if found is None:
            raise self.bad(field, '"<mode, octal> <uid> <gid> <mtime>" is wanted')
        return DirFact(mode=int(found[1], 8), uid=int(found[2]), gid=int(found[3]), mtime=int(found[4]))

    def files(self, value: dict[str, Any]) -> Iterable[str]:
        for folder, names in value.items():
            self.path(folder, "files")
            if not isinstance(names, list):
                raise self.bad(f"files.{folder}", "a list of names is wanted")
            start = "/" if folder == "/" else folder + "/"
            for i, name in enumerate(names):
                if not isinstance(name, str) or not name or "/" in name or name in (".", ".."):
                    raise self.bad(f"files.{folder}[{i}]", "a file's name is wanted")
                yield start + name

    def path(self, value: object, field: str) -> str:
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value or ".." in value.split("/"):
            raise self.bad(field, f"`{str(value)[:200]}` is no absolute path")
        return value

    def digest(self, value: object, field: str) -> str:
        if not isinstance(value, str) or not value.startswith("sha256:") or not is_sha256(value[7:]):
            raise self.bad(field, "sha256:<64 hex digits> is wanted")
        return value

    def number(self, value: object, field: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.bad(field, "a whole number is wanted")
        return value

    def text(self, value: object, field: str) -> str:
        if not isinstance(value, str):
            raise self.bad(field, "a text is wanted")
        return value

    def mapping(self, value: object, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.bad(field, "an object is wanted")
        return value

    def bad(self, field: str, why: str) -> CregraphError:
        return CregraphError(f"`{self.name}`: {field}: {why}", _again(self.name))


def _text(value: object) -> str:
    # ASCII, so that names which are no UTF-8 (kept as lone surrogates) can be written too
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, sort_keys=True)


def _object(lines: Iterable[str], depth: int, ends: str = "{}") -> str:
    margin = " " * depth
    body = ",\n".join(f"{margin} {line}" for line in lines)
    return f"{ends[0]}\n{body}\n{margin}{ends[1]}" if body else ends


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"`{twice}` stands there twice")
    return found


def _no_float(text: str) -> Any:
    raise ValueError(f"`{text}` is no whole number")
