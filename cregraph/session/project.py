"""A project on disk: where profile, recipes, lock, base facts, sources and store lie, and reading and writing them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cregraph.digest import sha256
from cregraph.errors import CregraphError, nearest
from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.lock import outputs as outputs_of
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Identity, Lock, StageRecord
from cregraph.lock.outputs import Outputs
from cregraph.lock.pins import Pin, Target
from cregraph.lock.staleness import group
from cregraph.profile.compose import Check, Composition, compose
from cregraph.profile.recipe import Found
from cregraph.profile.switches import STANDARD
from cregraph.sources.project_files import Local
from cregraph.sources.routes import Registry, Routes, read_routes
from cregraph.store import Store
from cregraph.store.atomic_file import write_file

__all__ = ["Asked", "Project", "asked", "shipped_recipes"]

_TEXT_LIMIT = 1 << 20


def shipped_recipes() -> Path:
    """The folder of the standard recipes: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "standard"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a profile and its recipes ask, in the form of a lock."""

    composition: Composition
    identity: Identity
    stages: tuple[StageRecord, ...]
    targets: tuple[Target, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """The project of the profile file `profile`. Its folder is where locks, bases, recipes and sources.yaml are looked for."""

    profile: Path

    @classmethod
    def of(cls, profile: str | None) -> Project:
        """The project of the profile that a user named, else of `cregraph.yaml`. Raises CregraphError when there is none."""
        path = Path(profile or "cregraph.yaml")
        if path.is_dir():
            path = path / "cregraph.yaml"
        if not path.is_file():
            others = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
            meant = nearest(path.name, others)
            raise CregraphError(
                f"there is no profile `{path}`",
                hint=f"did you mean `{path.parent / meant}`?" if meant else "name a profile: cregraph COMMAND my_team.yaml",
            )
        return cls(profile=path)

    @property
    def folder(self) -> Path:
        """The project's folder."""
        return self.profile.parent

    @property
    def name(self) -> str:
        """The profile's name: its file's, without the ending."""
        return self.profile.stem

    @property
    def lock_file(self) -> Path:
        """Where the lock is."""
        return self.folder / "locks" / f"{self.name}.lock.json"

    @property
    def shown_lock(self) -> str:
        """The lock's path as messages show it."""
        return self.lock_file.as_posix()

    def local(self) -> Local:
        """The project's own files, and those that recipes ship."""
        return Local(project=self.folder, shipped=shipped_recipes())

    def asked(self) -> Asked:
        """What the profile asks now. Raises CregraphError with a line for each thing that is wrong."""
        return asked(self)

    def read_lock(self) -> Lock | None:
        """The lock, or None when there is none yet."""
        try:
            text = self.lock_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise CregraphError(
                f"`{self.shown_lock}` cannot be read: {_reason(error)}",
                hint="bring it back (`git checkout -- FILE`), or remove it and run `cregraph lock`, which pins all anew",
            ) from None
        return locks.loads(text, name=self.shown_lock, kinds=KINDS)

    def write_lock(self, lock: Lock) -> bool:
        """Write the lock in one step; False when it was already those bytes. What is written is read back and compared."""
        text = locks.dumps(lock)
        if locks.dumps(locks.loads(text, name=self.shown_lock, kinds=KINDS)) != text:
            raise AssertionError("a lock that was written does not read back as itself")
        try:
            if self.lock_file.read_text(encoding="utf-8") == text:
                return False
        except (OSError, UnicodeDecodeError):
            pass
        try:
            write_file(self.lock_file, text.encode())
        except OSError as error:
            raise CregraphError(f"`{self.shown_lock}` cannot be written: {error.strerror or error}") from None
        return True

    @property
    def outputs_file(self) -> Path:
        """Where it is recorded what the lock's tasks gave."""
        return self.folder / "locks" / f"{self.name}.outputs.json"

    def read_outputs(self) -> Outputs:
        """What the lock's tasks gave before, on any machine; none recorded yet is no error."""
        shown = self.outputs_file.as_posix()
        try:
            text = self.outputs_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Outputs()
        except (OSError, UnicodeDecodeError) as error:
            raise CregraphError(
                f"`{shown}` cannot be read: {_reason(error)}",
                hint="bring it back (`git checkout -- FILE`), or remove it: `cregraph build` records anew what tasks give",
            ) from None
        return outputs_of.loads(text, name=shown)

    def write_outputs(self, outputs: Outputs) -> bool:
        """Write the outputs in one step; False when nothing changed, and where no task ever ran."""
        text = outputs_of.dumps(outputs)
        try:
            if self.outputs_file.read_text(encoding="utf-8") == text:
                return False
        except FileNotFoundError:
            if not outputs.tasks:
                return False
        except (OSError, UnicodeDecodeError):
            pass
        try:
            write_file(self.outputs_file, text.encode())
        except OSError as error:
            raise CregraphError(f"`{self.outputs_file.as_posix()}` cannot be written: {error.strerror or error}") from None
        return True

    def store(self) -> Store:
        """The store: $CREGRAPH_CACHE, else the project's cache/ where there is one, else the user's cache folder."""
        named = os.environ.get("CREGRAPH_CACHE")
        if named:
            return Store(Path(named).absolute())
        own = self.folder / "cache"
        if own.is_dir() or own.is_symlink():  # a link that leads nowhere now (a disk that is away) is still what was meant
            return Store(own.absolute())
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Store(Path(home).absolute() / "cregraph")

    def routes(self, sources: str | None = None, *, registry_url: str | None = None) -> Routes:
        """Where sources lead: `--sources FILE`, $CREGRAPH_SOURCES, the project's sources.yaml, or the user's."""
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cregraph" / "sources.yaml"
        named = sources or os.environ.get("CREGRAPH_SOURCES")
        found = Path(named) if named else next((p for p in (self.folder / "sources.yaml", config) if p.is_file()), None)
        routes = Routes()
        if found is not None:
            try:
                text = found.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CregraphError(f"`{found}` cannot be read: {_reason(error)}") from None
            if len(text) > _TEXT_LIMIT:
                raise CregraphError(f"`{found}` is larger than {_TEXT_LIMIT >> 20} MiB")
            routes = read_routes(text, name=found.as_posix(), folder=found.parent)
        if registry_url and "snowflake" not in routes.registry:
            registry: Mapping[str, Registry] = {**routes.registry, "snowflake": Registry(host=registry_url)}
            routes = replace(routes, registry=registry)
        return routes

    def facts(self, pin: Pin) -> BaseFacts:
        """The facts of a pinned image, from bases/. Raises CregraphError when they are not there, or not those of the lock."""
        from cregraph.lock import base_facts_json as facts_json

        reason = self.facts_missing(pin)
        if reason is not None:
            raise CregraphError(
                reason,
                hint="they are committed with the lock: bring them back (`git checkout -- bases`), or run "
                f"`cregraph lock {self.profile}` where the image can be reached",
            )
        path = self._facts_file(pin)
        return facts_json.loads(path.read_text(encoding="utf-8"), name=path.as_posix())

    def facts_missing(self, pin: Pin) -> str | None:
        """Why the facts of a pinned image cannot be used, or None: bases/ must hold the very bytes that the lock names."""
        path = self._facts_file(pin)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return f"`{path.as_posix()}`, the facts of the pinned {pin.name}, is not there"
        except OSError as error:
            return f"`{path.as_posix()}` cannot be read: {_reason(error)}"
        pinned = pin.data.get("facts")
        if pinned is None:
            return f"the lock does not say which facts of {pin.name} it was made with"
        if sha256(data) != pinned:
            return f"`{path.as_posix()}` has sha256:{sha256(data)}, but the lock pins sha256:{pinned}"
        return None

    def _facts_file(self, pin: Pin) -> Path:
        return self.folder / "bases" / f"{pin.artifact.sha256}.json"


def asked(project: Project) -> Asked:
    """What the profile of `project` asks."""

    def read(path: str) -> str:
        file = project.folder / path
        try:
            data = file.read_bytes()
        except OSError as error:
            raise CregraphError(f"`{file.as_posix()}` cannot be read: {error.strerror or error}") from None
        if len(data) > _TEXT_LIMIT:
            raise CregraphError(f"`{file.as_posix()}` is larger than {_TEXT_LIMIT >> 20} MiB; this is no profile")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CregraphError(f"`{file.as_posix()}` is not UTF-8 (byte {error.start})") from None

    def find(name: str) -> Found | None:
        if not name.replace("-", "").replace("_", "").isalnum():
            return None
        own = f"recipes/{name}.yaml"
        if (project.folder / own).is_file() and not _is_shipped(project.folder / "recipes"):
            return Found(text=read(own), file=own, folder="recipes")
        shipped = shipped_recipes() / f"{name}.yaml"
        if shipped.is_file():
            return Found(text=shipped.read_text(encoding="utf-8"), file=f"standard:{name}.yaml", folder="standard:")
        return None

    own = {p.stem for p in (project.folder / "recipes").glob("*.yaml")}
    composition = compose(project.profile.name, read=read, find=find, kinds=KINDS, names={*STANDARD, *own})
    profile = composition.profile
    stages = tuple(
        StageRecord(
            name=stage.name, needs=stage.needs, env=dict(stage.env), checks=tuple(_check(check) for check in stage.checks)
        )
        for stage in composition.stages
    )
    asks = [ask for stage in composition.stages for step in stage.steps for ask in KINDS[step.kind].ask(step)]
    return Asked(
        composition=composition,
        identity=Identity(
            name=profile.cre_name, image=profile.image, label=profile.label, tag=profile.tag, base_type=profile.base_type
        ),
        stages=stages,
        targets=group(asks, KINDS),
    )


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {error.start})"
    return error.strerror or str(error)


def _is_shipped(folder: Path) -> bool:
    return folder.resolve() == shipped_recipes().resolve()


def _check(check: Check) -> dict[str, object]:
    return {"kind": check.kind, "code": list(check.code)}
