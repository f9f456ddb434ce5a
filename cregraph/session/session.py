"""Project, options, store and sources of one command, put together once.

A command makes one `Session` for each profile. Every part is made when it is first used, and then kept, so a command reads
each file and plans each lock once. Modules that load slowly are imported by the part that needs them.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from cregraph.errors import Refused
from cregraph.kinds import KINDS
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.consistency import find_problems
from cregraph.lock.lock_file import Lock
from cregraph.lock.outputs import Outputs, updated
from cregraph.lock.staleness import reasons
from cregraph.session import recipe_sets
from cregraph.session.project import Asked, Project
from cregraph.session.recipe_sets import RecipeSet
from cregraph.sources.routes import Routes
from cregraph.store import Store

if TYPE_CHECKING:
    from cregraph.engines.contract import Engine
    from cregraph.image.bases.base_image import BaseImage
    from cregraph.lock.pins import Artifact
    from cregraph.plan.planner import Plan
    from cregraph.resolve import Upgrade
    from cregraph.sources.configured import ConfiguredSources

__all__ = ["BuildOptions", "Session"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """The options of a build and of its sources, as the command line states them.

    Attributes:
        jobs: Most jobs at a time; 0 means one for each processor.
        cache: Remote cache to read, as HOST/PATH or a name of sources.yaml; "" for none.
        cache_write: Remote cache to write to; "" for none.
        sources: Path of the sources file; None for the one of the environment, the project or the user.
        offline: Open no connection.
        fresh: Take no result of a task that the engine itself kept from earlier runs.
    """

    engine: str = "auto"
    builder: str | None = None
    context: str | None = None
    jobs: int = 0
    keep_going: bool = False
    cache: str = ""
    cache_write: str = ""
    sources: str | None = None
    offline: bool = False
    fresh: bool = False

    def check(self) -> None:
        """Raise CregraphError unless engine, builder and context exist and go together."""
        from cregraph.engines import choice

        choice.check(self.engine, builder=self.builder, context=self.context)

    @property
    def workers(self) -> int:
        return self.jobs or os.cpu_count() or 1


class Session:
    """One profile's project as one command uses it.

    Properties raise CregraphError for files that are missing or broken, and `lock` raises Refused for a stale lock.

    Attributes:
        on_bytes: Called with the number of bytes, each time some arrive from a source. May be replaced.
        take_stale: Use the lock as it is, whether it answers the profile or not.
        upgrade_recipes: Use the standard recipes of this cregraph, whichever set the lock names.
    """

    def __init__(self, project: Project, options: BuildOptions | None = None, *, take_stale: bool = False) -> None:
        self.project = project
        self.options = options or BuildOptions()
        self.take_stale = take_stale
        self.upgrade_recipes = False
        self.on_bytes: Callable[[int], None] = lambda _size: None

    @classmethod
    def of(cls, profile: str | None, options: BuildOptions | None = None, *, take_stale: bool = False) -> Session:
        """Return the session of the profile that a user named, else of `cregraph.yaml`."""
        return cls(Project.of(profile), options, take_stale=take_stale)

    @cached_property
    def asked(self) -> Asked:
        """The requests of the profile as it is now."""
        return self.project.asked(self.recipes)

    @cached_property
    def recipes(self) -> RecipeSet:
        """The set of standard recipes that the profile uses. Raises CregraphError if the pinned set is missing or changed."""
        if self.upgrade_recipes:
            return recipe_sets.installed()
        return self.project.recipes(vendored=lambda: self.project.routes(self.options.sources).recipes)

    @cached_property
    def lock(self) -> Lock:
        """The lock. Raises Refused with the reasons when it is missing or stale."""
        project = self.project
        if not self.take_stale:
            _ = self.asked  # an invalid profile is reported before a missing lock
        found = project.read_lock()
        if found is None:
            raise Refused(f"{project.shown_lock}: the lock does not exist", hint=f"run `cregraph lock {project.profile}`")
        why = [] if self.take_stale else self.stale_reasons(found)
        if why:
            raise Refused(
                f"{project.shown_lock}: the lock does not answer {project.profile}\n  " + "\n  ".join(why),
                hint=f"run `cregraph lock {project.profile}`, then review the change with `cregraph diff`",
            )
        return found

    def stale_reasons(self, lock: Lock | None) -> list[str]:
        """Return why `lock` does not answer the profile or contradicts itself, one line each; empty for a fresh lock."""
        project, asked = self.project, self.asked
        if lock is None:
            return [f"{project.shown_lock}: the lock does not exist"]
        local = project.local(self.recipes)
        found = reasons(
            lock,
            KINDS,
            identity=asked.identity,
            stages=asked.stages,
            targets=asked.targets,
            read=local.read,
            files=local.files,
        )
        if lock.recipes != self.recipes.sha256:
            found.append(f"the set of standard recipes: `{lock.recipes[:16]}` became `{self.recipes.sha256[:16]}`")
        lost = [why for pin in (lock.base, lock.build_root) if (why := project.facts_missing(pin))]
        python = None if lost else project.facts(lock.base).python
        gaps = find_problems(lock, KINDS, base=None if lost else python.distributions if python else ())
        return list(dict.fromkeys([*found, *lost, *(why for listed in gaps.values() for why in listed)]))

    def resolve(self, *, old: Lock | None = None, upgrade: Upgrade | None = None, as_of: str | None = None) -> Lock:
        """Return a lock that answers the profile. Asks sources, and writes new base facts to bases/."""
        from cregraph.kinds.base import PinContext
        from cregraph.resolve import resolve
        from cregraph.sources import images

        self.store.sweep()
        folder, sources = self.project.folder, self.sources
        context = PinContext(
            project=folder,
            shipped=self.recipes.folder,
            as_of=as_of,
            today=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        made = resolve(
            identity=self.asked.identity,
            stages=self.asked.stages,
            targets=self.asked.targets,
            sources=sources,
            context=context,
            facts_for=lambda pin: images.facts_for(pin.artifact, sources, folder),
            old=old,
            upgrade=upgrade,
            title=f"{self.project.profile}: cannot lock",
        )
        return replace(made, recipes=self.recipes.sha256)

    def write_lock(self, lock: Lock) -> bool:
        """Write the lock, after the set of recipes that it names. Return False if the file held those bytes already."""
        folder = self.project.folder
        before = recipe_sets.named_by(self.project.lock_file)
        if not self.project.lock_file.exists():
            recipe_sets.keep_line_endings(folder)
        recipe_sets.write(self.recipes, folder)
        changed = self.project.write_lock(lock)
        recipe_sets.prune(folder, before=before)
        return changed

    @cached_property
    def facts(self) -> BaseFacts:
        return self.project.facts(self.lock.base)

    @cached_property
    def plan(self) -> Plan:
        from cregraph.plan.planner import make_plan

        return make_plan(self.lock, self.facts)

    @cached_property
    def image_name(self) -> str:
        """`image:tag` of the plan, in the letters that registries accept."""
        from cregraph.image.model.reference import check_repository

        name = self.lock.identity.image.lower()
        check_repository(name, where="cre.image")
        return f"{name}:{self.plan.tag}"

    @cached_property
    def store(self) -> Store:
        return self.project.store()

    @cached_property
    def routes(self) -> Routes:
        """Where sources lead on this machine, with the profile's own registry."""
        profile = self.asked.composition.profile
        routes = self.project.routes(self.options.sources, registry_url=profile.registry_url)
        empty = profile.field("snowflake.registry_url")
        return routes if empty is None else replace(routes, host_field=str(empty.place))

    @cached_property
    def sources(self) -> ConfiguredSources:
        """The sources that the lock and the profile name."""
        from cregraph.sources.configured import ConfiguredSources

        return ConfiguredSources(
            kinds=KINDS,
            store=self.store,
            routes=self.routes,
            local=self.project.local(self.recipes),
            offline=self.options.offline,
            on_bytes=lambda size: self.on_bytes(size),
        )

    @cached_property
    def outputs(self) -> Outputs:
        """The results of tasks that are recorded next to the lock."""
        return self.project.read_outputs()

    def new_outputs(self) -> Outputs:
        """Return the recorded results with those of the store. Raises Refused where the two contradict each other."""
        from cregraph.store.task_records import task_results

        names = {task.key: task.name for task in self.plan.tasks}
        return updated(self.outputs, names, task_results(self.plan.tasks, self.store))

    def write_outputs(self) -> None:
        """Record next to the lock what tasks gave. Raises Refused where the record says otherwise."""
        self.outputs = self.new_outputs()
        self.project.write_outputs(self.outputs)

    @cached_property
    def base(self) -> BaseImage:
        """The base image at its origin."""
        return self.image(self.lock.base.artifact)

    @cached_property
    def build_root(self) -> BaseImage:
        return self.image(self.lock.build_root.artifact)

    def image(self, artifact: Artifact) -> BaseImage:
        """Return a pinned image at its origin."""
        from cregraph.image.bases.base_image import find

        return find(artifact, routes=self.sources.routes, project=self.project.folder, store=self.store)

    def engine(self) -> Engine:
        from cregraph.engines import choice

        return choice.choose(
            self.options.engine,
            store=self.store,
            root=self.build_root,
            builder=self.options.builder,
            context=self.options.context,
            fresh=self.options.fresh,
        )
