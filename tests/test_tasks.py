"""Tasks in their order, results kept by key, failures told whole; and the trees that they are run over."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest

from cregraph.build.build_run import Event
from cregraph.digest import sha256
from cregraph.engines.capture import capture
from cregraph.engines.contract import Stopped, TaskFailed, check
from cregraph.engines.extract import extract
from cregraph.engines.flatten import flatten
from cregraph.engines.trees import Trees
from cregraph.errors import CregraphError
from cregraph.lock.pins import Artifact
from cregraph.plan.parts import Task, task
from cregraph.store import Store
from cregraph.store.task_records import log_file, verified_result
from tests.faults import GENEROUS
from tests.task_runs import run_tasks

CAUSE = "x.c:1:10: fatal error: nlopt.h: No such file or directory"


class Shop:
    """An engine that runs nothing: a task's result is its name and what it needed, unless its command says otherwise."""

    name = "shop"

    def __init__(self) -> None:
        self.done: list[str] = []
        self.most = 0
        self.slots: set[int] = set()
        self.salt = b""
        self.failed = threading.Event()
        self._busy = 0
        self._guard = threading.Lock()
        self._stopped = threading.Event()

    def ahead(self, tasks: object) -> tuple[()]:
        return ()

    def perform(
        self,
        task: Task,
        *,
        inputs: Mapping[str, Path],
        results: Mapping[str, Path],
        write: Callable[[bytes], object],
        log: Path,
        slot: int,
    ) -> None:
        with self._guard:
            self._busy += 1
            self.most = max(self.most, self._busy)
            assert slot not in self.slots, "two tasks at once have one slot"
            self.slots.add(slot)
        try:
            log.write_text(f"{CAUSE}\n" + "".join(f"line {i} of {task.name}\n" for i in range(1, 31)))
            if self._stopped.wait(GENEROUS if task.argv[0] == "hang" else 0.02):
                raise Stopped
            if task.argv[0] == "late":
                self.failed.wait(GENEROUS)
                time.sleep(0.2)
            if task.argv[0] == "fail":
                write(b"half a res")
                self.failed.set()
                raise TaskFailed("its command ended with exit status 1", hint=f"the way out of {task.name}", status=1)
            self.done.append(task.name)
            write(task.name.encode() + self.salt + b"".join(p.read_bytes() for p in (*inputs.values(), *results.values())))
        finally:
            with self._guard:
                self._busy -= 1
                self.slots.discard(slot)

    def stop(self) -> None:
        self._stopped.set()


def make(name: str, *needs: Task, argv: str = "make", inputs: Mapping[str, Artifact] | None = None) -> Task:
    return task(
        assembly=1,
        kind="test",
        stage="cran",
        name=name,
        root="sha256:" + "0" * 64,
        argv=(argv, name),
        env={},
        output=f"/out/{name}",
        inputs=inputs,
        results={n.key: f"/out/{n.name}" for n in needs},
    )


def nothing(artifact: Artifact) -> Path:
    raise AssertionError(f"{artifact} was asked for")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def run(store: Store, shop: Shop, *tasks: Task, **how: object) -> dict[str, str]:
    return run_tasks(tasks, store=store, engine=shop, artifact=nothing, **how)  # type: ignore[arg-type]


def test_what_is_needed_is_made_before_and_handed_over(store: Store) -> None:
    a = make("a")
    b, c = make("b", a), make("c", a)
    d = make("d", b, c)
    shop = Shop()
    found = run(store, shop, d, c, b, a, jobs=4)
    assert shop.done[0] == "a" and shop.done[-1] == "d"
    assert shop.most == 2
    data = store.verified(found[d.key]).read_bytes()
    assert sorted(data.decode()) == sorted("d" + "ba" + "ca")
    assert list(found) == [d.key, c.key, b.key, a.key]


def test_no_more_than_jobs_run_at_once(store: Store) -> None:
    shop = Shop()
    run(store, shop, *(make(f"t{i}") for i in range(9)), jobs=3)
    assert shop.most == 3


def test_a_result_is_kept_by_key_and_its_bytes_are_checked_before_use(store: Store) -> None:
    a = make("a")
    b = make("b", a)
    first = run(store, Shop(), a, b)
    again = Shop()
    events: list[Event] = []
    assert run(Store(store.root), again, a, b, on_event=events.append) == first
    assert again.done == []
    assert [(e.what, e.name) for e in events] == [("reused", "a"), ("reused", "b")]
    flipped = store.path_of(first[a.key])
    flipped.chmod(0o644)
    flipped.write_bytes(b"X" + flipped.read_bytes()[1:])
    later = Store(store.root)
    assert verified_result(later, a.key) is None
    assert run(later, again, a, b) == first
    assert again.done == ["a"]


def test_records_hold_no_time_and_history_does(store: Store) -> None:
    a = make("a")
    found = run(store, Shop(), a)
    assert store.record("tasks", a.key) == {"sha256": found[a.key], "size": 1}
    assert set(store.record("history", a.key)) == {"seconds"}


def test_a_task_that_gives_another_result_for_its_key_is_refused(store: Store) -> None:
    a = make("a")
    before = run(store, Shop(), a)[a.key]
    store.path_of(before).unlink()
    shop = Shop()
    shop.salt = b" and the time of day"
    after = sha256(b"a and the time of day")
    with pytest.raises(CregraphError) as error:
        run(Store(store.root), shop, a)
    assert f"it gave sha256:{after}, and before sha256:{before} for the same key" in error.value.message
    assert store.record("tasks", a.key)["sha256"] == before


def test_a_failure_is_told_whole(store: Store) -> None:
    bad = make("bad 1.0", argv="fail")
    child = make("child", bad)
    grandchild = make("grandchild", child)
    other, last = make("other", argv="late"), make("last")
    shop = Shop()
    events: list[Event] = []
    with pytest.raises(CregraphError) as error:
        run(store, shop, bad, child, grandchild, other, last, jobs=2, on_event=events.append)
    log = log_file(store, bad)
    assert log.stat().st_mode & 0o777 == 0o600, "a log may show what nobody else should read"
    lines = "\n".join(f"  | line {i} of bad 1.0" for i in range(11, 31))
    assert error.value.message == (
        "task bad 1.0 (stage cran) failed (exit 1, after 0 s)\n"
        f"  | {CAUSE}\n  | …\n{lines}\n  the full log is {log}\n"
        "skipped because of it: child, grandchild\n"
        "not begun: last"
    )
    kept_going = "finished results are kept; use `--keep-going` to run the tasks that were not begun"
    assert error.value.hint == f"the way out of bad 1.0\n{kept_going}"
    assert log.name == f"bad_1.0-{bad.key[:12]}.log"
    assert log.read_text().startswith(f"{CAUSE}\nline 1 of")
    assert shop.done == ["other"]  # it ran already, and is kept
    assert verified_result(store, other.key) and verified_result(store, bad.key) is None
    assert ("failed", "bad 1.0") in [(e.what, e.name) for e in events]
    assert list((store.root / "tmp").iterdir()) == []


def test_keep_going_makes_all_that_does_not_need_the_failed_one(store: Store) -> None:
    bad = make("bad", argv="fail")
    shop = Shop()
    with pytest.raises(CregraphError) as error:
        run(store, shop, bad, make("child", bad), make("x"), make("y"), make("worse", argv="fail"), keep_going=True)
    assert shop.done == ["x", "y"]
    assert "task bad " in error.value.message and "task worse " in error.value.message
    assert error.value.message.endswith("skipped because of it: child")


def test_a_log_cannot_command_the_terminal(store: Store) -> None:
    bad = make("bad", argv="fail")
    log_file(store, bad).parent.mkdir(parents=True)

    class Loud(Shop):
        def perform(self, task: Task, *, log: Path, **how: object) -> None:  # type: ignore[override]
            log.write_bytes(b"\x1b]0;owned\x07\xff red\n")
            raise TaskFailed("no")

    with pytest.raises(CregraphError) as error:
        run(store, Loud(), bad)
    assert "\x1b" not in error.value.message and r"  | \x1b]0;owned\x07" in error.value.message


def test_an_interrupt_ends_what_runs_and_leaves_nothing(store: Store) -> None:
    def interrupt(event: Event) -> None:
        if event.what == "begin" and event.name == "slow":
            raise KeyboardInterrupt

    shop = Shop()
    with pytest.raises(KeyboardInterrupt):
        run(store, shop, make("slow", argv="hang"), make("slow too", argv="hang"), jobs=2, on_event=interrupt)
    assert shop.done == []
    assert list((store.root / "tmp").iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("task-")]


def test_a_result_that_is_lost_while_it_is_needed_is_named_and_nothing_is_made_of_it(store: Store) -> None:
    a = make("a")
    b = make("b", a)
    store.path_of(run(store, Shop(), a)[a.key]).unlink()
    shop = Shop()
    with pytest.raises(CregraphError, match=f"the result of task {a.key[:12]} was removed from the store") as error:
        run(Store(store.root), shop, b)
    assert shop.done == []
    assert "task b (stage cran) failed: " in error.value.message


def test_two_builds_at_once_make_a_task_once(store: Store) -> None:
    shop = Shop()
    tasks = [make(f"t{i}") for i in range(5)]
    answers: list[dict[str, str]] = []
    both = [threading.Thread(target=lambda: answers.append(run(Store(store.root), shop_of(shop), *tasks))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(shop.done) == [f"t{i}" for i in range(5)]
    assert answers[0] == answers[1]


def shop_of(shop: Shop) -> Shop:
    """Another engine, with slots of its own, that writes into the same book."""
    other = Shop()
    other.done = shop.done
    return other


def test_artifacts_are_handed_over_by_the_names_that_the_task_gives_them(store: Store, tmp_path: Path) -> None:
    def artifact(file: str, text: str) -> Artifact:
        (tmp_path / sha256(text.encode())).write_text(text)
        return Artifact(kind="r", source="cran", file=file, sha256=sha256(text.encode()), size=1)

    one, two = artifact("src/contrib/a_1.tar.gz", "1"), artifact("other/a_1.tar.gz", "2")
    good = make("good", inputs={"second": two, "first": one})
    assert (good.inputs, good.artifacts) == (("first", "second"), (one, two))
    found = run_tasks([good], store=store, engine=Shop(), artifact=lambda a: tmp_path / a.sha256)
    assert store.verified(found[good.key]).read_bytes() == b"good12"


def test_a_key_covers_names_and_bytes_of_inputs_and_nothing_of_where_they_came_from() -> None:
    def keyed(name: str, sha256: str = "1" * 64, source: str = "cran", file: str = "2025-06-01/a_1.tar.gz") -> str:
        artifact = Artifact(kind="r", source=source, file=file, sha256=sha256, size=1)
        return make("one", inputs={name: artifact}).key

    assert keyed("source") == keyed("source", source="https://dl.example/get/", file="")
    assert keyed("source") == keyed("source", file="2026-01-01/a_1.tar.gz")
    assert len({keyed("source"), keyed("other"), keyed("source", "2" * 64)}) == 3


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "-x", "a b", "a\nb", "a\0b", "*", "x" * 256])
def test_an_input_without_a_plain_name_is_refused(name: str) -> None:
    artifact = Artifact(kind="url", source="https://dl.example/get/", file="", sha256="1" * 64, size=1)

    with pytest.raises(CregraphError, match="is not the name of an input"):
        check(make("one", inputs={name: artifact}))


# Results and trees


def test_the_form_of_a_result_is_fixed(tmp_path: Path) -> None:
    """Its digest stands in locks' outputs: another one means another assembly."""
    (tmp_path / "R").mkdir()
    (tmp_path / "R/pkg.rdb").write_bytes(bytes(range(256)) * 5)
    (tmp_path / ("n" * 120 + "-\u00e9")).write_text("long")
    (tmp_path / "run").write_text("#!/bin/sh\n")
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "link").symlink_to("R/pkg.rdb")
    out = io.BytesIO()
    capture(tmp_path, out.write, at="/out", limit=1 << 20)
    assert sha256(out.getvalue()) == "13e2ccc14719b4df2c0e027604dc38b3a51d72dd7afab848bff309ea0b35a8d7"


def tar_of(*entries: tuple[str, bytes, dict[str, object], bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, more, data in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime = kind, len(data), 1_000_000_000
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def file(name: str, data: bytes = b"", **more: object) -> tuple[str, bytes, dict[str, object], bytes]:
    return name, tarfile.REGTYPE, more, data


def folder(name: str, **more: object) -> tuple[str, bytes, dict[str, object], bytes]:
    return name, tarfile.DIRTYPE, {"mode": 0o755, **more}, b""


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[str, bytes, dict[str, object], bytes]:
    return name, kind, {"linkname": to}, b""


def again(layers: Iterable[io.BytesIO]) -> Iterator[IO[bytes]]:
    for layer in layers:
        layer.seek(0)
        yield layer


def unpacked(into: Path, *layers: io.BytesIO) -> dict[str, str]:
    into.mkdir()
    plain = io.BytesIO()
    flatten(lambda: again(layers), plain.write, title="the image")
    plain.seek(0)
    extract(plain, into, title="the image")
    found = {}
    for path in sorted(into.rglob("*")):
        name = str(path.relative_to(into))
        found[name] = f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return found


def test_later_layers_replace_and_whiteouts_delete_what_earlier_ones_gave(tmp_path: Path) -> None:
    first = tar_of(folder("a"), file("a/one", b"1"), file("a/two", b"2"), folder("b"), file("b/x", b"x"), file("c", b"c"))
    second = tar_of(
        file("a/.wh.one"),
        file("a/two", b"22"),
        file("b/new", b"n"),
        file("b/.wh..wh..opq"),
        folder("c"),
        file("c/d", b"d"),
        file(".wh.gone"),
    )
    assert unpacked(tmp_path / "t", first, second) == {
        "a": "/", "a/two": "22", "b": "/", "b/new": "n", "c": "/", "c/d": "d",
    }  # fmt: skip


def test_a_path_through_a_link_replaces_the_link_and_touches_nothing_behind_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    found = unpacked(tmp_path / "t", tar_of(link("lib", str(outside))), tar_of(file("lib/x", b"x"), file("lib/.wh.kept")))
    assert found == {"lib": "/", "lib/x": "x"}
    assert [p.name for p in outside.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([file("../x")], "`../x` leads out of its folder"),
        ([file("a/../../x")], "leads out"),
        ([link("a", "../../etc/passwd", tarfile.LNKTYPE)], "leads out"),
        (
            [link("up", "/etc"), link("a", "up/passwd", tarfile.LNKTYPE)],
            "the hard link `a` to `up/passwd`, which it does not hold",
        ),
        ([link("a", "nowhere", tarfile.LNKTYPE)], "the hard link `a` to `nowhere`, which it does not hold"),
    ],
)
def test_hostile_layers_are_refused_by_name(
    tmp_path: Path, entries: list[tuple[str, bytes, dict[str, object], bytes]], words: str
) -> None:
    with pytest.raises(CregraphError) as error:
        unpacked(tmp_path / "t", tar_of(*entries))
    assert words in error.value.message


def test_a_truncated_layer_is_refused(tmp_path: Path) -> None:
    whole = tar_of(file("x", b"x" * 5000)).getvalue()
    with pytest.raises(CregraphError, match="the image: ends in the middle of a file"):
        unpacked(tmp_path / "t", io.BytesIO(whole[:2000]))


@pytest.mark.parametrize(
    "entries",
    [
        [link("lib", "/etc"), file("lib/x")],
        [link("lib", "/etc"), file("lib")],
        [file("a"), file("a/b")],
        [folder("a"), link("a", "b")],
        [link("up", "/etc"), link("a", "up/passwd", tarfile.LNKTYPE)],
        [folder("a"), link("b", "a", tarfile.LNKTYPE)],
    ],
)
def test_a_result_that_names_a_path_twice_or_behind_a_link_is_refused(
    tmp_path: Path, entries: list[tuple[str, bytes, dict[str, object], bytes]]
) -> None:
    with pytest.raises(CregraphError, match="the result cannot be unpacked: `"):
        extract(tar_of(*entries), tmp_path, title="the result", at="/out")


def test_names_are_bytes_modes_are_kept_and_devices_and_set_id_bits_are_not(tmp_path: Path) -> None:
    entries = [
        folder("ro", mode=0o555), file("ro/a", b"a", mode=0o4711), file("b\udcff", b"b"),
        ("null", tarfile.CHRTYPE, {}, b""), ("fifo", tarfile.FIFOTYPE, {}, b""),
        link("ro/c", "ro/a", tarfile.LNKTYPE), link("ro/d", "/etc/passwd"),
    ]  # fmt: skip
    top = tmp_path / "t"
    unpacked(top, tar_of(*entries))
    assert sorted(os.fsencode(p.name) for p in top.iterdir()) == [b"b\xff", b"ro"]
    assert [(top / p).lstat().st_mode & 0o7777 for p in ("ro", "ro/a")] == [0o555, 0o711]
    assert (top / "ro/c").lstat().st_ino == (top / "ro/a").lstat().st_ino
    assert (top / "ro/d").readlink() == Path("/etc/passwd")
    assert {(top / p).lstat().st_mtime for p in ("ro", "ro/a", "ro/d")} == {1_000_000_000}
    assert (top / "ro/a").lstat().st_uid == os.geteuid()


def trees_of(store: Store, segments: Mapping[str, Mapping[str, bytes]], root: io.BytesIO, unpackings: list[str]) -> Trees:
    def layers(_digest: str) -> Iterator[IO[bytes]]:
        root.seek(0)
        unpackings.append("root")
        yield root

    def unpack(key: str, into: Path) -> None:
        unpackings.append(key)
        for path, data in segments[key].items():
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            (into / path).write_bytes(data)

    return Trees(store, layers=layers, unpack=unpack)


def test_environments_share_their_segments_files_and_are_made_once(store: Store) -> None:
    unpackings: list[str] = []
    trees = trees_of(
        store, {"k1": {"e/a": b"a", "e/both": b"s"}, "k2": {"e/b": b"b", "e/both": b"s"}, "k3": {}}, tar_of(), unpackings
    )
    first = trees.environment(["k2", "k1"])
    second = trees.environment(["k1", "k3"])
    assert trees.environment(("k1", "k2")) == first
    assert unpackings == ["k1", "k2", "k3"]
    assert sorted(p.name for p in (first / "e").iterdir()) == ["a", "b", "both"]
    assert (first / "e/a").stat().st_ino == (second / "e/a").stat().st_ino
    assert {p.lstat().st_mtime for p in first.rglob("*")} == {315532800}


def test_two_owners_of_a_path_in_one_environment_are_refused(store: Store) -> None:
    trees = trees_of(store, {"k1": {"e/a": b"1"}, "k2": {"e/a": b"2"}}, tar_of(), [])
    with pytest.raises(CregraphError, match="two packages of one environment own `/e/a` with different content"):
        trees.environment(["k1", "k2"])
    assert list((store.root / "tmp").iterdir()) == []


def test_a_needed_folder_over_a_link_of_the_root_is_refused(store: Store) -> None:
    trees = trees_of(
        store, {"k1": {"usr/lib/x": b"x"}, "k2": {"lib/x": b"x"}}, tar_of(folder("usr/lib"), link("lib", "usr/lib")), []
    )

    def of(key: str) -> Task:
        return task(
            assembly=1, kind="t", stage="t", name="t", root="sha256:0", argv=("x",), env={}, output="/o", environment=(key,)
        )  # fmt: skip

    assert len(trees.below(of("k1"), {})) == 2
    with pytest.raises(CregraphError, match="has a folder /lib, where the build root has a file or symbolic link"):
        trees.below(of("k2"), {})


def test_many_results_are_merged_into_one_tree(store: Store, tmp_path: Path) -> None:
    trees = trees_of(store, {}, tar_of(folder("usr")), [])
    needed = [make(f"n{i}") for i in range(120)]
    tars = {}
    for each in needed:
        data = tar_of(file("DESCRIPTION", each.name.encode())).getvalue()
        tars[each.key] = store.path_of(store.add(data))
    stack = trees.below(make("top", *needed), tars)
    assert len(stack) == 2
    assert (stack[0] / "out/n119/DESCRIPTION").read_text() == "n119"
