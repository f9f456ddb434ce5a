"""A project on disk: the places of its files, and reading and writing them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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
from cregraph.profile.compose import Composition, compose
from cregraph.profile.recipe import Found
from cregraph.profile.switches import STANDARD
from cregraph.session import recipe_sets
from cregraph.session.recipe_sets import RecipeSet
from cregraph.sources.project_files import Local
from cregraph.sources.routes import Registry, Routes, read_routes
from cregraph.store import Store
from cregraph.store.atomic_file import write_file

__all__ = ["Asked", "Project", "read_text"]

_TEXT_LIMIT = 1 << 20
_FILE_LIMIT = 64 << 20  # as lock/ allows


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The requests of a profile and its recipes, in the form of a lock."""

    composition: Composition
    identity: Identity
    stages: tuple[StageRecord, ...]
    targets: tuple[Target, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """The project of one profile. locks/, bases/, recipes/ and sources.yaml lie in the folder of the profile's file."""

    profile: Path

    @classmethod
    def of(cls, profile: str | None) -> Project:
        """Return the project of the profile that a user named, else of `cregraph.yaml`. Raise CregraphError if it is missing."""
        path = Path(profile or "cregraph.yaml")
        if path.is_dir():
            path = path / "cregraph.yaml"
        if not path.is_file():
            others = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
            meant = nearest(path.name, others)
            raise CregraphError(
                f"{path}: the profile does not exist",
                hint=f"write `{path.parent / meant}` instead" if meant else "name a profile: cregraph COMMAND my_team.yaml",
            )
        return cls(profile=path)

    @property
    def folder(self) -> Path:
        return self.profile.parent

    @property
    def name(self) -> str:
        """The name of the profile's file, without its ending."""
        return self.profile.stem

    @property
    def lock_file(self) -> Path:
        return self.folder / "locks" / f"{self.name}.lock.json"

    @property
    def shown_lock(self) -> str:
        """The lock's path as messages show it."""
        return self.lock_file.as_posix()

    def recipes(self, *, vendored: Callable[[], Path | None] = lambda: None) -> RecipeSet:
        """Return the set of standard recipes that the profile uses. Raise CregraphError if the pinned set is missing or changed.

        `vendored` returns the folder of vendored sets.
        """
        return recipe_sets.used_by(self.profile, self.lock_file, read=self._read_profile, vendored=vendored)

    def local(self, recipes: RecipeSet | None = None) -> Local:
        """Return access to the project's own files, and to those that recipes ship."""
        return Local(project=self.folder, shipped=(recipes or self.recipes()).folder)

    def asked(self, recipes: RecipeSet | None = None) -> Asked:
        """Return what the profile asks now. Raise CregraphError with a line for each mistake in it."""
        recipes, read, team = recipes or self.recipes(), self._read_profile, self.folder / "recipes"

        def find(name: str) -> Found | None:
            if not name.replace("-", "").replace("_", "").isalnum():
                return None
            own = f"recipes/{name}.yaml"
            if (self.folder / own).is_file() and not team.samefile(recipe_sets.installed().folder):
                return Found(text=read(own), file=own, folder="recipes")
            shipped = recipes.folder / f"{name}.yaml"
            if shipped.is_file():
                return Found(text=shipped.read_text(encoding="utf-8"), file=f"standard:{name}.yaml", folder="standard:")
            return None

        own = {p.stem for folder in (team, recipes.folder) for p in folder.glob("*.yaml")}
        composition = compose(self.profile.name, read=read, find=find, kinds=KINDS, names={*STANDARD, *own})
        profile = composition.profile
        asks = [ask for stage in composition.stages for step in stage.steps for ask in KINDS[step.kind].ask(step)]
        return Asked(
            composition=composition,
            identity=Identity(
                name=profile.cre_name, image=profile.image, label=profile.label, tag=profile.tag, base_type=profile.base_type
            ),
            stages=tuple(
                StageRecord(name=stage.name, needs=stage.needs, env=dict(stage.env), checks=stage.checks)
                for stage in composition.stages
            ),
            targets=group(asks, KINDS),
        )

    def _read_profile(self, path: str) -> str:
        return read_text(self.folder / path, limit=_TEXT_LIMIT)

    def read_lock(self) -> Lock | None:
        if not self.lock_file.exists():
            return None
        hint = "restore it (`git checkout -- FILE`), or remove it and run `cregraph lock`, which chooses every pin again"
        text = read_text(self.lock_file, limit=_FILE_LIMIT, hint=hint)
        return locks.loads(text, name=self.shown_lock, kinds=KINDS)

    def write_lock(self, lock: Lock) -> bool:
        """Replace the lock file in one step. Return False if it held those bytes already. Reads back what it writes."""
        text = locks.dumps(lock)
        if locks.dumps(locks.loads(text, name=self.shown_lock, kinds=KINDS)) != text:
            raise AssertionError("a lock that was written does not read back as itself")
        return _write_text(self.lock_file, text)

    @property
    def outputs_file(self) -> Path:
        return self.folder / "locks" / f"{self.name}.outputs.json"

    def read_outputs(self) -> Outputs:
        """Return the recorded results of the lock's tasks; none if there is no file yet."""
        if not self.outputs_file.exists():
            return Outputs()
        hint = "restore it (`git checkout -- FILE`). Or remove it and run `cregraph build`, which records the results again"
        text = read_text(self.outputs_file, limit=_FILE_LIMIT, hint=hint)
        return outputs_of.loads(text, name=self.outputs_file.as_posix())

    def write_outputs(self, outputs: Outputs) -> bool:
        """Replace the outputs file in one step. Return False if nothing changed; without any result there is no file."""
        if not outputs.tasks and not self.outputs_file.exists():
            return False
        return _write_text(self.outputs_file, outputs_of.dumps(outputs))

    def store(self) -> Store:
        """Return the store: $CREGRAPH_CACHE, else the project's cache/ if it exists, else the user's cache folder."""
        named = os.environ.get("CREGRAPH_CACHE")
        if named:
            return Store(Path(named).absolute())
        own = self.folder / "cache"
        if own.is_dir() or own.is_symlink():  # also a link to a disk that is not mounted now
            return Store(own.absolute())
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Store(Path(home).absolute() / "cregraph")

    def routes(self, sources: str | None = None, *, registry_url: str | None = None) -> Routes:
        """Return the routes of `--sources FILE`, $CREGRAPH_SOURCES, the project's sources.yaml or the user's."""
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cregraph" / "sources.yaml"
        named = sources or os.environ.get("CREGRAPH_SOURCES")
        found = Path(named) if named else next((p for p in (self.folder / "sources.yaml", config) if p.is_file()), None)
        routes = Routes()
        if found is not None:
            routes = read_routes(read_text(found, limit=_TEXT_LIMIT), name=found.as_posix(), folder=found.parent)
        if registry_url and "snowflake" not in routes.registry:
            registry: Mapping[str, Registry] = {**routes.registry, "snowflake": Registry(host=registry_url)}
            routes = replace(routes, registry=registry)
        return routes

    def facts(self, pin: Pin) -> BaseFacts:
        """Return the facts of a pinned image, from bases/. Raise CregraphError if they are missing or not those of the lock."""
        from cregraph.lock import base_facts_json as facts_json

        reason = self.facts_missing(pin)
        if reason is not None:
            raise CregraphError(
                reason,
                hint="restore them (`git checkout -- bases`), or run "
                f"`cregraph lock {self.profile}` on a machine that can reach the image",
            )
        path = self._facts_file(pin)
        return facts_json.loads(path.read_text(encoding="utf-8"), name=path.as_posix())

    def facts_missing(self, pin: Pin) -> str | None:
        """Return why the facts of a pinned image cannot be used, or None. bases/ must hold the bytes that the lock names."""
        path = self._facts_file(pin)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return f"`{path.as_posix()}`, the facts of the pinned {pin.name}, does not exist"
        except OSError as error:
            return f"`{path.as_posix()}` cannot be read: {error.strerror or error}"
        pinned = pin.data.get("facts")
        if pinned is None:
            return f"the lock does not name the facts of {pin.name}"
        if sha256(data) != pinned:
            return f"`{path.as_posix()}` has sha256:{sha256(data)}, but the lock pins sha256:{pinned}"
        return None

    def _facts_file(self, pin: Pin) -> Path:
        return self.folder / "bases" / f"{pin.artifact.sha256}.json"


def read_text(file: Path, *, limit: int, hint: str | None = None) -> str:
    """Return the text of a file of at most `limit` bytes. Raise CregraphError, with `hint`, if it cannot be read."""
    try:
        if file.stat().st_size > limit:
            raise CregraphError(f"`{file.as_posix()}` is larger than {limit >> 20} MiB", hint)
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = f"it is not UTF-8 (byte {error.start})" if isinstance(error, UnicodeDecodeError) else error.strerror or error
        raise CregraphError(f"`{file.as_posix()}` cannot be read: {why}", hint) from None


def _write_text(file: Path, text: str) -> bool:
    """Replace a file in one step. Return False if it had this text already."""
    try:
        if file.read_text(encoding="utf-8") == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass
    try:
        write_file(file, text.encode())
    except OSError as error:
        raise CregraphError(f"`{file.as_posix()}` cannot be written: {error.strerror or error}") from None
    return True
