"""The roots of `cache gc`, and what they reach.

Roots are the locks that the store was used with, as they are now and as they were last built, the locks of running builds, and
locks that the user names. The lock and its base facts decide the content that a root reaches. If one of them cannot be read,
the needs of the root are unknown, and nothing may be removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import is_sha256, sha256
from cregraph.engines import trees
from cregraph.errors import CregraphError
from cregraph.image.model import layer as layers_of
from cregraph.image.model.manifest import read_manifest
from cregraph.kinds import KINDS
from cregraph.lock import base_facts_json as facts_json
from cregraph.lock import lock_file as locks
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import BASE, BUILD_ROOT, Pin
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.planner import Plan, make_plan
from cregraph.store import Store
from cregraph.store.gc.collect import Reached
from cregraph.store.known import Known, known, record_of
from cregraph.store.listing import records
from cregraph.store.task_records import log_file, recorded_result
from cregraph.store.users import User

__all__ = ["Root", "Roots", "lock_path", "reach", "roots"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """A lock that keeps what it reaches. `name` names it in messages; `text` is the sha256 of its text."""

    name: str
    text: str
    plan: Plan
    facts: BaseFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class Roots:
    """The roots of a store, and what could not be read.

    Attributes:
        gone: Recorded lock files that do not exist any more.
        unreadable: Messages that name what could not be read, and why.
        keep: The lock files whose records stay.
    """

    roots: tuple[Root, ...] = ()
    gone: tuple[Path, ...] = ()
    unreadable: tuple[str, ...] = ()
    keep: tuple[Known, ...] = ()


def roots(store: Store, users: Iterable[User] = (), named: Iterable[Path] = (), *, keep_built: bool = False) -> Roots:
    """Return the roots of `store`. With `keep_built`, the last build of a deleted lock file stays a root.

    Raises nothing: `unreadable` lists what could not be read.
    """
    reader = _Reader(store)
    gone: list[Path] = []
    keep: list[Known] = []
    found = known(store)
    reader.unreadable += _foreign_projects(store, found)
    for one in found:
        is_gone = reader.file(one.lock, must=False)
        if is_gone:
            gone.append(one.lock)
        if one.built is not None and (keep_built or not is_gone):
            reader.object(one.built.text, f"the last build of `{one.lock}`", one.lock)
        if not is_gone or (keep_built and one.built is not None):
            keep.append(one)
    for path in named:
        reader.file(path.absolute(), must=True)
    for user in users:
        for text in user.locks or ():
            reader.object(text, f"the lock of `cregraph {user.command}` (process {user.pid})", None)
    return Roots(roots=tuple(reader.found.values()), gone=tuple(gone), unreadable=tuple(reader.unreadable), keep=tuple(keep))


def _foreign_projects(store: Store, found: Iterable[Known]) -> list[str]:
    keys = {record_of(one.lock) for one in found}
    return [
        f"`{entry.path}` does not name a lock file: run `cregraph cache verify` to remove it"
        for entry in records(store, "projects")
        if (entry.section, entry.name) not in keys
    ]


def lock_path(path: Path) -> Path:
    """Return the lock file that a user names, directly or by its profile."""
    if path.name.endswith(".lock.json"):
        return path
    return path.parent / "locks" / f"{path.stem}.lock.json"


def reach(found: Roots, store: Store) -> Reached:
    """Return what the roots reach of the content of `store`."""
    whole = Reached(records=frozenset(record_of(one.lock) for one in found.keep))
    for root in found.roots:
        whole |= _reach(root, store)
    return whole


def _reach(root: Root, store: Store) -> Reached:
    plan, lock = root.plan, root.plan.lock
    objects = {root.text, *(pin.artifact.sha256 for target in lock.targets for pin in target.pins)}
    objects |= {layer.digest.removeprefix("sha256:") for layer in root.facts.layers}
    objects.update(*(_image(pin, store) for target in lock.targets if target.place in (BASE, BUILD_ROOT) for pin in target.pins))
    keyed = {("segments", key) for key in (*plan.segments, *plan.hidden)}
    keyed |= {("layers", key) for key in (*(layer.key for layer in _layers(plan, store)), *_of_image(plan, store))}
    keyed |= {("settled", layers_of.settled_key(plan.layers)), ("images", plan.key)}
    folders: set[tuple[str, str]] = set()
    logs = set()
    for task in plan.tasks:
        keyed.add(("tasks", task.key))
        folders |= set(trees.names(task, lambda key: (recorded_result(store, key) or (None,))[0]))
        logs.add(log_file(store, task).name)
    return Reached(objects=frozenset(objects), records=frozenset(keyed), trees=frozenset(folders), logs=frozenset(logs))


def _layers(plan: Plan, store: Store) -> Iterator[LayerPlan]:
    """Yield the layers as planned, and as settled by an earlier build."""
    yield from plan.layers
    if store.record("settled", layers_of.settled_key(plan.layers)) is not None:
        try:
            yield from layers_of.settle(plan.layers, {}, plan.planner, store)
        except (CregraphError, KeyError):
            return  # an invalid record, which the next build replaces


def _of_image(plan: Plan, store: Store) -> Iterator[str]:
    """Yield the keys of the layers of the last build."""
    listed = store.fields("images", plan.key).get("layers")
    yield from (str(one[1]) for one in (listed if isinstance(listed, list) else ()) if isinstance(one, list) and len(one) == 2)


def _image(pin: Pin, store: Store) -> set[str]:
    """Return the objects of an image: its manifest, config, layers and facts."""
    found = {pin.artifact.sha256}
    facts = pin.data.get("facts")
    if isinstance(facts, str) and is_sha256(facts):
        found.add(facts)
    try:
        manifest = read_manifest(store.path_of(pin.artifact.sha256).read_bytes(), what=pin.name)
    except (OSError, CregraphError):
        return found  # absent or damaged: the next use downloads it
    return found | {manifest.config.hex, *(layer.hex for layer in manifest.layers)}


class _Reader:
    """A reader of locks, which reads equal texts once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.found: dict[str, Root] = {}
        self.unreadable: list[str] = []

    def file(self, path: Path, *, must: bool) -> bool:
        """Read the lock file at `path`. Return whether it is absent, which is an error only if it `must` exist."""
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if must:
                self.unreadable.append(f"`{path}` does not exist")
            return True
        except OSError as error:
            self.unreadable.append(f"`{path}` cannot be read: {error.strerror or error}")
            return False
        self._take(data, f"`{path}`", path)
        return False

    def object(self, text: str, name: str, path: Path | None) -> None:
        """Read a lock whose text is an object of the store. `path` is the lock file that had this text."""
        if text in self.found:
            return
        try:
            data = self._store.verified(text, name).read_bytes()
        except (OSError, CregraphError) as error:
            self.unreadable.append(f"{name} cannot be read: {error.message if isinstance(error, CregraphError) else error}")
            return
        self._take(data, name, path)

    def _take(self, data: bytes, name: str, path: Path | None) -> None:
        text = sha256(data)
        if text in self.found:
            return
        try:
            lock = locks.loads(data.decode("utf-8"), name=name.strip("`"), kinds=KINDS)
            facts = self._facts(lock.base, path)
            self.found[text] = Root(name=name, text=text, plan=make_plan(lock, facts), facts=facts)
        except UnicodeDecodeError:
            self.unreadable.append(f"{name} is not UTF-8")
        except CregraphError as error:
            self.unreadable.append(error.message if name.strip("`") in error.message else f"{name}: {error.message}")

    def _facts(self, pin: Pin, path: Path | None) -> BaseFacts:
        """Return the base facts that a lock pins: from bases/ next to locks/, else from the store."""
        wanted = pin.data.get("facts")
        places: Sequence[Path] = [path.parent.parent / "bases" / f"{pin.artifact.sha256}.json"] if path else []
        if isinstance(wanted, str) and is_sha256(wanted):
            places = [*places, self._store.path_of(wanted)]
        for place in places:
            try:
                data = place.read_bytes()
            except OSError:
                continue
            if wanted is None or sha256(data) == wanted:
                return facts_json.loads(data.decode("utf-8", "replace"), name=place.as_posix())
        where = f"`{places[0]}`" if path else "the store"
        raise CregraphError(f"the facts of its base are missing ({where})")
