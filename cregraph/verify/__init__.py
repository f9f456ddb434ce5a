"""Whether an image holds what a lock says: packages by what it tells of itself, files by their bytes where these are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cregraph.image.bases.facts_from_layers import is_listed
from cregraph.image.bases.file_tree import Directory, Link
from cregraph.image.bases.image_files import Contents, Held, Known
from cregraph.image.model.config import compose
from cregraph.image.model.segment import Row
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Pin, Target
from cregraph.plan.parts import Segment
from cregraph.plan.planner import Plan
from cregraph.store import Store
from cregraph.verify import installed
from cregraph.verify.expected import Expected, expected, places
from cregraph.verify.installed import Installed

__all__ = ["Finding", "Verdict", "is_exactly", "known_layers", "verify"]

What = Literal["missing", "extra", "version", "changed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One way in which an image is not what the lock says. `name` is a package, path, variable, label or part of the config."""

    what: What
    subject: Literal["base", "package", "file", "directory", "variable", "label", "config"]
    name: str
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was held against the lock. `by` is how: the whole image by its digest, or the files and packages in it.

    `packages` have the version that the lock says; `files` are equal to the byte. Of the packages that `unread` counts this store
    does not know the files: the image's own word was taken. `other` are files of compiled packages with other bytes.
    """

    by: Literal["digest", "content"]
    findings: tuple[Finding, ...] = ()
    packages: int = 0
    files: int = 0
    unread: int = 0
    other: int = 0


def known_layers(facts: BaseFacts) -> Known:
    """The layers of the base, which need not be read where an image has them."""
    return Known(layers=tuple((layer.digest, layer.diff_id) for layer in facts.layers))


def is_exactly(plan: Plan, store: Store, digest: str | None) -> bool:
    """Whether `digest` is that of the image which this store has made of `plan`."""
    record = store.record("images", plan.key)
    return digest is not None and isinstance(record, dict) and record.get("digest") == digest


def verify(plan: Plan, facts: BaseFacts, contents: Contents, store: Store, *, recompiled: bool = False) -> Verdict:
    """Hold `contents` against the lock of `plan`. With `recompiled`, files that a task made may have other bytes."""
    return _Comparison(plan, facts, contents, expected(plan, facts, store), recompiled).verdict()


class _Comparison:
    def __init__(self, plan: Plan, facts: BaseFacts, contents: Contents, wanted: Expected, recompiled: bool) -> None:
        self._plan = plan
        self._facts = facts
        self._contents = contents
        self._wanted = wanted
        self._recompiled = recompiled
        self._findings: list[Finding] = []
        self._owned: set[str] = set()  # by packages that were told of already, or of which only the image tells
        self._told: set[str] = set()  # keys of segments of which no file need be told
        self._packages = self._files = self._other = 0

    def verdict(self) -> Verdict:
        self._base()
        for target in self._plan.lock.targets:
            if target.scope == "image":
                self._target(target)
        self._expected_files()
        self._found_files()
        self._config()
        rank = {"base": 0, "config": 1, "variable": 2, "label": 3, "package": 4, "directory": 5, "file": 6}
        packages = [s for s in self._plan.segments.values() if s.kind not in ("file",) and s.name != "environment"]
        return Verdict(
            by="content",
            findings=tuple(sorted(set(self._findings), key=lambda f: (rank[f.subject], f.name, f.what, f.why))),
            packages=self._packages,
            files=self._files,
            unread=sum(1 for s in packages if s.key not in self._wanted.known),
            other=self._other,
        )

    def _add(self, what: What, subject: str, name: str, why: str = "") -> None:
        self._findings.append(Finding(what=what, subject=subject, name=name, why=why))  # type: ignore[arg-type]

    def _base(self) -> None:
        if not self._contents.base:
            self._add("changed", "base", self._facts.digest, "the image stands on other layers than those of the lock's base")
            return
        facts = self._facts
        for path, own in self._contents.hidden:
            folder = path.endswith("/")
            at = path.rstrip("/") or "/"
            there = at in facts.directories or at in facts.links or at in facts.files
            if there or not (own or folder or is_listed(at)):
                self._add("missing", "directory" if folder else "file", at, "of the base, deleted by a layer above it")

    # -- packages ------------------------------------------------------------------------------------------------------------

    def _target(self, target: Target) -> None:
        segments = {s.name: s for s in self._plan.segments.values() if s.group == target.id}
        if target.kind == "conda":
            found = list(installed.conda(self._contents, self._resolved(target.place)))
            self._packages_of(target, {p.name: p for p in target.pins}, found, segments, extra=True)
        elif target.kind == "r":
            library = self._resolved(target.place)
            conda = {
                provided.partition(" ")[0]
                for t in self._plan.lock.targets
                if t.kind == "conda"
                for p in t.pins
                for provided in p.provides
            }
            found = [
                one
                for one in installed.r(self._contents, library)
                if f"{library}/{one.name}/DESCRIPTION" not in self._owned and f"r:{one.name.lower()}" not in conda
            ]
            self._packages_of(target, {p.name: p for p in target.pins}, found, segments, extra=True)
        elif target.kind == "python" and self._facts.python is not None:
            pins = {p.name: p for p in target.pins if p.data.get("role") != "build"}
            found = list(installed.python(self._contents, self._resolved(self._facts.python.site_packages)))
            self._packages_of(target, pins, found, segments, extra=self._contents.base)

    def _resolved(self, path: str) -> str:
        return self._facts.resolve(path + "/-")[:-2]

    def _packages_of(
        self,
        target: Target,
        pins: Mapping[str, Pin],
        found: list[Installed],
        segments: Mapping[str, Segment],
        *,
        extra: bool,
    ) -> None:
        by_name = {name.lower(): pin for name, pin in pins.items()}
        seen: set[str] = set()
        place = f"in {target.id}"
        for one in found:
            pin = by_name.get(one.name.lower())
            segment = segments.get(pin.name) if pin else None
            if pin is None:
                if extra:
                    self._add("extra", "package", f"{one.name} {one.version}".strip(), f"{place}: the lock does not pin it")
                self._owned |= one.files.keys()
                continue
            if pin.name in seen:
                self._add("extra", "package", f"{one.name} {one.version}".strip(), f"{place}: installed twice")
            seen.add(pin.name)
            difference = _difference(pin, one, target.kind)
            if difference:
                self._add("version", "package", pin.name, f"{place}: {difference}")
                self._owned |= one.files.keys()
                self._told |= {segment.key} if segment else set()
            else:
                self._packages += 1
                if segment is None or segment.key not in self._wanted.known:
                    self._by_its_word(one)
                elif self._recompiled and segment.task_key is not None:
                    self._compiled(segment, one)
            if target.kind == "conda":
                self._owned |= {path for path in one.files if path.endswith("/DESCRIPTION")}
        for name, pin in sorted(pins.items()):
            if name not in seen:
                self._add("missing", "package", f"{name} {pin.version}".strip(), place)
                segment = segments.get(name)
                self._told |= {segment.key} if segment else set()

    def _by_its_word(self, one: Installed) -> None:
        """The files of a package that this store does not know, as the image's own records tell of them."""
        self._owned |= one.files.keys()
        for path, digest in one.files.items():
            node = self._contents.tree.at(path)
            held = self._contents.file(path)
            if node is None:
                self._add("missing", "file", path, f"of {one.name}")
            elif digest is not None and held is not None and held.sha256 != digest:
                self._add("changed", "file", path, f"of {one.name}: other bytes than its own record says")

    def _compiled(self, segment: Segment, one: Installed) -> None:
        self._told.add(segment.key)
        self._owned |= one.files.keys()
        for path in self._wanted.paths_of(segment.key):
            row, held = self._wanted.rows[path], self._contents.file(path)
            self._other += 1 if held is not None and row.type == "file" and held.sha256 != row.what else 0

    # -- files ---------------------------------------------------------------------------------------------------------------

    def _expected_files(self) -> None:
        for path, row in self._wanted.rows.items():
            segment = self._wanted.owners[path]
            if segment.key in self._told:
                continue
            why = self._file(path, row)
            if why is None:
                self._files += 1
            elif why == "":
                self._add("missing", "file", path, f"of {segment.name}")
            else:
                self._add("changed", "file", path, f"of {segment.name}: {why}" if segment.name != path else why)

    def _file(self, path: str, row: Row) -> str | None:
        """None when what lies at `path` is the row, empty when nothing lies there, else how it differs."""
        node = self._contents.tree.at(path)
        if node is None:
            return ""
        if isinstance(node, Directory):
            return f"a directory instead of a {row.type}"
        if isinstance(node, Link):
            if row.type != "symlink":
                return f"a link to `{node.text}` instead of a file"
            return None if node.text == row.what else f"links to `{node.text}`, not to `{row.what}`"
        held = self._contents.of(node)
        if row.type == "symlink":
            return f"a file instead of a link to `{row.what}`"
        return _unlike(held, row)

    def _found_files(self) -> None:
        if not self._contents.base:
            return  # the base's own files are among them
        facts = self._facts
        alone = [
            place for s in self._plan.segments.values() if s.key not in self._wanted.known and (place := places(s)) is not None
        ]
        listed = dict.fromkeys((*self._wanted.rows, *self._owned))
        directories = self._wanted.directories({**listed, **{f"{place}/-": None for place in alone}})
        for path, node in self._contents.walk():
            if any(path == place or path.startswith(place + "/") for place in alone):
                continue
            if isinstance(node, Directory):
                should = facts.directories.get(path) or directories.get(path)
                if should is None:
                    if not node.children:
                        self._add("extra", "directory", path)
                elif node.is_listed and (node.fact.mode, node.fact.uid, node.fact.gid) != (should.mode, should.uid, should.gid):
                    is_now = f"{node.fact.mode:04o} {node.fact.uid}:{node.fact.gid}"
                    self._add("changed", "directory", path, f"{is_now}, not {should.mode:04o} {should.uid}:{should.gid}")
            elif path in facts.directories or path in facts.links or path in facts.files:
                self._add("changed", "file", path, "of the base, replaced by a layer above it")
            elif path not in listed:
                self._add("extra", "file", path, "no part of the lock puts it there")

    # -- config --------------------------------------------------------------------------------------------------------------

    def _config(self) -> None:
        should = json.loads(compose(self._facts, (), env=self._plan.env, labels=self._plan.labels).config).get("config") or {}
        found = self._contents.config.get("config")
        found = found if isinstance(found, dict) else {}
        for subject, name in (("variable", "Env"), ("label", "Labels")):
            wanted, has = _pairs(should.get(name)), _pairs(found.get(name))
            for key in sorted(wanted.keys() | has.keys()):
                if key not in has:
                    self._add("missing", subject, key, f"it must be `{wanted[key]}`")
                elif key not in wanted:
                    if subject == "variable":  # builders add labels of their own, and nothing acts on them
                        self._add("extra", subject, key, f"it is `{has[key]}`")
                elif wanted[key] != has[key]:
                    self._add("changed", subject, key, f"it is `{has[key]}`, and must be `{wanted[key]}`")
        for part in ("Entrypoint", "Cmd", "User", "WorkingDir", "ExposedPorts", "Volumes", "StopSignal", "Shell"):
            if (found.get(part) or None) != (should.get(part) or None):
                self._add("changed", "config", part, f"it is {_shown(found.get(part))}, and must be {_shown(should.get(part))}")


def _difference(pin: Pin, one: Installed, kind: str) -> str | None:
    if one.version != pin.version:
        return f"has {one.version or 'no version'}, and the lock pins {pin.version}"
    if kind == "conda":
        build = str(pin.data.get("build", ""))
        if one.build != build:
            return f"has build {one.build or 'none'}, and the lock pins {build}"
        if one.sha256 and one.sha256 != pin.artifact.sha256:
            return f"was made from sha256:{one.sha256[:80]}, and the lock pins sha256:{pin.artifact.sha256}"
    return None


def _unlike(held: Held, row: Row) -> str | None:
    if held.type != "file":
        return "no file that can be read"
    if held.sha256 != row.what:
        return f"has sha256:{held.sha256}, and must have sha256:{row.what}"
    if held.mode != row.mode:
        return f"has mode {held.mode:04o}, and must have {row.mode:04o}"
    if (held.uid, held.gid) != (row.uid, row.gid):
        return f"belongs to {held.uid}:{held.gid}, and must belong to {row.uid}:{row.gid}"
    return None


def _pairs(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    if isinstance(value, list):
        return dict(_split(item) for item in value if isinstance(item, str))
    return {}


def _split(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _shown(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)[:200]
