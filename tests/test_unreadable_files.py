"""Files of a project that cannot be read: each named, with its reason, and nothing touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import (
    Demo,
    refused,
)


def _huge(path: Path) -> None:
    path.write_bytes(b"cre: {}\n" * 140_000)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _links(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "not-utf-8": (
        lambda p: p.write_bytes(b"cre:\n  name: caf\xe9\n"),
        "error: `demo.yaml` cannot be read: it is not UTF-8 (byte 16)\n",
    ),
    "binary": (
        lambda p: p.write_bytes(bytes(range(32)) * 8),
        "error: demo.yaml:1: invalid YAML: a character that YAML does not allow\n",
    ),
    "a-folder": (
        _folder,
        "error: demo.yaml/cregraph.yaml: the profile does not exist\nhint: name a profile: cregraph COMMAND my_team.yaml\n",
    ),
    "missing": (lambda p: p.unlink(), "error: demo.yaml: the profile does not exist\nhint: "),
    "a-link-to-itself": (_links, "error: demo.yaml: the profile does not exist\nhint: "),
    "huge": (_huge, "error: `demo.yaml` is larger than 1 MiB\n"),
    "closed": (lambda p: p.chmod(0), "error: `demo.yaml` cannot be read: Permission denied\n"),
    "empty": (
        lambda p: p.write_bytes(b""),
        "error: demo.yaml: the file is empty\nhint: begin with `cre: {tag: v1}`; `cregraph demo` writes one that works\n",
    ),
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_an_unreadable_profile_is_refused_and_its_lock_left_alone(made: Demo, tmp_path: Path, how: str) -> None:
    demo = Demo(folder=tmp_path)
    for name in ("demo.yaml", "sources.yaml"):
        shutil.copy(made.folder / name, tmp_path / name)
    for name in ("locks", "bases"):
        shutil.copytree(made.folder / name, tmp_path / name)
    spoil, message = UNREADABLE[how]
    spoil(tmp_path / "demo.yaml")
    before = demo.lock.read_bytes()
    # root reads everything; without its rights over files of others it is an ordinary user
    prefix = ("unshare", "--user", "--map-user=4242") if how == "closed" and os.geteuid() == 0 else ()
    if prefix and subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    for command in ("lock", "build") if how == "not-utf-8" else ("lock",):
        done = demo.run(command, "demo.yaml", prefix=prefix)
        assert (done.code, done.out) == (2, ""), done.err
        assert done.err.startswith(message), done.err
        assert done.err.count("error: ") == 1
    assert demo.lock.read_bytes() == before


def test_a_profile_in_a_folder_that_is_closed_is_refused(made: Demo, tmp_path: Path) -> None:
    prefix = ("unshare", "--user", "--map-user=4242") if os.geteuid() == 0 else ()
    if prefix and subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    (tmp_path / "closed").mkdir(mode=0)
    done = Demo(folder=tmp_path).run("lock", "closed/demo.yaml", prefix=prefix)
    refused(done, "error: closed/demo.yaml: Permission denied\nhint: make space, change its permissions, or use another path\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sources.yaml", b"\xff", "error: `sources.yaml` cannot be read: it is not UTF-8 (byte 0)\n"),
        ("sources.yaml", b"conda: [", "error: sources.yaml:1: not readable as YAML: "),
        ("locks/demo.lock.json", b"\xff", "error: `locks/demo.lock.json` cannot be read: it is not UTF-8 (byte 0)\nhint: "),
        ("locks/demo.lock.json", b"<<<<<<< ours\n", "error: locks/demo.lock.json:1: git's conflict markers are in the lock"),
        ("locks/demo.lock.json", b"", "error: locks/demo.lock.json:1:1: not readable as JSON: "),
        ("bases/*", b"{}", "error: locks/demo.lock.json: the lock does not answer demo.yaml\n  `bases/"),
        ("bases/*", b"\xff\0", "error: locks/demo.lock.json: the lock does not answer demo.yaml\n  `bases/"),
        ("bases/*", None, "error: locks/demo.lock.json: the lock does not answer demo.yaml\n  `bases/"),
    ],
)
def test_other_files_of_the_project_that_are_unreadable_are_named(
    made: Demo, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    demo = made.copy(tmp_path / "p", cold=True)
    (path,) = demo.folder.glob(name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    done = demo.run("build", "demo.yaml")
    assert (done.code, done.out) == (1 if "does not answer" in message else 2, ""), done.err
    assert done.err.startswith(message), done.err
    assert "\nhint: " in done.err or name == "sources.yaml"
