"""`bases/<digest>.json`: base facts as text that reads well in a diff.

Each layer, user, distribution, directory, link and file has its own line. Lines are sorted; equal facts give equal bytes. A
directory is `"<mode, octal> <uid> <gid> <mtime>"`. Files are grouped by folder. `version` is read first.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import asdict

from cregraph.digest import Json, is_sha256
from cregraph.lock.base_facts import BaseFacts, DirFact, LayerFact, PythonFact
from cregraph.lock.typed_json import Field, parse
from cregraph.text import printable

__all__ = ["VERSION", "dumps", "loads"]

VERSION = 1
_LIMIT = 512 << 20
_FIELDS = ("version", "digest", "glibc", "config", "layers", "users", "python", "directories", "links", "files")
_PYTHON = ("version", "executable", "prefix", "site_packages", "scripts")


def dumps(facts: BaseFacts) -> str:
    python = None
    if facts.python is not None:
        python = asdict(facts.python) | {"distributions": dict(sorted(facts.python.distributions.items()))}
    folders: dict[str, list[str]] = {}
    for path in sorted(facts.files):
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder or "/", []).append(name)
    fields = {
        "version": VERSION,
        "digest": facts.digest,
        "glibc": facts.glibc,
        "config": _Line(json.dumps(dict(facts.config), sort_keys=True)),
        "layers": [_Line(json.dumps(asdict(one))) for one in facts.layers],
        "users": {name: _Line(json.dumps(user)) for name, user in sorted(facts.users.items())},
        "python": python,
        "directories": {path: f"{one.mode:o} {one.uid} {one.gid} {one.mtime}" for path, one in sorted(facts.directories.items())},
        "links": dict(sorted(facts.links.items())),
        "files": dict(sorted(folders.items())),
    }
    return _written(fields) + "\n"


@functools.lru_cache(maxsize=4)  # a command reads the facts of one base several times
def loads(text: str, *, name: str) -> BaseFacts:
    """Return the facts in `text`. `name` is the file's, for messages.

    Raises:
        CregraphError: The text is not as `dumps` writes it (with the place), is of a newer version, or is an unfinished merge.
    """
    again = f"restore the file, or remove `{name}` and run `cregraph lock` to make it again"
    top = parse(text, name=name, what="base facts", version=VERSION, limit=_LIMIT, hint=again, merge=again)
    fields = top.fields(*_FIELDS)
    glibc = fields["glibc"]
    if glibc.value is not None and not (isinstance(glibc.value, str) and re.fullmatch(r"[0-9]+\.[0-9]+", glibc.value)):
        raise glibc.wrong("expected a version such as 2.36, or null")
    return BaseFacts(
        digest=_digest(fields["digest"]),
        config=fields["config"].mapping(),
        layers=tuple(_layer(each) for each in fields["layers"].items()),
        glibc=glibc.value,
        users={name: _user(each) for name, each in fields["users"].entries()},
        python=None if fields["python"].value is None else _python(fields["python"]),
        directories={_path(path, each): _directory(each) for path, each in fields["directories"].entries()},
        links={_path(path, each): each.text() for path, each in fields["links"].entries()},
        files=frozenset(_files(fields["files"])),
    )


def _layer(item: Field) -> LayerFact:
    layer = item.fields("digest", "diff_id", "size", "media_type")
    return LayerFact(
        digest=_digest(layer["digest"]),
        diff_id=_digest(layer["diff_id"]),
        size=layer["size"].number(),
        media_type=layer["media_type"].text(),
    )


def _user(item: Field) -> tuple[int, int, str]:
    parts = list(item.items())
    if len(parts) != 3:
        raise item.wrong("expected [uid, gid, home]")
    return parts[0].number(), parts[1].number(), _path(parts[2].value, parts[2])


def _python(item: Field) -> PythonFact:
    python = item.fields(*_PYTHON, "distributions")
    version = python["version"].text()
    if not re.fullmatch(r"3\.[0-9]+\.[0-9]+[a-z0-9]*", version):
        raise python["version"].wrong("expected a full version such as 3.11.2")
    return PythonFact(
        version=version,
        distributions={name: each.text() for name, each in python["distributions"].entries()},
        **{each: _path(python[each].value, python[each]) for each in _PYTHON[1:]},
    )


def _directory(item: Field) -> DirFact:
    found = re.fullmatch(r"([0-7]{1,4}) ([0-9]{1,19}) ([0-9]{1,19}) (-?[0-9]{1,19})", str(item.value))
    if found is None:
        raise item.wrong('expected "<mode, octal> <uid> <gid> <mtime>"')
    return DirFact(mode=int(found[1], 8), uid=int(found[2]), gid=int(found[3]), mtime=int(found[4]))


def _files(item: Field) -> Iterable[str]:
    for folder, names in item.entries():
        start = _path(folder, names).rstrip("/") + "/"
        for name in names.texts():
            if not name or "/" in name or name in (".", ".."):
                raise names.wrong(f"`{printable(name, 200)}` is not a file name")
            yield start + name


def _path(value: object, item: Field) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value or ".." in value.split("/"):
        raise item.wrong(f"`{printable(str(value), 200)}` is not an absolute path")
    return value


def _digest(item: Field) -> str:
    text = item.text()
    if not text.startswith("sha256:") or not is_sha256(text[7:]):
        raise item.wrong("expected sha256:<64 hex digits>")
    return text


class _Line(str):
    """JSON that stays in one line."""

    __slots__ = ()


def _written(value: Json, margin: str = "") -> str:
    """Return JSON with a line for each entry, in ASCII: names that are not UTF-8 are lone surrogates."""
    if isinstance(value, _Line) or not isinstance(value, dict | list):
        return value if isinstance(value, _Line) else json.dumps(value)
    ends, parts = "[]", [_written(each, f"{margin} ") for each in value] if isinstance(value, list) else []
    if isinstance(value, dict):
        ends, parts = "{}", [f"{json.dumps(key)}: {_written(each, f'{margin} ')}" for key, each in value.items()]
    body = ",\n".join(f"{margin} {part}" for part in parts)
    return f"{ends[0]}\n{body}\n{margin}{ends[1]}" if body else ends
