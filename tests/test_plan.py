"""What a build would do, and why: causes down to their roots, bytes, seconds; in words and for a program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cregraph.digest import sha256
from cregraph.lock.base_facts import BaseFacts, DirFact, LayerFact, PythonFact
from cregraph.lock.lock_file import Identity, Lock, StageRecord
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.plan.explain import LACKING, NEVER, History, explain, grouped
from cregraph.plan.explain.causes import Causes
from cregraph.plan.explain.forecast import Piece, forecast
from cregraph.plan.explain.root_cause import CARRIED, cause_text, root_text
from cregraph.plan.missing_work import Inventory, MissingWork, work_for
from cregraph.plan.parts import Task
from cregraph.plan.planner import EMBEDDED, Plan, make_plan
from cregraph.store import Store
from cregraph.store.known import Built, remember
from cregraph.store.throughput import Throughput, rates

PREFIX = "/home/jupyter/micromamba/envs/workspace_env"
LIBRARY = f"{PREFIX}/lib/R/library"

#: What the locks of these tests hold: name -> version. R packages need each other as NEEDS says.
R = {"rlang": "1.1.5", "vctrs": "0.6.5", "dplyr": "1.1.4", "zoo": "1.8-12"}
NEEDS = {"vctrs": ("rlang",), "dplyr": ("vctrs", "rlang")}
CONDA = {"r-base": "4.5.2", "zlib": "1.3", "python": "3.12.1", "black": "24.1"}
WHEELS = {"numpy": "2.0"}
TEXTS = {"/opt/sfnb/CRE_VERSION": "v1\n"}


def art(kind: str, name: str, version: str, salt: str = "") -> Artifact:
    return Artifact(
        kind=kind,
        source=f"{kind}-source",
        file=f"{name}-{version}",
        sha256=sha256(f"{kind} {name} {version} {salt}".encode()),
        size=1000,
    )


def a_lock(
    *,
    r: Mapping[str, str] = R,
    conda: Mapping[str, str] = CONDA,
    wheels: Mapping[str, str] = WHEELS,
    texts: Mapping[str, str] = TEXTS,
    env: Mapping[str, str] | None = None,
    base: str = "a",
    library: str = LIBRARY,
    salt: Mapping[str, str] | None = None,
) -> Lock:
    """`salt` gives a pin other bytes in the same version, `base` another base."""
    salts = salt or {}
    image = Artifact(kind="image", source="registry:snowflake", file=f"snowbooks:{base}", sha256=base * 64, size=9)
    conda_pins = tuple(
        Pin(
            name=name,
            version=version,
            artifact=replace(
                art("conda", name, version, salts.get(name, "")), file=f"linux-64/{name}-{version}-0.conda", source="conda-forge"
            ),
            provides=(f"conda:{name} {version}", *((f"r:base {version}",) if name == "r-base" else ())),
            needs=("conda:zlib",) if name == "r-base" else (),
            asked=("r: r-base",) if name == "r-base" else (),
            data={"build": "0", "depends": [], **({"noarch": "python"} if name == "black" else {})},
        )
        for name, version in conda.items()
    )
    r_pins = tuple(
        Pin(
            name=name,
            version=version,
            artifact=art("r", name, version, salts.get(name, "")),
            provides=(f"r:{name} {version}",),
            needs=tuple(f"r:{need}" for need in NEEDS.get(name, ()) if need in r),
            asked=(f"cran: {name}",) if name in ("dplyr", "zoo") else (),
            data={"compiles": False},
        )
        for name, version in r.items()
    )
    wheel_pins = tuple(
        Pin(
            name=n,
            version=v,
            artifact=replace(art("python", n, v, salts.get(n, "")), file=f"{n}/{n}-{v}-py3-none-any.whl"),
            provides=(f"py:{n} {v}",),
            asked=(f"python: {n}",),
            data={"form": "wheel"},
        )
        for n, v in wheels.items()
    )

    def asks(kind: str, place: str, stage: str, names: Mapping[str, str]) -> tuple[Ask, ...]:
        return tuple(Ask(kind=kind, place=place, stage=stage, what=name, where=where) for name, where in names.items())

    targets = (
        Target(
            kind="image",
            place="base",
            asks=(
                Ask(
                    kind="image",
                    place="base",
                    stage="snowbooks",
                    what={"reference": "x"},
                    where="p.yaml: cre.snowbooks_tag",
                ),
            ),
            pins=(Pin(name="base", version=f"2.5.{base}", artifact=image, asked=("snowbooks: x",)),),
        ),
        Target(
            kind="conda",
            place=PREFIX,
            asks=asks("conda", PREFIX, "r", {"r-base": "p.yaml: cre.r_version"}),
            pins=conda_pins,
        ),
        Target(
            kind="r",
            place=library,
            asks=asks("r", library, "cran", {"dplyr": "p.yaml: extras.cran", "zoo": "team.yaml: extras.cran"}),
            pins=r_pins,
        ),
        Target(
            kind="python",
            place="$(snowbooks.python)",
            asks=asks("python", "$(snowbooks.python)", "python", {"numpy": "p.yaml: extras.pip"}),
            pins=wheel_pins,
        ),
        Target(
            kind="file",
            place="",
            asks=tuple(
                Ask(kind="file", place="", stage="hook", what={"at": [at], "text": text}, where="hook.yaml: at")
                for at, text in texts.items()
            ),
        ),
    )
    stages = tuple(StageRecord(name=name) for name in ("snowbooks", "r", "cran", "python"))
    return Lock(
        identity=Identity(name="n", image="team", label="v1", tag="v1"),
        stages=(*stages, StageRecord(name="hook", env=env or {"TZ": "UTC"})),
        targets=targets,
    )


def a_plan(lock: Lock, users: Mapping[str, tuple[int, int, str]] | None = None) -> Plan:
    digest = f"sha256:{lock.base.artifact.sha256}"
    minor = "3.11" if lock.base.artifact.sha256[0] != "c" else "3.12"
    python = PythonFact(
        version=f"{minor}.2",
        executable="/opt/p/bin/python",
        prefix="/opt/p",
        site_packages=f"/opt/p/lib/python{minor}/site-packages",
        scripts="/opt/p/bin",
        distributions={},
    )
    layer = LayerFact(digest=f"sha256:{'1' * 64}", diff_id=f"sha256:{'2' * 64}", size=5, media_type="application/x")
    return make_plan(
        lock,
        BaseFacts(
            digest=digest,
            config={"architecture": "amd64", "os": "linux"},
            layers=(layer,),
            glibc="2.36",
            users=users or {},
            python=python,
            directories={"/opt": DirFact(mode=0o755, uid=0, gid=0, mtime=0)},
        ),
    )


OLD = a_plan(a_lock())


def causes_of(new: Plan, old: Plan = OLD) -> dict[str, str]:
    """The words for every task and segment that differs."""
    causes = Causes(old, new)
    found = {f"task {t.name}": c for t in new.tasks if (c := causes.of_task(t))}
    found |= {f"segment {s.name}": c for s in (*new.segments.values(), *new.hidden.values()) if (c := causes.of_segment(s))}
    return {name: cause_text(cause) for name, cause in found.items()}


# -- causes


def test_a_bump_is_named_with_its_line_at_the_root_of_all_that_is_compiled_anew() -> None:
    found = causes_of(a_plan(a_lock(r=R | {"rlang": "1.1.6"})))

    root = "rlang 1.1.5 -> 1.1.6 (for dplyr: extras.cran of p.yaml)"
    assert found == {
        "task rlang": root,
        "task vctrs": f"its needed task {root}",
        "task dplyr": f"its needed task {root}",
        "segment rlang": root,
        "segment vctrs": f"its needed task {root}",
        "segment dplyr": f"its needed task {root}",
        f"segment {EMBEDDED}": CARRIED,
    }


def test_the_nearest_input_that_changed_by_itself_is_named_before_one_that_changed_by_another() -> None:
    found = causes_of(a_plan(a_lock(r=R | {"vctrs": "0.7"})))

    assert found["task dplyr"] == "its needed task vctrs 0.6.5 -> 0.7 (for dplyr: extras.cran of p.yaml)"
    assert "task rlang" not in found


def test_a_package_of_the_environment_is_the_cause_of_what_is_compiled_in_it() -> None:
    found = causes_of(a_plan(a_lock(conda=CONDA | {"r-base": "4.5.3"})))

    assert found["task zoo"] == "its environment's r-base 4.5.2 -> 4.5.3 (cre.r_version of p.yaml)"
    assert found["segment r-base"] == "r-base 4.5.2 -> 4.5.3 (cre.r_version of p.yaml)"
    assert "segment zlib" not in found


def test_what_nobody_asks_for_is_led_back_to_the_package_that_needs_it() -> None:
    (root,) = Causes(OLD, new := a_plan(a_lock(conda=CONDA | {"zlib": "1.4"}))).of_segment(segment(new, "zlib")).roots  # type: ignore[union-attr]

    assert (root.old, root.new, root.via, root.asked) == ("1.3", "1.4", "r-base", ("p.yaml: cre.r_version",))


def test_a_noarch_package_moves_with_its_interpreter() -> None:
    found = causes_of(a_plan(a_lock(conda=CONDA | {"python": "3.13.0"})))

    assert found["segment black"] == "its python 3.12.1 -> 3.13.0"


def test_other_bytes_in_the_same_version_are_told_from_a_bump() -> None:
    found = causes_of(a_plan(a_lock(salt={"zlib": "again"}))) | causes_of(a_plan(a_lock(salt={"zoo": "again"})))

    assert found["segment zlib"] == "zlib 1.3: same version, other bytes (for r-base: cre.r_version of p.yaml)"
    assert found["task zoo"] == "zoo 1.8-12: same version, other bytes (extras.cran of team.yaml)"


def test_what_comes_and_goes_is_said() -> None:
    without = {name: version for name, version in R.items() if name != "vctrs"}
    smaller = a_plan(a_lock(r=without))

    assert causes_of(smaller)["task dplyr"] == "it needs vctrs no longer: vctrs 0.6.5 is gone (for dplyr: extras.cran of p.yaml)"
    assert [root.name for root in Causes(OLD, smaller).gone()] == ["vctrs"]
    assert causes_of(OLD, smaller)["task dplyr"] == "it needs vctrs now: vctrs 0.6.5 is new (for dplyr: extras.cran of p.yaml)"
    assert causes_of(OLD, smaller)["task vctrs"] == "vctrs 0.6.5 is new (for dplyr: extras.cran of p.yaml)"


def test_another_text_or_place_is_said_with_its_line() -> None:
    at = next(iter(TEXTS))
    assert (
        causes_of(a_plan(a_lock(texts={at: "v2\n"})))[f"segment {at}"] == f"its text: {at}: text v1\n -> v2\n (at of hook.yaml)"
    )
    assert causes_of(a_plan(a_lock(texts=TEXTS | {"/opt/x": "y"})))["segment /opt/x"] == "/opt/x is new (at of hook.yaml)"


def test_another_library_is_another_command_for_every_package() -> None:
    found = causes_of(a_plan(a_lock(library=f"{PREFIX}/other/library")))

    assert found["task zoo"].startswith(f"its command: zoo: output {LIBRARY}/zoo -> {PREFIX}/other/")
    assert found["segment zoo"] == found["task zoo"]
    assert not any("new" in why or "gone" in why for why in found.values())


def test_a_new_base_is_the_cause_of_every_layer_and_of_what_is_compiled_over_it() -> None:
    new = a_plan(a_lock(base="b"))
    causes = Causes(OLD, new)

    # these locks have no build root of their own, so tasks run over the base
    assert {cause_text(c) for t in new.tasks if (c := causes.of_task(t))} == {
        "the build root: snowbooks 2.5.a -> 2.5.b (cre.snowbooks_tag of p.yaml)"
    }
    found = [causes.of_layer(layer) for layer in new.layers]
    assert all(cause is not None for cause in found)
    assert {root.name for cause in found if cause for root in cause.roots} == {"snowbooks"}


def test_a_wheel_moves_with_the_interpreter_of_the_base() -> None:
    found = causes_of(a_plan(a_lock(base="c")))

    assert "snowbooks 2.5.a -> 2.5.c" in found["segment numpy"]


def test_a_variable_makes_no_layer_but_that_of_the_lock_and_is_said() -> None:
    new = a_plan(a_lock(env={"TZ": "Europe/Berlin"}))
    causes = Causes(OLD, new)

    assert set(causes_of(new)) == {f"segment {EMBEDDED}"}
    assert [root_text(root) for root in causes.of_image()] == ["variable TZ UTC -> Europe/Berlin"]


CHANGES = st.fixed_dictionaries(
    {
        "r": st.dictionaries(st.sampled_from(sorted(R)), st.sampled_from(["9.9", "9.10"]), max_size=2).map(lambda c: R | c),
        "conda": st.dictionaries(st.sampled_from(sorted(CONDA)), st.just("9.9"), max_size=2).map(lambda c: CONDA | c),
        "wheels": st.sampled_from([WHEELS, {}, WHEELS | {"tabulate": "1"}]),
        "texts": st.sampled_from([TEXTS, {}, {next(iter(TEXTS)): "v2"}]),
        "salt": st.dictionaries(st.sampled_from(["zlib", "zoo", "numpy"]), st.just("again"), max_size=1),
        "base": st.sampled_from(["a", "a", "b", "c"]),
        "library": st.sampled_from([LIBRARY, LIBRARY, f"{PREFIX}/lib/R/site-library"]),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES, CHANGES)
def test_everything_whose_key_differs_has_a_cause_and_nothing_else_has(first: dict, second: dict) -> None:  # type: ignore[type-arg]
    old, new = a_plan(a_lock(**first)), a_plan(a_lock(**second))
    causes = Causes(old, new)
    keys = {*old.segments, *old.hidden, *(t.key for t in old.tasks)}
    for thing in (*new.tasks, *new.segments.values(), *new.hidden.values()):
        cause = causes.of_task(thing) if thing in new.tasks else causes.of_segment(thing)  # type: ignore[arg-type]
        assert (cause is None) == (thing.key in keys), thing.name
        assert cause is None or cause.roots or cause.near == CARRIED, thing.name
    layers = {layer.key for layer in old.layers}
    for layer in new.layers:
        found = causes.of_layer(layer)
        assert (found is None) == (layer.key in layers)
        assert found is None or found.roots or found.near == CARRIED


# -- what is made, and how long it takes


def work_of(plan: Plan, *, tasks: bool = True) -> MissingWork:
    """A store that holds nothing."""
    artifacts = {a.sha256: a for s in plan.segments.values() if (a := s.artifact)}
    artifacts |= {a.sha256: a for t in plan.tasks for a in t.artifacts}
    return MissingWork(
        layers=plan.layers, segments=tuple(plan.segments.values()), tasks=plan.tasks, artifacts=tuple(artifacts.values())
    )


def test_a_task_runs_only_if_something_that_is_missing_needs_its_result() -> None:
    dplyr = next(task for task in OLD.tasks if task.name == "dplyr")
    segment_ = next(s for s in OLD.segments.values() if s.task_key == dplyr.key)

    def work(*, segments: bool, results: bool, task: Task | None = None) -> MissingWork:
        there = Inventory(segment=lambda _: segments, result=lambda _: results, artifact=lambda _: False)
        return work_for(OLD, there, segments=() if task else [segment_], task=task)

    cold = work(segments=False, results=False)
    assert {task.key for task in cold.tasks} == {dplyr.key, *dplyr.needs}
    assert {s.key for s in cold.segments} == {segment_.key, *(key for task in cold.tasks for key in task.environment)}
    assert {a.sha256 for task in cold.tasks for a in task.artifacts} < {a.sha256 for a in cold.artifacts}
    assert work(segments=False, results=True) == MissingWork(segments=(segment_,)), "its environment is not wanted"
    assert work(segments=True, results=False) == MissingWork(), "a segment that is there needs no result"
    opened = work(segments=True, results=True, task=dplyr)
    assert opened == MissingWork(artifacts=dplyr.artifacts), "what its sandbox shows"


def test_reasons_without_a_change_are_told_apart() -> None:
    again = explain(OLD, work_of(OLD), causes=Causes(OLD, OLD), past=History(tasks={}, rates={}), jobs=2)
    first = explain(OLD, work_of(OLD), causes=None, past=History(tasks={}, rates={}), jobs=2)

    assert {row.why for row in again.rows} == {LACKING}
    assert {row.why for row in first.rows} == {NEVER}
    assert {row.what for row in first.rows if row.subject == "segment" and row.kind == "conda"} == {"fetch", "make"}
    assert first.time.seconds is None and first.time.unknown == len(first.rows) + len(first.fetch)


def test_what_the_store_has_is_reused_and_has_no_cause() -> None:
    new = a_plan(a_lock(r=R | {"zoo": "1.9"}))
    task = next(t for t in new.tasks if t.name == "zoo")
    segment_ = segment(new, "zoo")
    view = explain(
        new,
        MissingWork(tasks=(task,), segments=(segment_,), artifacts=task.artifacts),
        causes=Causes(OLD, new),
        past=History(tasks={}, rates={}),
        jobs=2,
    )

    assert [(row.subject, row.name) for row in view.rows if row.what != "reuse"] == [("task", "zoo"), ("segment", "zoo")]
    assert all(row.cause is None for row in view.rows if row.what == "reuse")
    (group,) = grouped(view.rows)
    assert (root_text(group.root) if group.root else "", len(group.rows)) == ("zoo 1.8-12 -> 1.9 (extras.cran of team.yaml)", 2)
    everything = explain(new, MissingWork(), causes=Causes(OLD, new), past=History(tasks={}, rates={}), jobs=2, everything=True)
    assert {row.name for row in everything.rows if row.cause and row.subject == "task"} == {"zoo"}


def test_the_time_is_that_of_the_longest_way_when_there_are_jobs_enough() -> None:
    seconds = {"rlang": 10.0, "vctrs": 20.0, "dplyr": 30.0, "zoo": 45.0}
    past = History(tasks={t.key: (seconds[t.name], "task") for t in OLD.tasks}, rates={})
    work = MissingWork(tasks=OLD.tasks)

    many, one = (explain(OLD, work, causes=None, past=past, jobs=jobs).time for jobs in (4, 2))

    assert (many.seconds, many.alone, many.chain) == (60.0, 60.0, ("rlang", "vctrs", "dplyr"))
    assert one.seconds == 60.0  # zoo beside the chain
    assert forecast([Piece(id="a", seconds=5), Piece(id="b", seconds=5)], {"work": 1}).seconds == 10.0


def test_the_weight_of_a_source_stands_in_for_a_task_that_never_ran(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen = Throughput()
    for size in (1000, 2000, 3000):
        seen.note("task", 1 + size / 1000, size)
    seen.save(store)

    rate = rates(store)["task"]

    assert (round(rate.each, 6), round(rate.byte * 1000, 6)) == (1.0, 1.0)
    view = explain(OLD, MissingWork(tasks=OLD.tasks), causes=None, past=History(tasks={}, rates=rates(store)), jobs=1)
    assert {(row.seconds, row.basis) for row in view.rows if row.subject == "task"} == {(2.0, "size")}


@pytest.mark.parametrize("garbage", [{}, [1, 2], [-1.0] * 5, ["x"] * 5, None])
def test_garbage_is_no_history(tmp_path: Path, garbage: object) -> None:
    store = Store(tmp_path)
    store.put_record("throughput", "task", garbage)
    assert rates(store) == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 50), st.sets(st.integers(0, 11), max_size=3)), max_size=12), st.integers(1, 4))
def test_a_forecast_lies_between_the_longest_way_and_the_sum(jobs: list[tuple[float, set[int]]], slots: int) -> None:
    pieces = [Piece(id=str(i), seconds=s, needs=tuple(str(n) for n in needs if n < i)) for i, (s, needs) in enumerate(jobs)]
    found = forecast(pieces, {"work": slots})

    whole = sum(piece.seconds for piece in pieces)
    assert found.alone <= found.seconds + 1e-6
    assert found.seconds <= whole + 1e-6
    assert found.seconds >= whole / slots - 1e-6


def segment(plan: Plan, name: str):  # type: ignore[no-untyped-def]
    return next(s for s in (*plan.segments.values(), *plan.hidden.values()) if s.name == name)


# -- the command


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "demo"
    assert cregraph("demo", str(folder), cwd=folder.parent).returncode == 0
    for git in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=x", "-c", "user.email=x@x.example", "commit", "-qm", "locked"),
    ):
        subprocess.run(["git", *git], cwd=folder, check=True)
    profile = folder / "demo.yaml"
    profile.write_text(profile.read_text().replace("- r-demoframes ", "- r-demoframes =1.1.0 "))
    assert cregraph("lock", "demo.yaml", cwd=folder).returncode == 0
    return folder


def cregraph(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cregraph", *words], cwd=cwd, capture_output=True, text=True)


ROOT = "r-demoframes 1.2.0 -> 1.1.0 (extras.conda_r of demo.yaml)"


@pytest.mark.parametrize("against", [None, "HEAD"])
def test_the_last_build_or_a_revision_is_what_is_compared_with(demo: Path, against: str | None) -> None:
    option = () if against is None else ("--against", against)
    answer = json.loads(cregraph("plan", "demo.yaml", *option, "--json", cwd=demo).stdout)
    text = cregraph("plan", "demo.yaml", *option, cwd=demo).stdout
    full = cregraph("plan", "demo.yaml", *option, "--full", cwd=demo).stdout

    assert answer["against"]["what"] == (against or "the last build")
    assert [group["why"] for group in answer["because"]] == [ROOT, CARRIED]
    assert [file.rpartition("/")[2] for file in answer["fetch"]["files"]] == ["r-demoframes-1.1.0-demo_0.conda"]
    assert f"    {ROOT}: 1 segment, 1 layer\n" in text
    assert text.count("\n") < 12
    assert full.startswith(text)
    assert full.removeprefix(text).startswith("\n")
    assert len(full.splitlines()) - len(text.splitlines()) == len(answer["things"]) + 1
    assert answer["seconds"]["expected"] > 0


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("nowhere", "`nowhere` is neither a file nor a git revision"),
        ("sources.yaml", "does not exist"),
        ("HEAD~7", "neither a file"),
    ],
)
def test_what_is_nothing_to_compare_with_is_said(demo: Path, against: str, message: str) -> None:
    done = cregraph("plan", "demo.yaml", "--against", against, cwd=demo)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_last_build_that_cannot_be_read_any_more_leaves_the_rest_of_the_answer(demo: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(demo, own, symlinks=True)
    shutil.rmtree(own / "cache" / "projects")
    never = cregraph("plan", "demo.yaml", cwd=own)
    assert "because this store has no earlier build of this lock file" in never.stdout
    known = Store(own / "cache")
    remember(known, own / "locks" / "demo.lock.json", built=Built(text=known.add(b"no lock"), key="0" * 64, digest=""))
    unread = cregraph("plan", "demo.yaml", cwd=own)
    assert unread.returncode == 0
    assert "cannot compare with the last build: the lock of the last build:1:1: not readable as JSON" in unread.stderr
    assert "  because the last build is not known" in unread.stdout


# -- who owns new directories


@pytest.mark.parametrize(
    ("files", "owners"),
    [
        ({"/home/ann/.config/team/deep/x": "ann"}, {"/home/ann/.config": (1000, 100)}),
        ({"/home/ann/x": "ann"}, {}),  # right in the home: no directory is made
        ({"/home/ann/.config/x": None, "/home/ann/.local/x": "bob"}, {}),  # root's and another user's file
        ({"/opt/team/x": "ann", "/root/.config/x": None, "/var/x/y": "service", "/home/anna/b/x": "ann"}, {}),
        (
            {"/home/bob/b/x": "bob", "/home/ann/a/x": "ann", "/home/ann/a/y/z": "ann"},
            {"/home/ann/a": (1000, 100), "/home/bob/b": (1001, 100)},
        ),
    ],
)
def test_a_directory_that_a_users_file_needs_in_the_users_home_is_the_users(
    files: Mapping[str, str | None], owners: Mapping[str, tuple[int, int]]
) -> None:
    users = {"root": (0, 0, "/root"), "ann": (1000, 100, "/home/ann/"), "bob": (1001, 100, "/home/bob"), "service": (7, 7, "")}
    asks = tuple(
        Ask(
            kind="file",
            place="",
            stage="hook",
            what={"at": [at], "text": "", **({"owner": o} if o else {})},
            where="hook.yaml: at",
        )
        for at, o in files.items()
    )
    lock = a_lock()
    plan = a_plan(replace(lock, targets=tuple(replace(t, asks=asks) if t.kind == "file" else t for t in lock.targets)), users)

    assert plan.planner.owners == owners
