"""Wheels from sdists: what a build needs, and the task that runs it (PEP 517 and 518).

The task uses an interpreter of its own (conda's, of the base's minor version, at /cregraph/python), sees its requirements as
pinned wheels, and the conda environment that the recipe names under `build:`. get_requires_for_build_wheel() is not asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.kinds.base import PlaceContext
from cregraph.lock.pins import Artifact, Pin
from cregraph.plan.parts import Task, task

__all__ = ["PYTHON", "BuildSystem", "build_system", "build_task"]

#: The prefix, in the sandbox only, of the interpreter that builds.
PYTHON = "/cregraph/python"

_FLAGS = "-O2 -march=x86-64 -mtune=generic -g0"


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSystem:
    """[build-system] of a pyproject.toml: requirement texts, the backend (`module:object`), folders that it lies in."""

    requires: tuple[str, ...] = ("setuptools>=40.8.0",)
    backend: str = "setuptools.build_meta:__legacy__"
    path: tuple[str, ...] = ()


def build_system(sdist: Path, *, what: str) -> BuildSystem:
    """Return how the sdist is built; without pyproject.toml or without a backend: setuptools, as PEP 517 defines.

    Raises CregraphError naming `what` for an archive that must not be unpacked, and for a table that is not as PEP 518 says.
    """
    from cregraph.formats.tarball import scan

    held = scan(sdist, what=what, wanted={"pyproject.toml"}, hint="use an sdist as PEP 625 describes it (.tar.gz)")
    import tomllib

    try:
        table = tomllib.loads(held.read.get("pyproject.toml", b"").decode("utf-8")).get("build-system")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CregraphError(f"{what}: pyproject.toml is not readable: {error}") from None
    if table is None:
        return BuildSystem()
    requires, backend, path = (
        table.get("requires", []),
        table.get("build-backend", BuildSystem().backend),
        table.get("backend-path", []),
    )
    if not (_texts(requires) and isinstance(backend, str) and _texts(path)):
        raise CregraphError(f"{what}: pyproject.toml: [build-system] does not follow PEP 518")
    if any(p.startswith("/") or ".." in p.split("/") for p in path):
        raise CregraphError(f"{what}: pyproject.toml: build-system.backend-path leads out of the sdist")
    return BuildSystem(requires=tuple(requires), backend=backend, path=tuple(path))


def build_task(
    pin: Pin, wheels: Sequence[Pin], build: Mapping[str, Json], context: PlaceContext, *, stage: str, python: str
) -> Task:
    """Return the task that builds a wheel of `pin`'s sdist with the requirements `wheels`. `python` is the minor version.

    Raises CregraphError when the lock does not hold what `build` names.
    """
    conda = build.get("conda") or {}
    prefix, specs = str(conda.get("prefix", "")).rstrip("/"), conda.get("specs") or []
    environment = list(_segments(context, PYTHON, ["python"], pin))
    if prefix:
        environment += _segments(context, prefix, [str(spec).split()[0].split("=")[0] for spec in specs], pin)
    told = {"backend": pin.data.get("backend"), "path": pin.data.get("backend_path") or []}
    told["sdist"] = sdist = pin.artifact.file.rsplit("/", 1)[-1]
    inputs: dict[str, Artifact] = {sdist: pin.artifact}
    for wheel in wheels:
        name = wheel.artifact.file.rsplit("/", 1)[-1]
        if name in inputs:
            raise CregraphError(
                f"building {pin.name} needs two files with the name {name}",
                hint=f"run `cregraph lock --upgrade-package {pin.name}`",
            )
        inputs[name] = wheel.artifact
    folders = ["/cregraph/build/bin", *([f"{prefix}/bin"] if prefix else []), f"{PYTHON}/bin", "/usr/bin", "/bin"]
    env = {
        "PATH": ":".join(folders),
        "PYTHONPATH": "/cregraph/build/site",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "315532800",
        "CFLAGS": _FLAGS,
        "CXXFLAGS": _FLAGS,
        "FFLAGS": _FLAGS,
    }
    return task(
        assembly=context.assembly,
        kind="python",
        stage=stage,
        name=pin.name,
        root=context.build_root,
        argv=(f"{PYTHON}/bin/python{python}", "-s", "-c", _BUILD, json.dumps(told, sort_keys=True)),
        env=env | {str(k): str(v) for k, v in (build.get("env") or {}).items()},
        output="/cregraph/out",
        inputs=inputs,
        environment=tuple(dict.fromkeys(environment)),
    )


def _segments(context: PlaceContext, prefix: str, roots: Sequence[str], pin: Pin) -> tuple[str, ...]:
    target = context.target("conda", prefix)
    names = {p.name for p in target.pins} if target else set()
    missing = [root for root in roots if root not in names]
    if target is None or missing:
        raise CregraphError(
            f"building {pin.name} needs {', '.join(missing)} in {prefix}, but the lock does not pin them there",
            hint="run `cregraph lock`, or list the asks of a conda step for that prefix under `build.conda.specs`",
        )
    return context.segments_of(target, roots)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# Runs in the sandbox, on any Python 3 from 3.8 on and nothing else. Inputs are verified before they come here.
_BUILD = r"""
import configparser, glob, importlib, json, os, shutil, stat, sys, sysconfig, tarfile, zipfile
told = json.loads(sys.argv[1])
work, site, programs, out = "/cregraph/build", "/cregraph/build/site", "/cregraph/build/bin", "/cregraph/out"
for folder in (site, programs, work + "/src"):
    os.makedirs(folder)
sys.path[:] = [site] + [p for p in sys.path if p not in ("", work, site)]

def script(name, text):
    with open(os.path.join(programs, name), "w") as file:
        file.write("#!" + sys.executable + "\n" + text)
    os.chmod(os.path.join(programs, name), 0o755)

for wheel in sorted(glob.glob("/cregraph/in/*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            at = archive.extract(info, site)
            if (info.external_attr >> 16) & 0o111 and not info.is_dir():
                os.chmod(at, 0o755)
for data in sorted(glob.glob(site + "/*.data")):
    for scheme in sorted(os.listdir(data)):
        for name in sorted(os.listdir(os.path.join(data, scheme))):
            source = os.path.join(data, scheme, name)
            if scheme == "scripts":
                shutil.move(source, programs)
                with open(os.path.join(programs, name), "rb") as file:
                    content = file.read()
                if content.startswith(b"#!python"):
                    with open(os.path.join(programs, name), "wb") as file:
                        file.write(b"#!" + sys.executable.encode() + b"\n" + content.partition(b"\n")[2])
                os.chmod(os.path.join(programs, name), 0o755)
            elif scheme in ("purelib", "platlib"):
                if os.path.isdir(source):
                    shutil.copytree(source, os.path.join(site, name), dirs_exist_ok=True)
                else:
                    shutil.copy2(source, site)
for listed in sorted(glob.glob(site + "/*.dist-info/entry_points.txt")):
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False)
    parser.optionxform = str
    parser.read(listed, encoding="utf-8")
    for name, value in parser.items("console_scripts") if parser.has_section("console_scripts") else ():
        module, _, call = value.partition("[")[0].strip().partition(":")
        module, call = module.strip(), call.strip()
        script(name, "import sys\nfrom %s import %s\nsys.exit(%s())\n" % (module, call.split(".")[0], call))

with tarfile.open("/cregraph/in/" + told["sdist"]) as archive:
    if hasattr(tarfile, "data_filter"):
        archive.extractall(work + "/src", filter="data")
    else:
        archive.extractall(work + "/src")
(top,) = os.listdir(work + "/src")
os.chdir(os.path.join(work, "src", top))

if shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None and "CC" not in os.environ:
    for compiler, other in (("x86_64-conda-linux-gnu-cc", "x86_64-conda-linux-gnu-c++"), ("gcc", "g++"), ("cc", "c++"),
                            ("x86_64-linux-gnu-gcc", "x86_64-linux-gnu-g++")):
        if shutil.which(compiler):
            os.environ.update(CC=compiler, CXX=other, LDSHARED=compiler + " -shared", LDCXXSHARED=other + " -shared")
            break
sys.path[:0] = [os.path.join(os.getcwd(), p) for p in told["path"]]
sys.path_importer_cache.clear()  # the site folder was not there when the interpreter first looked
importlib.invalidate_caches()
module, _, name = told["backend"].partition(":")
if name == "__legacy__":
    sys.path.insert(0, os.getcwd())
sys.path_importer_cache.clear()  # the folders were made after Python looked for them
backend = importlib.import_module(module)
for part in name.split(".") if name else ():
    backend = getattr(backend, part)
made = backend.build_wheel(out)
if os.listdir(out) != [made]:
    sys.exit("the build left %s in its output, where one wheel, %s, is wanted" % (sorted(os.listdir(out)), made))
"""
