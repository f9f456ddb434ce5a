"""A new kind is one module, one recipe and one entry in MODULES: everything else works with a kind that it does not know.

The kind is tests/toy/leaves.py. Commands run as users run them, in processes that register the kind first.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cregraph.engines import choice
from cregraph.kinds import KINDS, MODULES
from cregraph.kinds.base import Kind
from cregraph.store import Store
from tests import sandbox_root
from tests.made_images import LIBC, Made, entry, folder, layout, tar
from tests.real_project import Done
from tests.toy import leaves

TOY = Path(leaves.__file__)
PROGRAM = (
    f"from cregraph.kinds import MODULES; MODULES[{leaves.NAME!r}] = {leaves.__name__!r}; from cregraph.cli import main; main()"
)
PROFILE = """\
with: [base, toy]
without: [snowbooks, micromamba, r, cran, tarballs, adbc, python, hook]
cre: {name: toy, image: toy, tag: v1}
toy: {leaves: [oak, "elm >=2"]}
"""
BASE = """\
recipe: base
about: The image that tasks run over is the base.
steps:
  - image: {reference: "oci:base"}
"""
#: Oak lies on elm and ash, ash on moss.
INDEX = "oak 1 elm,ash\noak 2 elm,ash\nelm 1 -\nelm 2 -\nash 7 moss\nmoss 3 -\nyew 1 -\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the toy's recipe, an index and a base whose tools run tasks. Not locked."""
    here = tmp_path_factory.mktemp("toy") / "project"
    (here / "recipes").mkdir(parents=True)
    (here / "toy.yaml").write_text(PROFILE)
    (here / "recipes/base.yaml").write_text(BASE)
    shutil.copy(TOY.with_name("toy.yaml"), here / "recipes/toy.yaml")
    (here / "sources.yaml").write_text("url: {'https://leaves.invalid/': ./leaves/}\n")
    (here / "leaves").mkdir()
    grow(here, INDEX)
    tools = tar(folder("./"), entry("usr/lib/libc.so.6", LIBC)) if sandbox_root.missing() else sandbox_root.layer()
    layout(here / "base", Made(tools, tar(entry("etc/os-release", b"ID=toy\n"))))
    return here


def grow(here: Path, index: str) -> None:
    (here / "leaves/INDEX").write_text(index)
    for name, version, _ in (line.split() for line in index.splitlines()):
        (here / f"leaves/{name}-{version}.leaf").write_text(f"vein of {name}\nblade of {name} {version}\n")


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def run(here: Path, *words: str, code: int = 0, env: Mapping[str, str] | None = None) -> Done:
    whole = {**os.environ, "CREGRAPH_CACHE": str(here / "cache"), **(env or {})}
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=here, env=whole, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    return Done(ended.returncode, ended.stdout, ended.stderr)


def pins(here: Path) -> dict[str, str]:
    targets = json.loads((here / "locks/toy.lock.json").read_text())["targets"]
    return {pin["name"]: pin["version"] for target in targets if target["kind"] == leaves.NAME for pin in target["pins"]}


def build(here: Path, *words: str) -> Done:
    why = sandbox_root.missing() or choice.reasons("native", store=Store(here / "cache"))["native"]
    if why is not None:
        pytest.skip(f"no sandbox here: {why}")
    return run(here, "build", "toy.yaml", "--engine", "native", "--output", "oci:image", *words)


def in_image(here: Path, path: str) -> str:
    """The text of a file in the assembled image."""
    import gzip
    import io
    import tarfile

    manifest = json.loads(blob(here, json.loads((here / "image/index.json").read_text())["manifests"][0]["digest"]))
    for layer in reversed(manifest["layers"]):
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(here, layer["digest"])))) as archive:
            found = next((member for member in archive if member.name == path), None)
            if found is not None:
                file = archive.extractfile(found)
                assert file is not None
                return file.read().decode()
    raise AssertionError(f"{path} is not in the image")


def blob(here: Path, digest: str) -> bytes:
    return (here / "image/blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


# -- the proof that nothing knows it


def test_nothing_in_the_package_knows_the_toy() -> None:
    package = Path(choice.__file__).parents[1]
    assert [str(path) for path in package.rglob("*.py") if re.search(r"\btoy\b", path.read_text())] == []
    assert leaves.NAME not in MODULES


def test_an_entry_in_modules_registers_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        KINDS[leaves.NAME]
    monkeypatch.setitem(MODULES, leaves.NAME, leaves.__name__)
    module: Kind = KINDS[leaves.NAME]
    assert module.NAME == list(KINDS)[-1] == leaves.NAME


def test_a_project_that_does_not_register_it_is_told_which_kinds_there_are(project: Path) -> None:
    env = {**os.environ, "CREGRAPH_CACHE": str(project / "cache")}
    ended = subprocess.run(
        [sys.executable, "-m", "cregraph", "lock", "toy.yaml"], cwd=project, env=env, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "recipes/toy.yaml" in ended.stderr and "`toy`" in ended.stderr and "Traceback" not in ended.stderr


# -- lock


def test_a_lock_holds_the_closure_by_the_kinds_own_rule_and_is_fresh(project: Path) -> None:
    run(project, "lock", "toy.yaml")

    assert pins(project) == {"ash": "7", "elm": "2", "moss": "3", "oak": "2"}
    assert run(project, "lock", "toy.yaml", "--check").code == 0


def test_a_locked_leaf_stays_until_an_upgrade_frees_it(project: Path) -> None:
    run(project, "lock", "toy.yaml")
    grow(project, INDEX + "oak 9 -\nmoss 4 -\n")

    (project / "toy.yaml").write_text(PROFILE.replace("[oak", "[yew, oak"))
    said = run(project, "lock", "toy.yaml", "--check", code=1)
    assert "`yew` was added" in said.out + said.err
    run(project, "lock", "toy.yaml")
    assert pins(project) == {"ash": "7", "elm": "2", "moss": "3", "oak": "2", "yew": "1"}

    run(project, "lock", "toy.yaml", "--upgrade-package", "moss")
    assert pins(project)["moss"] == "4" and pins(project)["oak"] == "2"
    run(project, "lock", "toy.yaml", "--upgrade")
    assert pins(project) == {"elm": "2", "oak": "9", "yew": "1"}


def test_a_leaf_that_nobody_has_is_refused_with_the_line_of_the_profile(project: Path) -> None:
    (project / "toy.yaml").write_text(PROFILE.replace("oak", "fern"))
    assert "toy.yaml:4: toy.leaves[0] asks for `fern`" in run(project, "lock", "toy.yaml", code=2).err
    (project / "toy.yaml").write_text(PROFILE.replace("oak", "Oak!"))
    assert "toy.yaml:4: toy.leaves[0]: `Oak!` is not a leaf" in run(project, "lock", "toy.yaml", code=2).err


@pytest.mark.parametrize("gone", ["ash", "oak", "moss"])
def test_a_pin_that_a_merge_lost_is_noticed(project: Path, gone: str) -> None:
    run(project, "lock", "toy.yaml")
    lock = project / "locks/toy.lock.json"
    text = lock.read_text()
    line = next(line for line in text.splitlines() if f'"name": "{gone}"' in line)
    lock.write_text(text.replace(line, "").replace(",\n\n\n\n]", "\n\n]") if text.count(line) else text)

    said = run(project, "lock", "toy.yaml", "--check", code=1)
    assert f"`{gone}`" in said.out + said.err
    run(project, "lock", "toy.yaml")
    assert lock.read_text() == text


# -- plan, build, diff, why


def test_a_plan_says_why_a_leaf_is_dried_again(project: Path) -> None:
    run(project, "lock", "toy.yaml")
    first = run(project, "plan", "toy.yaml", "--json").json
    assert first["key"] == run(project, "plan", "toy.yaml", "--json").json["key"]
    assert json.dumps(first).count('"subject": "task"') == 4

    before = (project / "locks/toy.lock.json").read_text()
    grow(project, INDEX + "moss 4 -\n")
    run(project, "lock", "toy.yaml", "--upgrade-package", "moss")
    after = (project / "locks/toy.lock.json").read_text()
    (project / "old.json").write_text(before)
    diff = run(project, "diff", "old.json", "locks/toy.lock.json", code=1)
    assert [line for line in diff.out.splitlines() if line.startswith("toy")] == ["toy      moss                     3 -> 4"]
    assert [a for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b and '"moss"' not in a] == []
    assert run(project, "plan", "toy.yaml", "--json").json["key"] != first["key"]


def test_why_names_every_path_to_a_leaf(project: Path) -> None:
    run(project, "lock", "toy.yaml")

    said = run(project, "why", "moss", "toy.yaml").out
    assert "oak" in said and "ash" in said and "toy.yaml" in said


def test_leaves_are_built_over_each_other_and_found_in_the_image(project: Path) -> None:
    run(project, "lock", "toy.yaml")
    first = build(project).out

    assert in_image(project, "opt/leaves/oak/leaf") == "oak 2\nelm 2\nash 7\nblade of oak 2\nvein of oak\n"
    assert in_image(project, "opt/leaves/ash/leaf") == "ash 7\nmoss 3\nblade of ash 7\nvein of ash\n"
    carried = json.loads(in_image(project, "opt/cregraph/lock.json"))
    assert [pin["name"] for pin in carried["targets"]["toy:/opt/leaves"]["pins"]] == ["ash", "elm", "moss", "oak"]
    shutil.rmtree(project / "cache")
    shutil.rmtree(project / "image")
    assert build(project).out == first  # a cold store, the same digest

    grow(project, INDEX.replace("yew", "fir") + "elm 3 -\n")
    run(project, "lock", "toy.yaml", "--upgrade-package", "elm")
    again = build(project)
    assert in_image(project, "opt/leaves/oak/leaf").splitlines()[1] == "elm 3"
    assert "moss" not in again.err  # only what changed, and what lies on it


# -- verify and vendor


def test_an_image_is_verified_against_its_lock(project: Path) -> None:
    run(project, "lock", "toy.yaml")
    build(project)
    assert run(project, "verify", "oci:image", "toy.yaml").code == 0

    grow(project, INDEX + "elm 3 -\n")
    run(project, "lock", "toy.yaml", "--upgrade-package", "elm")
    said = run(project, "verify", "oci:image", "toy.yaml", code=1)
    assert "elm" in said.out and "2" in said.out and "3" in said.out


def test_a_vendor_folder_builds_and_locks_without_the_index(project: Path) -> None:
    run(project, "lock", "toy.yaml")
    run(project, "vendor", "vendored", "toy.yaml")
    first = build(project).out
    for gone in ("cache", "image", "leaves"):
        shutil.rmtree(project / gone)
    lock = (project / "locks/toy.lock.json").read_text()

    env = {"CREGRAPH_SOURCES": str(project / "vendored/sources.yaml")}
    assert run(project, "build", "toy.yaml", "--engine", "native", "--output", "oci:image", env=env).out == first
    (project / "locks/toy.lock.json").unlink()
    run(project, "lock", "toy.yaml", env=env)
    assert (project / "locks/toy.lock.json").read_text() == lock
