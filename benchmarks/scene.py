"""The project that is measured, and bringing it back to a known state between runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Ran, measure
from cregraph.store.atomic_file import remove_tree
from tests.environment import Environment
from tests.real_project import RealProject

__all__ = ["Scene"]

#: The parts of a store that hold what was made or fetched, as <section>/<two digits>/<name>.
_SECTIONS = (
    "sha256",
    "segments",
    "layers",
    "tasks",
    "settled",
    "images",
    "history",
    "roots",
    "environments",
    "segment-trees",
    "result-trees",
)
#: What assembly leaves: without it and its objects everything is packed again, and nothing is compiled.
_ASSEMBLED = ("segments", "layers", "settled", "images")


class Scene:
    """A project on the test environment in `folder`, locked and, from the first `built()`, built; nothing of it is measured."""

    def __init__(self, folder: Path, environment: Environment) -> None:
        self.folder = folder
        self.environment = environment
        self.store = folder / "store"
        self.project = RealProject.make(folder / "project", environment, store=self.store)
        # The team's own copy of the recipes, so that a hook can be changed.
        shutil.copytree(Path(__file__).parent.parent / "recipes", self.project.folder / "recipes")
        self.project.ok("lock", "team.yaml")
        self.digest = ""

    def built(self) -> None:
        """Have the image in the store."""
        if not self.digest:
            self.digest = self.project.ok("build", "team.yaml").out.strip().rpartition("@")[2]

    def run(self, words: Sequence[str], *, store: Path | None = None) -> Ran:
        """Measure `cregraph WORDS`."""
        env = {**os.environ, **self.project.env, "CREGRAPH_CACHE": str(store or self.store)}
        env.pop("CREGRAPH_SOURCES", None)
        return measure([sys.executable, "-m", "cregraph", *words], cwd=self.project.folder, env=env)

    def floor(self, argv: Sequence[str]) -> Ran:
        """Measure another program."""
        return measure(argv, cwd=self.folder, env=os.environ)

    @contextmanager
    def empty_store(self) -> Iterator[Path]:
        """A store with nothing in it."""
        store = self.folder / "empty-store"
        try:
            yield store
        finally:
            remove_tree(store)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Bring profile, recipes, lock and store back afterwards. What the store gained is removed from it."""
        before = self._listed()
        names = ("team.yaml", "sources.yaml", "locks", "bases", "recipes")
        aside = self.folder / "aside"
        aside.mkdir()
        for name in names:
            _copy(self.project.folder / name, aside / name)
        try:
            yield
        finally:
            for name in names:
                remove_tree(self.project.folder / name)
                _copy(aside / name, self.project.folder / name)
            remove_tree(aside)
            for path in self._listed() - before:
                remove_tree(path)

    @contextmanager
    def unassembled(self) -> Iterator[None]:
        """A store with artifacts and results of tasks, without segments and layers; they are put back afterwards."""
        before = self._listed()
        aside = self.folder / "unassembled"
        moved = [path for path in before if path.relative_to(self.store).parts[0] in _ASSEMBLED]
        objects = {text for path in moved for text in _named(path)}
        moved += [path for path in before if path.name in objects]
        for path in moved:
            _move(path, aside / path.relative_to(self.store))
        try:
            yield
        finally:
            for path in self._listed() - before:
                remove_tree(path)
            for path in moved:
                _move(aside / path.relative_to(self.store), path)
            remove_tree(aside)

    def edit(self, change: Mapping[str, Any] | None = None, **extras: Any) -> None:
        """Change the profile."""
        self.project.edit(change, **extras)

    def change_hook(self, line: str = "changed") -> None:
        """Add a line to the team's copy of the hook."""
        hook = self.project.folder / "recipes" / "hook" / "00-sfnb-enable-r.py"
        hook.write_text(hook.read_text(encoding="utf-8") + f"\n# {line}\n", encoding="utf-8")

    def _listed(self) -> set[Path]:
        return {path for section in _SECTIONS for path in (self.store / section).glob("??/*")}


def _named(record: Path) -> set[str]:
    """The objects that a record of a segment or layer names, without the artifacts and results that it was made from."""
    found = json.loads(record.read_bytes())
    if not isinstance(found, dict):
        return set()
    return {str(found[key]).removeprefix("sha256:") for key in ("object", "index", "digest") if key in found}


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
