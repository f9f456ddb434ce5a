"""Kind `python`: asks, uv over a base that cannot move, sdists and what builds them, keys. The index is a folder made here."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from cregraph.engines import contract
from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.kinds.base import PinContext, PlaceContext
from cregraph.kinds.python import python_kind as python
from cregraph.kinds.python.python_build import build_system
from cregraph.kinds.python.python_pin import wheel_of
from cregraph.lock.base_facts import BaseFacts, PythonFact
from cregraph.lock.pins import Artifact, Pin, Target
from cregraph.plan.parts import Placement
from cregraph.profile.step import Step
from cregraph.sources.configured import ConfiguredSources
from cregraph.sources.downloads import NotThere
from cregraph.sources.pip_settings import Indexes, ordinary
from cregraph.sources.project_files import Local
from cregraph.sources.python_index import File, Found, find_file, locations
from cregraph.sources.routes import Routes
from cregraph.store import Store

R_PREFIX = "/home/jupyter/micromamba/envs/workspace_env"
INTO = "$(snowbooks.python)"
BUILD = {"conda": {"prefix": R_PREFIX, "specs": ["r-base =4.4"], "channels": ["team"]}, "env": {"R_HOME": f"{R_PREFIX}/lib/R"}}


def wheel(name: str, version: str, *requires: str, tag: str = "py3-none-any", extras: Mapping[str, str] | None = None) -> bytes:
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {r}\n" for r in requires)
    for extra, needed in (extras or {}).items():
        metadata += f'Provides-Extra: {extra}\nRequires-Dist: {needed}; extra == "{extra}"\n'
    files = {
        f"{name.replace('-', '_')}/__init__.py": "x = 1\n",
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(text)}\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path, text in {**files, f"{stem}.dist-info/RECORD": record + f"{stem}.dist-info/RECORD,,\n"}.items():
            made.writestr(zipfile.ZipInfo(path), text)
    return out.getvalue()


def sdist(name: str, version: str, *requires: str, pyproject: str | None = None) -> bytes:
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {r}\n" for r in requires)
    files = {"PKG-INFO": info}
    if pyproject is not None:
        files["pyproject.toml"] = pyproject
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{stem}/{path}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(out.getvalue(), mtime=0)


class Index:
    """A simple index in a folder, and a sources that asks it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def wheel(self, name: str, version: str, *requires: str, tag: str = "py3-none-any", **more: Any) -> None:
        self.put(name, f"{name.replace('-', '_')}-{version}-{tag}.whl", wheel(name, version, *requires, tag=tag, **more))

    def sdist(self, name: str, version: str, *requires: str, pyproject: str | None = None) -> None:
        self.put(name, f"{name.replace('-', '_')}-{version}.tar.gz", sdist(name, version, *requires, pyproject=pyproject))

    def put(self, name: str, file: str, data: bytes) -> None:
        folder = self.root / "simple" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
        links = [
            f'<a href="{f.name}#sha256={hashlib.sha256(f.read_bytes()).hexdigest()}">{f.name}</a>'
            for f in sorted(folder.iterdir())
            if f.name != "index.html"
        ]
        (folder / "index.html").write_text("<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>")

    def sources(self, address: str | None = None, *, offline: bool = True) -> ConfiguredSources:
        class Cached(ConfiguredSources):
            uv_cache = self.root / "uv"

        return Cached(
            kinds=KINDS,
            store=Store(self.root / "store"),
            routes=Routes(pypi=(address or (self.root / "simple").as_uri(),)),
            local=Local(project=self.root, shipped=self.root),
            offline=offline,
        )


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(tmp_path)
    made.wheel("tool", "1.0")
    return made


def facts(base: Mapping[str, str] | None = None, *, glibc: str = "2.36", links: Mapping[str, str] | None = None) -> BaseFacts:
    return BaseFacts(
        digest="sha256:" + "0" * 64,
        config={},
        layers=(),
        glibc=glibc,
        users={},
        python=PythonFact(
            version="3.11.2",
            executable="/opt/python/bin/python3.11",
            prefix="/opt/python",
            site_packages="/opt/python/lib/python3.11/site-packages",
            scripts="/opt/python/bin",
            distributions=dict(base or {}),
        ),
        links=dict(links or {}),
    )


def step(*requirements: Any, stage: str = "python", build: Any = None) -> Step:
    where = {"": f"team.yaml:9: {stage}", "build": f"team.yaml:30: {stage}.build"}
    where |= {f"requirements[{i}]": f"team.yaml:{10 + i}: extras.pip[{i}]" for i, _ in enumerate(requirements)}
    fields: dict[str, Any] = {"into": INTO, "requirements": list(requirements)}
    if build is not None:
        fields["build"] = build
    return Step(kind="python", stage=stage, fields=fields, where=where)


def target(*steps: Step) -> Target:
    asks = tuple(ask for one in steps for ask in python.ask(one) if ask.kind == "python")
    return Target(kind="python", place=INTO, asks=asks)


def pinned(index: Index, *steps: Step, base: Mapping[str, str] | None = None, **given: Any) -> Target:
    context = PinContext(project=index.root, shipped=index.root, facts=given.pop("facts", facts(base)), **given)
    return python.pin(target(*steps), index.sources(), context)


def refusal(index: Index, *steps: Step, **given: Any) -> CregraphError:
    with pytest.raises(CregraphError) as caught:
        pinned(index, *steps, **given)
    return caught.value


def versions(found: Target) -> dict[str, str]:
    return {p.name: p.version for p in found.pins}


# --- asks ------------------------------------------------------------------------------------------------------------


def test_a_requirement_has_one_form_however_it_is_written():
    asks = python.ask(
        step("rpy2 >=3.5,<4", "rpy2<4,>= 3.5", "Snowflake_Snowpark.Python[Pandas]", 'x>=1 ; python_version < "3.9"')
    )

    assert [a.what for a in asks] == [
        "rpy2 <4,>=3.5",
        "rpy2 <4,>=3.5",
        "snowflake-snowpark-python[pandas]",
        'x >=1 ; python_version < "3.9"',
    ]
    assert asks[0].target == "python:$(snowbooks.python)"
    assert asks[1].where == "team.yaml:11: extras.pip[1]"


def test_a_build_asks_conda_for_the_interpreter_that_the_base_has():
    asks = python.ask(step("tool", build=BUILD))

    assert asks[1].what == {"build": {"conda": {"prefix": R_PREFIX, "specs": ["r-base =4.4"]}, "env": BUILD["env"]}}
    assert (asks[2].kind, asks[2].target, asks[2].what) == (
        "conda",
        "conda:/cregraph/python",
        "python =$(snowbooks.python.minor)",
    )
    assert asks[2].options == {"channels": ["team"]}
    assert all(a.options == {} for a in asks[:2])  # a recipe without `build` may fill the same interpreter


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (3, "`3` is not a requirement (expected a text such as `scikit-learn>=1.3,<2`)"),
        ("tool==", None),
        ("-r more.txt", "`-r more.txt` is a file, an address or an option of pip; write the name of a package"),
        ("./tool-1.0-py3-none-any.whl", None),
        ("git+https://x.example/a", None),
        ("tool @ https://x.example/t", "`tool @ https://x.example/t` names an address; write the name of a package"),
    ],
)  # fmt: skip
def test_what_is_no_requirement_by_name_is_refused_with_its_line(text: Any, message: str | None):
    with pytest.raises(CregraphError) as caught:
        python.ask(step(text))

    assert caught.value.message.startswith("team.yaml:10: extras.pip[0]: ")
    assert message is None or caught.value.message == f"team.yaml:10: extras.pip[0]: {message}"


def test_an_interpreter_is_a_fact_of_the_base():
    one = dataclasses.replace(step(), fields={"into": "/usr/bin/python3", "requirements": []})
    with pytest.raises(CregraphError, match="`/usr/bin/python3` is not an interpreter"):
        python.ask(one)


# --- what is chosen --------------------------------------------------------------------------------------------------


def test_a_pin_says_file_digest_and_size_and_never_an_address(index: Index):
    index.wheel("my-app", "2.0", "tool>=1")

    found = pinned(index, step("my-app", "my_app>=1"))

    assert versions(found) == {"my-app": "2.0", "tool": "1.0"}
    app = found.pins[0]
    data = (index.root / "simple/my-app/my_app-2.0-py3-none-any.whl").read_bytes()
    assert app.artifact == Artifact(
        kind="python",
        source="pypi",
        file="my-app/my_app-2.0-py3-none-any.whl",
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )
    assert app.needs == ("py:tool",)
    assert app.provides == ("py:my-app 2.0",)
    assert app.asked == ("python: my-app", "python: my-app >=1")
    assert found.pins[1].asked == ()
    assert str(index.root) not in json.dumps([dataclasses.asdict(p) for p in found.pins])


def test_two_locks_of_one_profile_are_equal(index: Index):
    assert pinned(index, step("tool")) == pinned(index, step("tool"))


def test_what_the_base_has_is_answered_and_never_moves(index: Index):
    index.wheel("numpy", "1.0")
    index.wheel("numpy", "2.0")
    index.wheel("app", "1.0", "numpy")

    found = pinned(index, step("app", "numpy>=1"), base={"numpy": "1.0"})

    assert versions(found) == {"app": "1.0"}


def test_what_the_base_has_need_not_be_in_any_index(index: Index):
    index.wheel("app", "1.0", "platform-thing>=3")

    assert versions(pinned(index, step("app"), base={"platform-thing": "3.2+local.1"})) == {"app": "1.0"}


def test_no_index_is_asked_when_the_base_answers_everything(index: Index):
    found = pinned(Index(index.root / "nowhere"), step("numpy"), base={"numpy": "1.0"})

    assert found.pins == ()


def test_extras_of_a_distribution_of_the_base_are_seen_to(index: Index):
    index.wheel("snowpark", "1.0", extras={"pandas": "tool>=1"})

    assert versions(pinned(index, step("snowpark[pandas]"), base={"snowpark": "1.0"})) == {"tool": "1.0"}


def test_an_ask_that_contradicts_the_base_is_refused_with_the_way_out(index: Index):
    error = refusal(index, step("tool", "numpy>=2"), base={"numpy": "1.26.4"})

    assert error.message == "team.yaml:11: extras.pip[1] asks for numpy >=2, but the base has numpy 1.26.4, which never moves"
    assert error.hint == "loosen the line so that 1.26.4 satisfies it, or choose a base image that has another"


def test_a_dependency_that_contradicts_the_base_is_refused_with_uvs_reasons(index: Index):
    index.wheel("app", "1.0", "numpy>=2")

    error = refusal(index, step("app"), base={"numpy": "1.26.4"})

    lines = error.message.splitlines()
    assert lines[0] == "no set of packages for Python 3.11.2 satisfies all asks:"
    assert "numpy>=2" in error.message and "numpy==1.26.4" in error.message  # uv's words, whichever they are
    assert lines[-2:] == ["asked for:", "  team.yaml:10: extras.pip[0]: app"]
    assert error.hint == ("loosen a line, or choose another base image: the base's own distributions never move")
    assert "cregraph-uv-" not in error.message and "base.txt" not in error.message


def test_what_no_index_has_is_refused(index: Index):
    error = refusal(index, step("nosuch"))
    assert error.message == "team.yaml:10: extras.pip[0]: no package index has `nosuch`"


def test_a_version_that_no_index_has_is_refused_with_those_that_exist(index: Index):
    error = refusal(index, step("tool >=9"))
    assert error.message == "team.yaml:10: extras.pip[0]: no version answers `tool >=9`: only tool==1.0 is available"


def test_a_base_without_python_is_refused(index: Index):
    bare = dataclasses.replace(facts(), python=None)

    assert "but the base has none" in refusal(index, step("tool"), facts=bare).message


def test_pins_stay_until_they_are_freed(index: Index):
    first = pinned(index, step("tool"))
    index.wheel("tool", "1.1")
    index.wheel("other", "1.0", "tool")

    later = pinned(index, step("tool", "other"), locked=first.pins)

    assert versions(later) == {"other": "1.0", "tool": "1.0"}
    assert versions(pinned(index, step("tool", "other"))) == {"other": "1.0", "tool": "1.1"}
    assert [p.artifact for p in later.pins if p.name == "tool"] == [p.artifact for p in first.pins]


def test_a_better_wheel_of_the_same_version_does_not_move_a_pin(index: Index):
    first = pinned(index, step("tool"))
    index.wheel("tool", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64")

    assert pinned(index, step("tool"), locked=first.pins) == first
    assert pinned(index, step("tool")).pins[0].artifact.file.endswith("manylinux_2_17_x86_64.whl")


def test_a_pin_moves_when_what_is_asked_no_longer_allows_it(index: Index):
    first = pinned(index, step("tool"))
    index.wheel("tool", "1.1")

    assert versions(pinned(index, step("tool>1.0"), locked=first.pins)) == {"tool": "1.1"}


# --- wheels and platforms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "glibc", "best"),
    [
        (["py3-none-any", "cp311-cp311-manylinux_2_17_x86_64"], "2.36", "cp311-cp311-manylinux_2_17_x86_64"),
        (["cp311-cp311-manylinux_2_38_x86_64", "py3-none-any"], "2.36", "py3-none-any"),
        (["cp311-cp311-manylinux_2_38_x86_64"], "2.36", None),
        (["cp310-cp310-manylinux_2_17_x86_64", "cp38-abi3-manylinux2014_x86_64"], "2.28", "cp38-abi3-manylinux2014_x86_64"),
        (["cp312-abi3-manylinux2014_x86_64", "cp311-cp311-macosx_11_0_arm64"], "2.36", None),
        (["cp311-cp311-manylinux_2_17_x86_64.linux_x86_64"], "2.17", "cp311-cp311-manylinux_2_17_x86_64.linux_x86_64"),
        (["cp311-cp311-musllinux_1_1_x86_64"], "2.36", None),
        (["1-py3-none-any", "2-py3-none-any", "py3-none-any"], "2.36", "2-py3-none-any"),
    ],
)  # fmt: skip
def test_the_wheel_is_the_bases_best(tags: Iterable[str], glibc: str, best: str | None):
    files = tuple(File(name=f"x-1.0-{tag}.whl") for tag in tags)

    chosen = wheel_of(Found(name="x", version="1.0", wheels=files, sdist=None), "3.11.2", glibc)

    assert (chosen.name if chosen else None) == (f"x-1.0-{best}.whl" if best else None)


# --- sdists ----------------------------------------------------------------------------------------------------------

PYPROJECT = '[build-system]\nrequires = ["backend>=1", "cffi ; python_version > \'3\'"]\nbuild-backend = "backend.core:api"\n'


def with_sdist(index: Index) -> None:
    index.sdist("glue", "3.0", "tool", pyproject=PYPROJECT)
    index.wheel("backend", "1.0", "tool<2")
    index.wheel("backend", "2.0", "tool<2")
    index.wheel("cffi", "1.0")
    index.sdist("cffi", "2.0")


def test_an_sdist_is_pinned_with_the_wheels_that_build_it(index: Index):
    with_sdist(index)

    found = pinned(index, step("glue", build=BUILD), base={"cffi": "0.9"})

    assert versions(found) == {
        "build:glue:backend": "2.0",
        "build:glue:cffi": "1.0",
        "build:glue:tool": "1.0",
        "glue": "3.0",
        "tool": "1.0",
    }
    by_name = {p.name: p for p in found.pins}
    assert by_name["glue"].data == {"form": "sdist", "backend": "backend.core:api"}
    assert by_name["glue"].artifact.file == "glue/glue-3.0.tar.gz"
    assert by_name["glue"].needs == ("build:glue:backend", "build:glue:cffi", "build:glue:tool", "py:tool")
    assert by_name["build:glue:cffi"].data == {"form": "wheel", "role": "build", "for": "glue"}
    assert by_name["build:glue:cffi"].provides == ("build:glue:cffi 1.0",)


def test_what_builds_an_sdist_stays_too(index: Index):
    with_sdist(index)
    first = pinned(index, step("glue", build=BUILD))
    index.wheel("backend", "3.0")

    assert pinned(index, step("glue", build=BUILD), locked=first.pins) == first


def test_an_sdist_without_pyproject_is_built_by_setuptools(index: Index):
    index.sdist("old", "1.0")
    index.wheel("setuptools", "80.0")

    found = pinned(index, step("old", build=BUILD))

    assert versions(found) == {"build:old:setuptools": "80.0", "old": "1.0"}
    assert found.pins[1].data["backend"] == "setuptools.build_meta:__legacy__"


def test_an_sdist_that_no_step_says_how_to_build_is_refused(index: Index):
    with_sdist(index)

    error = refusal(index, step("glue"))

    assert error.message == (
        "Python package glue 3.0 has no wheel for Python 3.11.2 on x86-64 Linux with glibc 2.36, and no step describes its build"
    )


def test_build_requirements_that_have_no_wheel_are_refused(index: Index):
    index.sdist("glue", "3.0", pyproject='[build-system]\nrequires = ["cffi>=2"]\nbuild-backend = "b"\n')
    index.sdist("cffi", "2.0")

    assert refusal(index, step("glue", build=BUILD)).message.startswith(
        "no set of wheels satisfies the build requirements of glue 3.0:\n"
    )


@pytest.mark.parametrize(
    "pyproject",
    [
        "[build-system]\nrequires = 'x'\n",
        "[build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['../..']\n",
    ],
)
def test_a_build_system_that_is_none_is_refused_by_name(index: Index, pyproject: str):
    index.sdist("glue", "3.0", pyproject=pyproject)

    assert refusal(index, step("glue", build=BUILD)).message.startswith("glue-3.0.tar.gz: pyproject.toml: ")


def test_a_pyproject_that_is_no_toml_is_refused_by_name(tmp_path: Path):
    (tmp_path / "x").write_bytes(sdist("glue", "3.0", pyproject="[build-system"))

    with pytest.raises(CregraphError, match=r"^glue-3\.0\.tar\.gz: pyproject\.toml is not readable: "):
        build_system(tmp_path / "x", what="glue-3.0.tar.gz")


def test_two_ways_to_build_are_refused_with_both_lines(index: Index):
    with_sdist(index)
    both = target(step("glue", build=BUILD), step("tool", stage="other", build={"env": {"A": "1"}}))

    with pytest.raises(CregraphError, match=r"team\.yaml:30: other\.build: .* differ from team\.yaml:30: python\.build"):
        python.build_of(both)


# --- placing ---------------------------------------------------------------------------------------------------------


def conda(place: str, *names: str) -> Target:
    pins = tuple(
        Pin(
            name=name,
            version="1",
            artifact=Artifact(kind="conda", source="x", file=name, sha256=hashlib.sha256(name.encode()).hexdigest(), size=1),
            needs=("conda:libthing",) if name in ("python", "r-base") else (),
            provides=(f"conda:{name} 1",),
        )
        for name in names
    )
    return Target(kind="conda", place=place, pins=pins)


ENVIRONMENTS = (
    conda("/cregraph/python", "python", "libthing", "unused"),
    conda(R_PREFIX, "r-base", "libthing", "r-cli"),
)


def ground(found: Target, **more: Any) -> PlaceContext:
    return PlaceContext(
        assembly=1,
        facts=more.pop("facts", facts()),
        build_root="sha256:" + "1" * 64,
        targets=(*ENVIRONMENTS, found),
        order=("snowbooks", "python"),
        placed={t.id: Placement(of={p.name: f"{t.id}/{p.name}" for p in t.pins}) for t in ENVIRONMENTS},
    )


def test_an_sdist_becomes_a_task_that_sees_its_requirements_and_no_more(index: Index):
    with_sdist(index)
    found = pinned(index, step("glue", build=BUILD))

    placed = python.place(found, ground(found))

    (task,) = placed.tasks
    assert [a.file for a in task.artifacts] == [
        "backend/backend-2.0-py3-none-any.whl",
        "cffi/cffi-1.0-py3-none-any.whl",
        "glue/glue-3.0.tar.gz",
        "tool/tool-1.0-py3-none-any.whl",
    ]
    assert list(task.inputs) == [a.file.split("/")[1] for a in task.artifacts]
    contract.check(task)
    assert task.argv[:3] == ("/cregraph/python/bin/python3.11", "-s", "-c")
    assert json.loads(task.argv[4]) == {"backend": "backend.core:api", "path": [], "sdist": "glue-3.0.tar.gz"}
    assert task.env["R_HOME"] == f"{R_PREFIX}/lib/R"
    assert task.env["PATH"] == f"/cregraph/build/bin:{R_PREFIX}/bin:/cregraph/python/bin:/usr/bin:/bin"
    assert set(task.environment) == {
        "conda:/cregraph/python/python",
        "conda:/cregraph/python/libthing",
        f"conda:{R_PREFIX}/r-base",
        f"conda:{R_PREFIX}/libthing",
    }
    segments = {s.name: s for s in placed.segments}
    assert set(segments) == {"glue", "tool"}
    assert segments["glue"].task_key == task.key and segments["glue"].artifact is None
    assert segments["tool"].task_key is None and segments["tool"].artifact is not None
    assert segments["tool"].place == {
        "site_packages": "/opt/python/lib/python3.11/site-packages",
        "scripts": "/opt/python/bin",
        "prefix": "/opt/python",
        "executable": "/opt/python/bin/python3.11",
        "python": "3.11",
    }


@pytest.mark.parametrize(
    ("pin", "change", "field"),
    [
        ("tool", {"name": "../../etc/x"}, None),
        ("tool", {"name": "Tool"}, None),
        ("build:glue:cffi", {"name": "build:glue:../x"}, None),
        ("build:glue:cffi", {"name": "cffi"}, None),
        ("tool", {"version": "../1"}, "version"),
        ("tool", {"file": "tool/.tool-1.0-py3-none-any.whl"}, "file"),
        ("tool", {"file": "tool/x/tool-1.0-py3-none-any.whl"}, "file"),
        ("tool", {"file": "tool/$(id)-1.0-py3-none-any.whl"}, "file"),
        ("tool", {"data": {}}, "data.form"),
        ("tool", {"data": {"form": "wheel", "role": "other"}}, "data.role"),
        ("glue", {"data": {"form": "sdist"}}, "data.backend"),
        ("glue", {"data": {"form": "sdist", "backend": "a", "backend_path": ["../x"]}}, "data.backend_path"),
    ],
)
def test_a_pin_of_a_lock_edited_by_hand_is_refused(index: Index, pin: str, change: dict[str, Any], field: str | None):
    with_sdist(index)
    found = pinned(index, step("glue", build=BUILD))

    def edit(p: Pin) -> Pin:
        if p.name != pin:
            return p
        if "file" in change:
            return dataclasses.replace(p, artifact=dataclasses.replace(p.artifact, **change))
        return dataclasses.replace(p, **change)

    edited = dataclasses.replace(found, pins=tuple(edit(p) for p in found.pins))
    assert edited != found
    with pytest.raises(CregraphError) as caught:
        python.place(edited, ground(edited))

    if field is None:
        assert caught.value.message == f"the lock pins `{change['name']}`, which is not the normal name of a Python package"
    else:
        assert caught.value.message == f"Python package {pin}: the lock's `{field}` is missing or invalid"
        assert (caught.value.hint or "").endswith(f"`cregraph lock --upgrade-package {pin}`")


# --- uv: it runs no package's code, knows only what it is told, and says why there is no answer -----------------------


def hostile(name: str, version: str, marker: Path, pyproject: str) -> bytes:
    """An sdist that says nothing of its needs, and writes `marker` when any of its code runs."""
    code = f"open({str(marker)!r}, 'w').close()\n"
    held = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "pyproject.toml": pyproject}
    held |= dict.fromkeys(("setup.py", "inside.py", "encodings/__init__.py", "sitecustomize.py"), code)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, text in held.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(out.getvalue(), mtime=0)


@pytest.mark.parametrize(
    "pyproject",
    [
        '[build-system]\nrequires = []\nbuild-backend = "inside"\nbackend-path = ["."]\n',
        '[build-system]\nrequires = ["backend"]\nbuild-backend = "backend"\n',
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
        "",
    ],
)
def test_no_code_of_a_package_runs_while_locking(index: Index, tmp_path: Path, pyproject: str):
    """Neither its own nor that of what its build needs: not even when Python starts beside it."""
    marker = tmp_path / "ran"
    index.put("dyn", "dyn-2.0.tar.gz", hostile("dyn", "2.0", marker, pyproject))
    code = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("backend", "setuptools"):
        evil = io.BytesIO(wheel(name, "90.0"))
        with zipfile.ZipFile(evil, "a") as archive:
            for path in (f"{name}/build_meta.py", "backend.py", "sitecustomize.py", "encodings/__init__.py"):
                archive.writestr(path, code)
            archive.writestr(f"{name}.pth", "import sys; " + code)
        index.put(name, f"{name}-90.0-py3-none-any.whl", evil.getvalue())
    index.wheel("dyn", "1.0")

    error = refusal(index, step("dyn", build=BUILD))

    assert not marker.exists()
    assert error.message == (
        "Python package dyn 2.0 states its requirements only if its code runs, and locking runs no package code"
    )
    assert error.hint is not None and error.hint.startswith("ask for a version of dyn that has a wheel")
    assert versions(pinned(index, step("dyn <2", build=BUILD))) == {"dyn": "1.0"}


def test_an_sdist_that_states_its_needs_is_locked(index: Index):
    index.sdist("static", "1.0", "tool>=1", pyproject='[build-system]\nrequires = []\nbuild-backend = "x"\n')

    assert versions(pinned(index, step("static", build=BUILD))) == {"static": "1.0", "tool": "1.0"}


def test_what_uv_is_told_elsewhere_to_choose_changes_no_lock(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    index.wheel("tool", "2.0")
    index.wheel("other", "1.0")
    config = tmp_path / "uv.toml"
    config.write_text(
        'resolution = "lowest"\nno-index = true\n[pip]\nresolution = "lowest"\nconstraint-dependencies = ["tool<2"]\n'
    )
    monkeypatch.setenv("UV_CONFIG_FILE", str(config))
    for variable, value in {
        "UV_RESOLUTION": "lowest",
        "UV_PRERELEASE": "allow",
        "UV_EXCLUDE_NEWER": "2001-01-01",
        "UV_INDEX_STRATEGY": "nonsense",
        "UV_NO_INDEX": "1",
        "UV_CONSTRAINT": "/nonexistent",
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "PYTHONPATH": str(tmp_path),
    }.items():
        monkeypatch.setenv(variable, value)

    assert versions(pinned(index, step("tool"))) == {"tool": "2.0"}


class Faulty(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        ("500", "500 Internal Server Error", "check the network"),
        ("401", "401 Unauthorized", "store its credentials"),
        ("403", "403 Forbidden", "store its credentials"),
        ("refused", "Connection refused", "check the network"),
        ("offline", "", "lock without --offline"),
        ("folder", "there is no such folder", "check the address"),
    ],
)
def test_an_index_that_gives_no_answer_is_no_contradiction(
    index: Index, faulty: str, monkeypatch: pytest.MonkeyPatch, status: str, reason: str, hint: str
):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    address = {"refused": "http://127.0.0.1:9/simple", "folder": "file:///nonexistent/simple"}.get(
        status, f"{faulty}/{status}/simple"
    )
    sources = index.sources(address, offline=status == "offline")
    with pytest.raises(CregraphError) as caught:
        python.pin(target(step("tool")), sources, PinContext(project=index.root, shipped=index.root, facts=facts()))

    assert caught.value.message.startswith("the package index of Python cannot be reached\n")
    assert reason in caught.value.message
    assert (caught.value.hint or "").startswith(hint)
    assert caught.value.exit_code == 2


def test_the_keyring_program_still_runs(index: Index, faulty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is the user's own and written in Python; no package's code runs, but it must."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/keyring"
    program.write_text(f"#!{sys.executable}\nopen({str(tmp_path / 'asked')!r}, 'w').close()\nprint('secret')\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("UV_KEYRING_PROVIDER", "subprocess")
    sources = index.sources(f"{faulty}/401/simple".replace("//", "//me@"), offline=False)

    with pytest.raises(CregraphError) as caught:
        python.pin(target(step("tool")), sources, PinContext(project=index.root, shipped=index.root, facts=facts()))

    assert (tmp_path / "asked").exists()
    assert "secret" not in caught.value.message


def test_an_index_without_the_package_is_a_contradiction(index: Index, faulty: str):
    sources = index.sources(f"{faulty}/404/simple", offline=False)
    with pytest.raises(CregraphError, match="no package index has `tool`"):
        python.pin(target(step("tool")), sources, PinContext(project=index.root, shipped=index.root, facts=facts()))


def test_where_bytes_came_from_reaches_no_key_and_the_interpreter_does(index: Index):
    with_sdist(index)
    found = pinned(index, step("glue", build=BUILD))
    moved = dataclasses.replace(
        found,
        pins=tuple(dataclasses.replace(p, asked=(), artifact=dataclasses.replace(p.artifact, source="else")) for p in found.pins),
    )
    base = facts()
    assert base.python is not None
    other = dataclasses.replace(base, python=dataclasses.replace(base.python, version="3.12.1"))

    one, two, three = (python.place(t, ground(t, facts=f)) for t, f in ((found, base), (moved, base), (found, other)))

    assert [s.key for s in one.segments] == [s.key for s in two.segments]
    assert [t.key for t in one.tasks] == [t.key for t in two.tasks]
    assert not {s.key for s in one.segments} & {s.key for s in three.segments}


def test_a_prefix_that_does_not_hold_what_the_build_names_is_said(index: Index):
    with_sdist(index)
    found = pinned(index, step("glue", build={"conda": {"prefix": R_PREFIX, "specs": ["cmake"]}}))

    with pytest.raises(CregraphError, match=f"building glue needs cmake in {R_PREFIX}, but the lock does not pin them there"):
        python.place(found, ground(found))


class Source:
    def __init__(self, path: Path) -> None:
        self._path = path

    def path(self) -> Path:
        return self._path

    def scratch(self) -> IO[bytes]:
        return io.BytesIO()


def test_entries_of_a_wheel_and_of_the_wheel_that_a_task_made(index: Index, tmp_path: Path):
    with_sdist(index)
    found = pinned(index, step("glue", build=BUILD))
    segments = {s.name: s for s in python.place(found, ground(found)).segments}
    site = "opt/python/lib/python3.11/site-packages"
    (tmp_path / "x.whl").write_bytes(wheel("tool", "1.0"))
    assert f"{site}/tool/__init__.py" in {e.path for e in python.entries(segments["tool"], Source(tmp_path / "x.whl"))}

    for name, tag in (("right", "cp311-cp311-linux_x86_64"), ("wrong", "cp310-cp310-linux_x86_64")):
        made = wheel("glue", "3.0", tag=tag)
        with tarfile.open(tmp_path / name, "w") as tar:
            member = tarfile.TarInfo(f"glue-3.0-{tag}.whl")
            member.size = len(made)
            tar.addfile(member, io.BytesIO(made))

    paths = {e.path: e for e in python.entries(segments["glue"], Source(tmp_path / "right"))}
    chunks = paths[f"{site}/glue/__init__.py"].chunks
    assert chunks is not None and b"".join(chunks()) == b"x = 1\n"
    with pytest.raises(CregraphError) as caught:
        list(python.entries(segments["glue"], Source(tmp_path / "wrong")))
    assert caught.value.message == "glue-3.0-cp310-cp310-linux_x86_64.whl is not for Python 3.11, which the base has"


# --- indexes ---------------------------------------------------------------------------------------------------------


def test_a_file_is_found_on_a_page_of_html_or_json():
    pages = {
        "https://a.example/simple/my-app/": b'<a href="../../files/my_app-1.0%2Bl-py3-none-any.whl#sha256=00">x</a>',
        "https://b.example/simple/my-app/": b'{"files": [{"url": "https://f.example/my_app-1.0+l-py3-none-any.whl"}]}',
    }

    assert find_file("https://a.example/simple", "My.App", "my_app-1.0+l-py3-none-any.whl", pages.__getitem__) == (
        "https://a.example/files/my_app-1.0%2Bl-py3-none-any.whl"
    )
    assert find_file("https://b.example/simple/", "my_app", "my_app-1.0+l-py3-none-any.whl", pages.__getitem__) == (
        "https://f.example/my_app-1.0+l-py3-none-any.whl"
    )
    with pytest.raises(NotThere):
        find_file("https://a.example/simple", "my-app", "my_app-2.0-py3-none-any.whl", pages.__getitem__)


def test_a_page_of_the_web_leads_to_no_file_of_this_machine():
    with pytest.raises(CregraphError, match=r"\(expected http or https\)"):
        find_file("https://a.example/simple", "x", "x-1.tar.gz", lambda _: b'<a href="file:///etc/x-1.tar.gz">x</a>')


@pytest.mark.parametrize("file", ["", "x", "X/x-1.0.tar.gz", "../x-1.0.tar.gz", "x/../../x-1.0.tar.gz"])
def test_a_file_of_another_form_never_becomes_an_address(index: Index, file: str):
    with pytest.raises(CregraphError, match="is not a file of source `pypi`"):
        locations(index.sources(), file)


def test_locations_are_what_the_index_says(index: Index):
    file = index.root / "simple/tool/tool-1.0-py3-none-any.whl"

    assert locations(index.sources(), "tool/tool-1.0-py3-none-any.whl") == (file.as_uri(),)
    with pytest.raises(NotThere):
        locations(index.sources(), "tool/tool-9.0-py3-none-any.whl")


def test_pips_and_uvs_settings_are_both_read(tmp_path: Path):
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://pip.example/simple/\nextra_index_url = https://more.example/a\n  https://more.example/b\n"
        "[install]\nfind-links = /opt/links\n"
    )
    (tmp_path / ".config/uv").mkdir()
    (tmp_path / ".config/uv/uv.toml").write_text('[[index]]\nurl = "https://uv.example/extra"\n')
    etc = tmp_path / "etc"

    merged = ordinary({}, tmp_path, system=etc)

    assert merged.addresses() == (
        "https://uv.example/extra",
        "https://more.example/a",
        "https://more.example/b",
        "https://pip.example/simple",
    )
    assert merged.find_links == ("/opt/links",)
    assert merged.default == "https://pip.example/simple"
    assert merged.equal, "pip holds its indexes equal"
    own = {"UV_DEFAULT_INDEX": "own=https://own.example/simple", "UV_INDEX_OWN_USERNAME": "me", "UV_INDEX_OWN_PASSWORD": "a/b"}
    assert ordinary(own, tmp_path, system=etc).default == "https://me:a%2Fb@own.example/simple"
    only = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "https://v.example", "UV_NO_CONFIG": "1"}
    assert ordinary(only, tmp_path, system=etc) == Indexes(default="https://v.example")
