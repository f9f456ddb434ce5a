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
    """What `run` measures.

    `floors` are what it is compared with; `http`: also over HTTP on loopback; `often`: runs for each run that is asked for;
    `built`: the image is in the store before it.
    """

    name: str
    about: str
    floors: tuple[str, ...]
    run: Callable[[Scene], Done]
    http: bool = False
    often: int = 1
    built: bool = True


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
        scene.edit(conda_r=["r-lme4=1.1-31", "r-codetools", "odd-noarch"])
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
    done = scene.run(("plan", "team.yaml", "--json"))
    _expect(not json.loads(done.out)["layers"]["make"], "the plan is not of a built image")
    return Done(sample=done.sample)


def build_nothing(scene: Scene) -> Done:
    done = scene.run(_BUILD)
    _expect(json.loads(done.out)[0]["made"]["layers"] == 0, "something was to do")
    return _built(scene, done.sample, done.out, same=True)


def build_cold(scene: Scene) -> Done:
    """An empty store: everything is fetched, compiled, packed."""
    with scene.empty_store() as store:
        done = scene.run(_BUILD, store=store)
        return _built(scene, done.sample, done.out, same=True)


def build_assembly(scene: Scene) -> Done:
    """Artifacts and results of tasks are in the store; segments and layers are not."""
    with scene.unassembled():
        done = scene.run(_BUILD)
        made = json.loads(done.out)[0]["made"]
        _expect(made["tasks"] == 0 and made["artifacts"] == 0 and made["layers"] > 1, f"it was not the assembly alone: {made}")
        return _built(scene, done.sample, done.out, same=True)


def build_hook(scene: Scene) -> Done:
    """The hook has another line."""
    with scene.restored():
        scene.change_hook()
        scene.project.ok("lock", "team.yaml")
        done = scene.run(_BUILD)
        return _built(scene, done.sample, done.out)


def build_conda(scene: Scene) -> Done:
    """An R package of conda is added."""
    return _with_conda(scene, "r-cluster", tasks=False)


def build_conda_library(scene: Scene) -> Done:
    """A conda package that is no R package is added: whatever compiles may see it, so whatever compiles is compiled again."""
    return _with_conda(scene, "odd-hardlink", tasks=True)


def _with_conda(scene: Scene, name: str, *, tasks: bool) -> Done:
    with scene.restored():
        scene.edit(conda_r=["r-lme4=1.1-31", "r-codetools", name])
        scene.project.ok("lock", "team.yaml")
        done = scene.run(_BUILD)
        _expect(bool(json.loads(done.out)[0]["made"]["tasks"]) == tasks, "other tasks ran")
        return _built(scene, done.sample, done.out)


def build_cran(scene: Scene) -> Done:
    """bitops is moved, which caTools imports: both are compiled."""
    with scene.restored():
        scene.edit(cran=["doParallel", "caTools", "xts", "lmtest", "reshape2", "bitops==1.0-7"])
        scene.project.ok("lock", "team.yaml")
        done = scene.run(_BUILD)
        _expect(json.loads(done.out)[0]["made"]["tasks"] == 2, "other tasks ran")
        return _built(scene, done.sample, done.out)


CASES = (
    Case(
        name="lock.cold",
        about="no store, no base facts, no lock",
        floors=("layers", "solve"),
        run=lock_cold,
        http=True,
        built=False,
    ),
    Case(
        name="lock.facts-known",
        about="no store, no lock; base facts committed",
        floors=("solve",),
        run=lock_facts_known,
        http=True,
        built=False,
    ),
    Case(
        name="lock.changed",
        about="a conda package added to a locked profile",
        floors=("solve",),
        run=lock_changed,
        http=True,
        built=False,
    ),
    Case(name="lock.fresh", about="nothing to do", floors=("imports",), run=lock_fresh, often=5, built=False),
    Case(name="lock.check", about="`lock --check`, fresh", floors=("imports",), run=lock_check, often=5, built=False),
    Case(name="plan", about="`plan` of a built image", floors=("imports",), run=plan, often=5),
    Case(name="build.nothing", about="the image is there", floors=("imports",), run=build_nothing, often=5),
    Case(name="build.hook", about="the hook changed", floors=("imports",), run=build_hook, often=2),
    Case(name="build.conda", about="an R package of conda added", floors=("imports",), run=build_conda, often=2),
    Case(
        name="build.conda-library",
        about="another conda package added by name: all that compiles is compiled again",
        floors=("bytes",),
        run=build_conda_library,
    ),
    Case(name="build.cran", about="a CRAN package moved, two compile", floors=("bytes",), run=build_cran),
    Case(name="build.assembly", about="segments and layers are gone, nothing compiles", floors=("bytes",), run=build_assembly),
    Case(name="build.cold", about="no store: all fetched, compiled, packed", floors=("bytes",), run=build_cold, http=True),
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
