"""The store keeps whole objects or none, and notices a changed byte."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cregraph.errors import CregraphError
from cregraph.store import Store
from cregraph.store.atomic_file import write_file


def test_an_object_is_found_under_its_sha256_and_cannot_be_written_to(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.add(b"bytes")
    assert digest == hashlib.sha256(b"bytes").hexdigest()
    assert store.verified(digest).read_bytes() == b"bytes"
    assert store.path_of(digest).stat().st_mode & 0o222 == 0


def test_a_flipped_byte_is_refused_with_both_digests_and_set_aside(tmp_path: Path) -> None:
    digest = Store(tmp_path).add(b"bytes")
    path = Store(tmp_path).path_of(digest)
    path.chmod(0o644)
    path.write_bytes(b"bytez")
    with pytest.raises(CregraphError) as caught:
        Store(tmp_path).verified(digest, "dplyr_1.1.4.tar.gz")
    assert hashlib.sha256(b"bytez").hexdigest() in str(caught.value)
    assert digest in str(caught.value)
    assert str(caught.value).startswith("dplyr_1.1.4.tar.gz")
    assert not path.exists()
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_an_exception_while_writing_keeps_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.writer() as out:
        out.write(b"half")
        raise RuntimeError
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_process_killed_while_writing_leaves_no_object(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cregraph.store import Store\n"
        f"with Store(Path({str(tmp_path)!r})).writer() as out:\n"
        "    out.write(b'x' * 5_000_000); print('half', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not list((tmp_path / "sha256").rglob("*")) if (tmp_path / "sha256").exists() else True


def test_a_tree_is_whole_or_absent(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "a").write_text("a")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.tree("trees", "k" * 64, fail)
    made = store.tree("trees", "k" * 64, lambda folder: (folder / "b").write_text("b") and None)
    assert [p.name for p in made.iterdir()] == ["b"]
    assert store.tree("trees", "k" * 64, fail) == made


def test_names_that_would_climb_never_become_paths(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for bad in ("../" + "a" * 61, "a" * 63, "A" * 64, ""):
        with pytest.raises(ValueError):
            store.path_of(bad)
    for bad in ("../x", "a/b", "", ".x", "a\n"):
        with pytest.raises(ValueError):
            store.record("tasks", bad)


def test_a_record_that_is_not_json_is_as_good_as_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_record("tasks", "key", {"a": 1})
    assert store.record("tasks", "key") == {"a": 1}
    next((tmp_path / "tasks").rglob("*.json")).write_text("{")
    assert store.record("tasks", "key") is None


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    write_file(path, b"old")
    with pytest.raises(TypeError):
        write_file(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["lock.json"]


def test_what_was_in_the_folder_before_it_was_a_stores_is_never_swept(tmp_path: Path) -> None:
    """CREGRAPH_CACHE may name a folder that has a tmp/ of its own."""
    ours = {"tmp": f"12-{'a' * 16}", "partial": "b" * 64}
    for folder, name in ours.items():
        (tmp_path / folder).mkdir()
        for each in (name, "thesis.txt"):
            (tmp_path / folder / each).write_text("x")
            os.utime(tmp_path / folder / each, (1, 1))
    Store(tmp_path).sweep()
    assert {path.name for path in tmp_path.glob("*/*")} == {"thesis.txt"}
    assert len(list(tmp_path.glob("*/*"))) == 2
