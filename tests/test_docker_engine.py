"""Tasks as stages of BuildKit: the same results as the native engine's, whatever builder runs them, and nothing left behind."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from cregraph.engines import choice
from cregraph.engines.buildx import Buildx, Said
from cregraph.engines.capture import Undeclared
from cregraph.engines.contract import Limits, Stopped, TaskFailed
from cregraph.engines.docker import Docker
from cregraph.engines.dockerfile import copy, task_file, task_name
from cregraph.engines.extract import extract
from cregraph.engines.flatten import flatten
from cregraph.engines.task_layers import TaskLayers
from cregraph.errors import CregraphError
from cregraph.image.model import segment as segments
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.plan.parts import Task, task
from cregraph.plan.planner import Plan, make_plan
from cregraph.session.project import Project
from cregraph.store import Store
from tests import sandbox_root
from tests.faults import GENEROUS, soon
from tests.real_project import RealProject
from tests.task_runs import run_tasks
from tests.test_sandbox import alive, contents
from tests.test_tasks import file, folder, link, tar_of

DIGEST = "sha256:" + "5b" * 32
needs_root = pytest.mark.skipif(bool(sandbox_root.missing()), reason=str(sandbox_root.missing()))
#: How a test reaches an engine: the environment, and what is named.
CLASSIC = os.environ.get("CREGRAPH_TEST_CLASSIC_HOST", "")
BUILDER = os.environ.get("CREGRAPH_TEST_BUILDER", "")  # a builder of another driver: `docker buildx create --name …`


# -- without an engine


def listing(tar: bytes) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            assert member.name not in found
            assert (member.uid, member.gid, member.mode & 0o6000) == (0, 0, 0)
            if member.islnk():
                found[member.name] = found[member.linkname]
            elif member.isfile():
                data = archive.extractfile(member)
                assert data is not None
                found[member.name] = ("file", member.mode, member.mtime, data.read())
            else:
                found[member.name] = (member.type, member.mode if member.isdir() else 0, member.mtime, member.linkname)
    return found


def on_disk(into: Path, tar: bytes) -> dict[str, tuple[object, ...]]:
    into.mkdir()
    extract(io.BytesIO(tar), into, title="the image")
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(into.rglob("*")):
        info = path.lstat()
        name, mtime = str(path.relative_to(into)), int(info.st_mtime)
        if path.is_symlink():
            found[name] = (tarfile.SYMTYPE, 0, mtime, str(path.readlink()))
        elif path.is_dir():
            found[name] = (tarfile.DIRTYPE, info.st_mode & 0o7777, mtime, "")
        else:
            found[name] = ("file", info.st_mode & 0o7777, mtime, path.read_bytes())
    return found


def again(layers: list[io.BytesIO]) -> Iterator[IO[bytes]]:
    for layer in layers:
        layer.seek(0)
        yield layer


def test_layers_are_flattened_by_the_rules_of_images_and_unpacked_as_they_are(tmp_path: Path) -> None:
    first = tar_of(
        folder("a"), file("a/one", b"1"), file("a/two", b"2", mode=0o4755), folder("b", mode=0o700), file("b/x", b"x"),
        file("c", b"c"), file("g/h/i", b"i"), link("l", "a"), file("o/keep", b"k"), file("o/sub/deep", b"d"),
        file("r", b"first"), file("h1", b"hard"), link("h2", "h1", tarfile.LNKTYPE), ("dev", tarfile.CHRTYPE, {}, b""),
        file("name-\udcff", b"bytes"), file("x" * 90 + "/" + "y" * 120, b"long"), file("Case", b"1"), file("case", b"2"),
    )  # fmt: skip
    second = tar_of(
        file("a/.wh.one"), file("a/two", b"22"), file("b/new", b"n"), file("b/.wh..wh..opq"), folder("c"), file("c/in", b"i"),
        file("l/through", b"t"), file("h1", b"other"), folder("o/sub"), file("o/.wh..wh..opq"), file("o/sub/new", b""),
        file("g/.wh.h"), file("r", b"then"), file("r", b"last"), link("s", "../../etc"), link("h3", "h2", tarfile.LNKTYPE),
        folder("t", mode=0o1777),
    )  # fmt: skip
    out = io.BytesIO()
    others = flatten(lambda: again([first, second]), out.write, title="the image")
    found = listing(out.getvalue())
    assert found == on_disk(tmp_path / "tree", out.getvalue())
    assert others == sorted(name for name, what in found.items() if what[0] != tarfile.DIRTYPE)
    assert {name: what[3] for name, what in found.items() if what[0] != tarfile.DIRTYPE} == {
        "a/two": b"22", "b/new": b"n", "c/in": b"i", "l/through": b"t", "o/sub/new": b"", "r": b"last", "s": "../../etc",
        "h1": b"other", "h2": b"hard", "h3": b"hard", "Case": b"1", "case": b"2", "name-\udcff": b"bytes",
        "x" * 90 + "/" + "y" * 120: b"long",
    }  # fmt: skip
    folders = {name: what[1:3] for name, what in found.items() if what[0] == tarfile.DIRTYPE}
    given, made = (0o755, 1_000_000_000), (0o755, 315532800)
    assert folders == {
        "a": given, "b": (0o700, given[1]), "c": given, "o": made, "o/sub": given, "g": made, "l": made, "x" * 90: made,
        "t": (0o1777, given[1]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([file("../out")], "leads out"),
        ([file("a/../../out")], "leads out"),
        ([link("h", "none", tarfile.LNKTYPE)], "does not hold"),
        ([file(".", b"x")], "where its root should be"),
    ],
)
def test_hostile_layers_are_not_flattened(entries: list[Any], words: str) -> None:
    with pytest.raises(CregraphError, match=words):
        flatten(lambda: again([tar_of(*entries)]), lambda _data: None, title="the image")


def a_task(name: str = "probe", script: str = "true", **more: Any) -> Task:
    return task(
        assembly=1,
        kind="test",
        stage="test",
        name=name,
        root=DIGEST,
        argv=("/bin/bash", "-c", script),
        env={"OUT": more.get("output", "/cregraph/out"), **more.pop("env", {})},
        output=more.pop("output", "/cregraph/out"),
        **more,
    )


HOSTILE = [
    "x\nRUN rm -rf /",
    'q"]\nFROM evil',
    "$(id)",
    "${HOME}",
    "-",
    "..",
    "Ä ö",
    "a" * 300,
    "0",
    "\\",
    "# syntax=evil/frontend",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_or_command_gets_into_the_text_of_a_stage(name: str) -> None:
    one = a_task(name, script=name, env={"V": name})
    stage = task_name(one)
    assert re.fullmatch(r"[a-z][a-z0-9_.-]*-[0-9a-f]{12}", stage)
    assert len(stage) < 128
    text = task_file(one, limits=Limits())
    assert text.replace(stage, "STAGE") == task_file(a_task("plain"), limits=Limits()).replace(
        task_name(a_task("plain")), "STAGE"
    )


def test_a_path_that_a_copy_would_not_read_as_it_stands_is_refused() -> None:
    assert copy("/an odd/päth", "/out/", stage="s") == 'COPY --from=s ["/an odd/päth", "/out/"]'
    for sign in ("$x", "\\", "*", "?", "[a]", '"', "'", "\n", "`", "\u2028"):
        with pytest.raises(CregraphError, match="cannot be copied out of a stage"):
            copy(f"/a{sign}b", "/out/", stage="s")


def test_what_buildx_says_is_read_however_it_is_cut() -> None:
    def of(data: bytes, stream: int) -> dict[str, object]:
        return {"vertex": "v", "stream": stream, "data": base64.b64encode(data).decode()}

    said = [
        json.dumps({"vertexes": [{"digest": "v", "name": "[s 1/2] RUN x", "cached": True}]}, indent=2),
        json.dumps({"logs": [of(b"out\xff\n", 1), of(b"err", 2)]}),
        json.dumps({"statuses": [{"id": "sha256:ab", "current": 5}, {"id": "extracting", "current": 7}]}),
        json.dumps({"vertexes": [{"name": "[s 1/2] RUN x", "error": "went wrong"}]}),
        "WARNING: plain words",
        "ERROR: failed to solve: went wrong",
    ]
    text = "\n".join(said) + "\n"
    for step in (1, 7, 100, len(text)):
        printed = bytearray()
        found = Said(printed.extend)
        for start in range(0, len(text), step):
            found.feed(text[start : start + step])
        found.end()
        assert (bytes(printed), bytes(found.stderr)) == (b"out\xff\n", b"err")
        assert (found.cached, found.errors, found.sent) == ({"[s 1/2] RUN x"}, ["went wrong"], {"sha256:ab": 5})
        assert found.words.split("\n")[-1] == "ERROR: failed to solve: went wrong"


def a_segment(store: Store, key: str, files: Mapping[str, bytes]) -> str:
    key = key * 64
    entries = [Entry(path=path, mode=0o755, uid=1000, size=len(d), chunks=lambda d=d: iter([d])) for path, d in files.items()]
    segments.write(entries, store, key, 1)
    return key


def layers_of(store: Store, *root: io.BytesIO, expected: tuple[Task, ...] = ()) -> TaskLayers:
    layers = TaskLayers(store, layers=lambda _digest: again(list(root)))
    layers.expect(expected)
    return layers


def test_what_several_tasks_see_is_one_layer_and_all_layers_together_are_the_environment(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    keys = [a_segment(store, str(n), {f"env/lib/{n}": b"%d" % n, "env/same": b"same"}) for n in range(6)]
    core = tuple(keys[:3])
    tasks = (
        a_task("a", environment=core),
        a_task("b", environment=(*core, keys[3])),
        a_task("c", environment=(*core, *keys[4:])),
    )
    for expected in (tasks, ()):  # the second time from memory
        layers = layers_of(store, tar_of(folder("usr")), expected=expected)
        stacks = [layers.stack(one, {}) for one in tasks]
        assert len({stack[0].sha256 for stack in stacks}) == 1
        assert len({stack[1].sha256 for stack in stacks}) == 1, "the core is one layer"
        assert [len(stack) for stack in stacks] == [2, 3, 3]
        for one, stack in zip(tasks, stacks, strict=True):
            files = {name for layer in stack for name, what in listing(layer.path.read_bytes()).items() if what[0] == "file"}
            assert files == {"env/same", *(f"env/lib/{key[0]}" for key in one.environment)}


def test_owners_that_disagree_and_folders_over_links_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    one, other = a_segment(store, "1", {"env/f": b"1"}), a_segment(store, "2", {"env/f": b"2"})
    third = a_segment(store, "3", {"env/f/g": b"3"})
    layers = layers_of(store, tar_of(folder("usr"), link("env", "usr")))
    for pair in ((one, other), (one, third)):
        with pytest.raises(CregraphError, match="own `env/f`"):
            layers.environment(pair)
    with pytest.raises(CregraphError, match="has a folder /env, where the build root has a file or link"):
        layers.stack(a_task(environment=(one,)), {})


def test_a_result_with_names_that_delete_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for name in (".wh.passwd", "a/.wh..wh..opq", "../x"):
        result = store.path_of(store.add(tar_of(file(name)).getvalue()))
        with pytest.raises(CregraphError, match=r"a name that no layer can hold|leads out of its folder"):
            layers_of(store).result("c" * 64, result, "/lib/c")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--engine", "native", "--builder", "x"), "builder of BuildKit, which the native engine does not use"),
        (("--engine", "container"), "unknown engine"),
        (("--engine", "native", "--context", "x"), "`--context` names a Docker engine, which the native engine does not use"),
        (("--engine", "dokcer"), "write `docker` instead"),
    ],
)
def test_engines_and_options_that_do_not_go_together_are_refused_at_once(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = RealProject(folder=tmp_path, environment=None).run("build", *words)  # type: ignore[arg-type]
    assert (done.code, said in done.err) == (2, True), done.err


def test_a_name_of_a_builder_that_is_an_option_is_refused() -> None:
    with pytest.raises(CregraphError, match="is not the name"):
        Buildx(builder="--allow=security.insecure")


def test_without_dockers_program_the_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    store = Store(tmp_path / "store")
    reason = Docker(store, layers_of(store), Buildx()).available()
    assert reason == "the program `docker` cannot be started: No such file or directory"


def test_where_no_engine_works_each_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    reasons = choice.reasons("auto", store=Store(tmp_path), context=None)
    assert list(reasons) == ["native", "docker"]
    assert reasons["docker"]
    why = r".*nobody\.sock" if shutil.which("docker") else "the program `docker` cannot be started"
    with pytest.raises(CregraphError, match=f"the docker engine does not work here: {why}") as caught:
        choice.choose("docker", store=Store(tmp_path), root=None)  # type: ignore[arg-type]
    assert "cregraph doctor" in str(caught.value.hint)


# -- with engines


@dataclass
class Box:
    """A docker engine over a store and a small root."""

    store: Store
    engine: Docker

    def run(
        self, one: Task, *, inputs: Mapping[str, Path] | None = None, results: Mapping[str, Path] | None = None
    ) -> dict[str, bytes]:
        out = io.BytesIO()
        self.log.write_bytes(b"")
        self.engine.perform(one, inputs=inputs or {}, results=results or {}, write=out.write, log=self.log, slot=0)
        return contents(out.getvalue())

    @property
    def log(self) -> Path:
        return self.store.root / "log"


@pytest.fixture(params=["containerd", "classic", *(["builder"] if BUILDER else [])])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What `Buildx` is given, one after the other, for every kind of builder that is here."""
    if request.param == "classic":
        if not CLASSIC:
            pytest.skip("no engine with the classic store: CREGRAPH_TEST_CLASSIC_HOST not set")
        monkeypatch.setenv("DOCKER_HOST", CLASSIC)
    if request.param == "builder":
        return {"builder": BUILDER}
    return {}


@pytest.fixture
def make_box(tmp_path: Path, place: dict[str, str]) -> Callable[..., Box]:
    root = io.BytesIO(sandbox_root.layer())

    def make(*, fresh: bool = False, **limits: int) -> Box:
        store = Store(tmp_path / "a store: with @ signs")
        layers = TaskLayers(store, layers=lambda _digest: again([root]))
        store.root.mkdir(exist_ok=True)
        engine = Docker(store, layers, Buildx(**place), limits=Limits(**limits), fresh=fresh)
        assert engine.available() is None
        return Box(store, engine)

    return make


@pytest.mark.docker
@needs_root
def test_a_task_sees_its_environment_results_and_inputs_and_gives_its_output(
    make_box: Callable[..., Box], tmp_path: Path
) -> None:
    box = make_box()
    key = a_segment(box.store, "e", {"opt/env/bin/tool": b"#!/bin/bash\necho tool\n"})
    needed = box.store.path_of(box.store.add(tar_of(folder("d"), file("d/f", b"needed")).getvalue()))
    source = tmp_path / "source"
    source.write_bytes(b"input")
    script = (
        "set -e; cat /cregraph/in/source-1.0; cat /lib2/d/f; /opt/env/bin/tool; "
        "mkdir $OUT/x; cp /cregraph/in/* $OUT/x; ln -s x $OUT/y"
    )
    salt = {"SALT": os.urandom(8).hex()}  # BuildKit has not seen it
    one = a_task(script=script, environment=(key,), results={"f" * 64: "/lib2"}, env=salt)
    one = Task(**{**{name: getattr(one, name) for name in Task.__slots__}, "inputs": ("source-1.0",)})
    found = box.run(one, inputs={"source-1.0": source}, results={"f" * 64: needed})
    assert found == {"x": b"/", "x/source-1.0": b"input", "y": b"-> x"}
    assert all(word in box.log.read_text() for word in ("input", "needed", "tool"))
    assert not list((box.store.root / "tmp").iterdir())


@pytest.mark.docker
@needs_root
@pytest.mark.parametrize("name", [HOSTILE[0], HOSTILE[1], HOSTILE[3], HOSTILE[-1]], ids=["run", "from", "variable", "syntax"])
def test_hostile_names_and_paths_are_only_names(make_box: Callable[..., Box], name: str) -> None:
    output = "/an odd/päth #x"
    found = make_box().run(a_task(name, script='printf %s "$V" > "$OUT/v"', env={"V": name}, output=output))
    assert found == {"v": name.encode()}


@pytest.mark.docker
@needs_root
def test_a_failure_tells_its_log_and_is_not_remembered(make_box: Callable[..., Box]) -> None:
    box = make_box()
    with pytest.raises(TaskFailed, match="its command ended with exit status 7"):
        box.run(a_task(script="echo words; echo more >&2; exit 7"))
    assert box.log.read_text().endswith("words\nmore\n")
    with pytest.raises(CregraphError, match=r"task probe \(stage test\) failed \(exit 7, after \d+ s\)(.|\n)*\| words"):
        run_tasks([a_task(script="echo words; exit 7")], store=box.store, engine=box.engine, artifact=lambda _: Path())
    short = make_box(seconds=1)
    with pytest.raises(TaskFailed, match="it ran longer than 1 s"):
        short.run(a_task(script="sleep 2; echo done > $OUT/x"))
    assert box.run(a_task(script="sleep 2; echo done > $OUT/x")) == {"x": b"done\n"}, "a larger limit is a repaired machine"


@pytest.mark.docker
@needs_root
def test_a_log_longer_than_buildkit_passes_on_hides_no_verdict(make_box: Callable[..., Box]) -> None:
    """It drops what a step prints too fast, and more than 2 MiB: the report goes another way, and the log says so."""
    box = make_box()
    with pytest.raises(TaskFailed, match="exit status 9"):
        box.run(a_task(script="for i in {1..6000}; do echo $LINE; done; exit 9", env={"LINE": "x" * 1000}))
    assert "lines may be missing here" in box.log.read_text().splitlines()[-1]


@pytest.mark.docker
@needs_root
def test_undeclared_writes_are_refused_by_name_and_the_network_is_not_there(make_box: Callable[..., Box]) -> None:
    box = make_box()
    with pytest.raises(Undeclared) as caught:
        box.run(a_task(script="echo x > $OUT/x; echo y > /opt/stray; rm /etc/group"))
    assert caught.value.changes == ("deleted /etc/group", "wrote /opt/stray")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        found = box.run(
            a_task(script=f"(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; echo $? > $OUT/host; ls /sys/class/net > $OUT/net")
        )
    assert found == {"host": b"1\n", "net": b"lo\n"}


@pytest.mark.docker
@needs_root
def test_buildkits_own_cache_serves_a_key_again_and_fresh_does_not_ask_it(make_box: Callable[..., Box]) -> None:
    one = a_task(script="cat /proc/sys/kernel/random/uuid > $OUT/x", env={"SALT": os.urandom(8).hex()})
    first = make_box().run(one)
    box = make_box()
    assert box.run(one) == first
    assert "BuildKit had this result" in box.log.read_text()
    assert make_box(fresh=True).run(one) != first


@pytest.mark.docker
@needs_root
@pytest.mark.parametrize("place", ["containerd", *(["builder"] if BUILDER else [])], indirect=True)
def test_an_environment_goes_to_the_builder_once(make_box: Callable[..., Box]) -> None:
    box = make_box()
    data = os.urandom(3 << 20)
    core = a_segment(box.store, "a", {"opt/env/big": data})
    extra = a_segment(box.store, "b", {"opt/env/small": b"small"})
    tasks = [
        a_task("one", "cp /opt/env/big $OUT", environment=(core,)),
        a_task("two", "cp /opt/env/* $OUT", environment=(core, extra)),
    ]
    for preparation in box.engine.ahead([*tasks, tasks[0]]):
        preparation.make()
    big = max(box.engine.sent.items(), key=lambda pair: pair[1])
    assert big[1] >= 3 << 20
    before = dict(box.engine.sent)
    for one in tasks:
        assert box.run(one)["big"] == data
    assert box.engine.sent[big[0]] == before[big[0]]
    assert sum(box.engine.sent.values()) - sum(before.values()) < 1 << 20


@pytest.mark.docker
@needs_root
def test_stop_ends_what_runs_at_once_and_leaves_nothing(make_box: Callable[..., Box]) -> None:
    box = make_box()
    mark = f"30{os.getpid()}.{secrets.randbelow(10**6)}"
    ended: list[BaseException] = []

    def perform() -> None:
        try:
            box.run(a_task(script=f"sleep {mark}"))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=perform)
    thread.start()
    soon(lambda: alive(mark))  # else the engine is on another machine, or the task did not begin
    box.engine.stop()
    thread.join(GENEROUS)
    assert [type(error) for error in ended] == [Stopped]
    soon(lambda: not alive(mark))
    assert not list((box.store.root / "tmp").iterdir())
    with pytest.raises(Stopped):
        box.run(a_task())


# -- the test environment


def forgotten(built: RealProject, folder: Path, names: set[str]) -> RealProject:
    """The project with a store of its own that has everything but the results of these tasks and all that was made of them."""
    project = RealProject.make(folder, built.environment)
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, project.folder / name)
    cache = Path(project.env["CREGRAPH_CACHE"])
    left_out = shutil.ignore_patterns("tmp", "locks", "*-trees", "roots", "environments", "layers", "images")
    shutil.copytree(built.env["CREGRAPH_CACHE"], cache, copy_function=os.link, ignore=left_out)
    plan = planned(project)
    gone = {one.key for one in plan.tasks if one.name in names}
    assert len(gone) == len(names)
    for key in gone:
        (cache / "tasks" / key[:2] / f"{key}.json").unlink()
    for segment in plan.segments.values():
        if segment.task_key in gone:
            (cache / "segments" / segment.key[:2] / f"{segment.key}.json").unlink()
    return project


def planned(project: RealProject) -> Plan:
    lock = locks.loads(project.lock.read_text(), name="team.lock.json", kinds=KINDS)
    return make_plan(lock, Project.of(str(project.folder / "team.yaml")).facts(lock.base))


@pytest.mark.docker
@pytest.mark.environment
def test_one_lock_gives_one_digest_whichever_engine_compiles(built: RealProject, tmp_path: Path) -> None:
    """A cold store; every R package and sdist compiled as a stage of BuildKit."""
    expected = built.ok("build", "team.yaml").out
    project = RealProject.make(tmp_path / "p", built.environment)
    for name in ("locks", "bases"):
        shutil.copytree(built.folder / name, project.folder / name)
    done = project.ok("build", "team.yaml", "--engine", "docker")
    assert done.out == expected
    assert "tasks: 13 run, 0 reused" in done.err


#: C, a package that needs another and C++, and a wheel of an sdist.
SOME = {"bitops", "caTools", "rpy2-rinterface"}


@pytest.mark.docker
@pytest.mark.environment
@pytest.mark.parametrize("where", ["--context", "--builder", *(["remote"] if BUILDER else [])])
def test_other_engines_and_builders_give_it_too(built: RealProject, tmp_path: Path, where: str) -> None:
    """An engine of the classic store, by its context and as a builder; a BuildKit of its own."""
    project = forgotten(built, tmp_path / "p", SOME)
    env: dict[str, str] = {}
    if where == "remote":
        words = ("--builder", BUILDER)
    else:
        if not CLASSIC:
            pytest.skip("no engine with the classic store: CREGRAPH_TEST_CLASSIC_HOST not set")
        env = settings_with_context("elsewhere", CLASSIC, tmp_path / "docker")
        words = ("--context", "elsewhere")
    if where == "--builder":
        wrong = project.run("build", "team.yaml", "--builder", "elsewhere", env=env)
        assert (wrong.code, "`elsewhere` is a context: write `--context elsewhere`" in wrong.err) == (2, True), wrong.err
        env, words = {"DOCKER_HOST": CLASSIC}, ("--builder", "default")
    done = project.ok("build", "team.yaml", *words, env=env)
    assert f"tasks: {len(SOME)} run, {13 - len(SOME)} reused" in done.err
    assert done.out == built.ok("build", "team.yaml").out


def settings_with_context(name: str, host: str, folder: Path) -> dict[str, str]:
    """Docker's settings in a folder of their own, with the user's plugins and one context."""
    users = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    folder.mkdir()
    if (users / "cli-plugins").is_dir():
        (folder / "cli-plugins").symlink_to(users / "cli-plugins")
    env = {"DOCKER_CONFIG": str(folder)}
    done = subprocess.run(
        ["docker", "context", "create", name, "--docker", f"host={host}"],
        env={**os.environ, **env},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return env
