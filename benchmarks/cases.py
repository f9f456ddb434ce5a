"""What is measured. Each case puts the project into a state, runs one command, and checks that it did what it is measured for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measure import Failed, Sample
from benchmarks.scene import Scene

__all__ = ["CASES", "Case", "Done"]

_LOCK = ("lock", "team.yaml", "--json")
_BUILD = ("build", "team.yaml", "--json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A measured run, and what it made, in short."""

    sample: Sample
    made: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One row. `floor` is what it is compared with; `http`: also measured over HTTP on loopback; `often`: runs for each run."""

    name: str
    about: str
    floor: str
    run: Callable[[Scene], Done]
    http: bool = False
    often: int = 1


def lock_cold(scene: Scene) -> Done:
    """Neither a lock nor facts of the base nor a store."""
    with scene.restored(), scene.empty_store() as store:
        before = scene.project.lock.read_bytes()
        for name in ("locks", "bases"):
            shutil.rmtree(scene.project.folder / name)
        done = scene.run(_LOCK, store=store)
        _expect(scene.project.lock.read_bytes() == before, "a cold lock is not the same bytes")
        return Done(sample=done.sample, made=_pins(done.err))


def lock_facts_known(scene: Scene) -> Done:
    """No lock and no store; the facts of base and build root are in bases/, as they are in a team's repository."""
    with scene.restored(), scene.empty_store() as store:
        before = scene.project.lock.read_bytes()
        shutil.rmtree(scene.project.folder / "locks")
        done = scene.run(_LOCK, store=store)
        _expect(scene.project.lock.read_bytes() == before, "a cold lock is not the same bytes")
        return Done(sample=done.sample, made=_pins(done.err))


def lock_changed(scene: Scene) -> Done:
    """A conda package is added to a profile that is locked."""
    with scene.restored():
        scene.edit(conda_r=["r-lme4=1.1-31", "r-codetools", "world-noarch"])
        done = scene.run(_LOCK)
        return Done(sample=done.sample, made=_pins(done.err))


def lock_fresh(scene: Scene) -> Done:
    done = scene.run(_LOCK)
    _expect(json.loads(done.out)[0]["changed"] is False, "the lock was not fresh")
    return Done(sample=done.sample)


def lock_check(scene: Scene) -> Done:
    done = scene.run((*_LOCK, "--check"))
    return Done(sample=done.sample)


def plan(scene: Scene) -> Done:
    scene.built()
    done = scene.run(("plan", "team.yaml", "--json"))
    _expect(not json.loads(done.out)["layers"]["make"], "the plan is not of a built image")
    return Done(sample=done.sample)


def build_nothing(scene: Scene) -> Done:
    scene.built()
    done = scene.run(_BUILD)
    _expect(json.loads(done.out)[0]["made"]["layers"] == 0, "something was to do")
    return _built(scene, done.sample, done.out, same=True)


def build_cold(scene: Scene) -> Done:
    """An empty store: everything is fetched, compiled, packed."""
    scene.built()
    with scene.empty_store() as store:
        done = scene.run(_BUILD, store=store)
        return _built(scene, done.sample, done.out, same=True)


def build_assembly(scene: Scene) -> Done:
    """Artifacts and results of tasks are in the store; segments and layers are not."""
    scene.built()
    with scene.unassembled():
        done = scene.run(_BUILD)
        made = json.loads(done.out)[0]["made"]
        _expect(made["tasks"] == 0 and made["artifacts"] == 0 and made["layers"] > 1, f"it was not the assembly alone: {made}")
        return _built(scene, done.sample, done.out, same=True)


def build_hook(scene: Scene) -> Done:
    """The hook has another line."""
    scene.built()
    with scene.restored():
        scene.change_hook()
        scene.project.ok("lock", "team.yaml")
        done = scene.run(_BUILD)
        return _built(scene, done.sample, done.out)


def build_conda(scene: Scene) -> Done:
    """A conda package is moved to its next version."""
    scene.built()
    with scene.restored():
        for version in ("1.0", "1.1"):
            scene.edit(conda_r=["r-lme4=1.1-31", "r-codetools", f"world-noarch={version}"])
            scene.project.ok("lock", "team.yaml")
            if version == "1.0":
                scene.project.ok("build", "team.yaml")
        done = scene.run(_BUILD)
        return _built(scene, done.sample, done.out)


def build_cran(scene: Scene) -> Done:
    """bitops is moved, which caTools imports: both are compiled."""
    scene.built()
    with scene.restored():
        scene.edit(cran=["doParallel", "caTools", "xts", "lmtest", "reshape2", "bitops==1.0-7"])
        scene.project.ok("lock", "team.yaml")
        done = scene.run(_BUILD)
        _expect(json.loads(done.out)[0]["made"]["tasks"] == 2, "other tasks ran")
        return _built(scene, done.sample, done.out)


CASES = (
    Case(name="lock.cold", about="no store, no base facts, no lock", floor="solve", run=lock_cold, http=True),
    Case(
        name="lock.facts-known", about="no store, no lock; base facts committed", floor="solve", run=lock_facts_known, http=True
    ),
    Case(name="lock.changed", about="a conda package added to a locked profile", floor="solve", run=lock_changed, http=True),
    Case(name="lock.fresh", about="nothing to do", floor="imports", run=lock_fresh, often=5),
    Case(name="lock.check", about="`lock --check`, fresh", floor="imports", run=lock_check, often=5),
    Case(name="plan", about="`plan` of a built image", floor="imports", run=plan, often=5),
    Case(name="build.nothing", about="the image is there", floor="imports", run=build_nothing, often=5),
    Case(name="build.hook", about="the hook changed", floor="imports", run=build_hook, often=2),
    Case(name="build.conda", about="a conda package moved", floor="imports", run=build_conda, often=2),
    Case(name="build.cran", about="a CRAN package moved, two compile", floor="bytes", run=build_cran),
    Case(name="build.assembly", about="segments and layers are gone, nothing compiles", floor="bytes", run=build_assembly),
    Case(name="build.cold", about="no store: all fetched, compiled, packed", floor="bytes", run=build_cold, http=True),
)


def _built(scene: Scene, sample: Sample, out: str, *, same: bool = False) -> Done:
    answer = json.loads(out)[0]
    if same:
        _expect(answer["digest"] == scene.digest, f"the digest is {answer['digest']}, and {scene.digest} was made before")
    return Done(sample=sample, made=", ".join(f"{count} {what}" for what, count in sorted(answer["made"].items()) if count))


def _pins(err: str) -> str:
    return next((line for line in err.splitlines() if " pins: " in line), "")


def _expect(right: bool, otherwise: str) -> None:
    if not right:
        raise Failed(otherwise)
