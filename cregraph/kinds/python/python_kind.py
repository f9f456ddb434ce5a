"""Python packages in addition to those of the base, which never move.

    - python:
        into: $(snowbooks.python)                     an interpreter of the base, known after locking
        requirements: ["rpy2 >=3.5,<4", tabulate]     as pip writes them, by name
        build: {conda: {prefix: $(r.prefix), specs: [r-base]}, env: {R_HOME: $(r.home)}}    what builds of sdists see

The wheels that fit the base's Python and glibc are pinned, and no distribution that the base has. Without a fitting wheel the
sdist is pinned, with the wheels that its build needs (`build:<sdist>:<name>`); only the sandbox sees those, and the
interpreter at /cregraph/python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, cast
from urllib.parse import quote

from cregraph.digest import Json, canonical
from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds import defaults
from cregraph.kinds.base import Input, PinContext, PlaceContext
from cregraph.kinds.image_paths import real_path
from cregraph.kinds.python.python_build import PYTHON, build_task
from cregraph.lock.base_facts import PythonFact
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.lock.rules import Offers
from cregraph.plan.parts import Placement, Segment, Task, segment
from cregraph.profile.package_texts import plain_requirement
from cregraph.profile.step import Step
from cregraph.sources.index_page import is_place
from cregraph.sources.protocol import Sources
from cregraph.sources.routes import Routes, join

__all__ = ["FIELDS", "NAME", "ask", "entries", "pin", "place"]

NAME = "python"
ECOSYSTEM = NAME
PARTS = {"entries": "wheel_files", "hints": "py_hints", "smoke": "py_hints", "vendor": "vendor_index", "verify": "dist_info"}
FIELDS: Mapping[str, tuple[str, bool]] = {
    "into": ("text", True),
    "requirements": ("texts", True),
    "build": ("mapping", False),
}

STANDS_ON = frozenset({"image"})
BUCKETS = 16
INDEXED = True

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_BACKEND = re.compile(r"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?")
_INTO = re.compile(r"\$\(([A-Za-z0-9_-]+)\.python\)")


def ask(step: Step) -> Sequence[Ask]:
    """Return one ask for each requirement, one for `build`, and one to conda for the interpreter that builds.

    Raises CregraphError with its line for a text that is not a requirement by name.
    """
    into = step.fields["into"]
    if not isinstance(into, str) or not _INTO.fullmatch(into):
        raise CregraphError(
            f"{step.place_of('into')}: `{into}` is not an interpreter", hint="write `into: $(base.python)`, a fact of the base"
        )
    asks = []
    for number, text in enumerate(cast(Sequence[Json], step.fields["requirements"])):
        where = step.place_of(f"requirements[{number}]")
        asks.append(Ask(kind=NAME, place=into, stage=step.stage, what=_normal(text, where), where=where))
    build = step.fields.get("build")
    if build:
        where = step.place_of("build")
        asks.append(Ask(kind=NAME, place=into, stage=step.stage, what={"build": _build(build, where)}, where=where))
        asks.append(
            Ask(
                kind="conda",
                place=PYTHON,
                stage=step.stage,
                what=f"python ={into[:-1]}.minor)",
                where=where,
                options={"channels": (build.get("conda") or {}).get("channels") or ["conda-forge"]},
            )
        )
    return asks


def hidden(pin: Pin) -> bool:
    """Return whether the pin is a wheel that only the build of an sdist sees."""
    return pin.data.get("role") == "build"


def tools(pin: Pin) -> tuple[str, ...]:
    """Return the interpreter in the sandbox if a wheel is built of, or for, the pin."""
    return (PYTHON,) if hidden(pin) or pin.data.get("form") == "sdist" else ()


def own_tokens(pin: Pin) -> tuple[str, ...]:
    """Return `py:<name> <version>`; what only a build sees provides `build:<sdist>:<name>`."""
    return (f"{pin.name if hidden(pin) else f'py:{pin.name}'} {pin.version}",)


def base_has(token: str, offers: Offers) -> bool:
    """Return whether the base has the distribution, or could have it because the base is not known."""
    ecosystem, _, name = token.partition(":")
    return ecosystem == "py" and (offers.base is None or name in offers.base)


def problems(target: Target, offers: Offers) -> list[str]:
    """Return a sentence for each ask that neither a pin nor the base answers."""
    from packaging.utils import canonicalize_name

    def name_of(what: Json) -> str | None:
        name = defaults.asked_name(what)
        return name and canonicalize_name(name)

    return defaults.unanswered(target, name_of, lambda name: base_has(f"py:{name}", offers))


def locations(artifact: Artifact, routes: Routes) -> tuple[str, ...]:
    from cregraph.sources.pip_settings import PYPI

    project = quote(artifact.file.partition("/")[0])
    return tuple(f"{join(address, project)}/" for address in routes.pypi or (PYPI,))


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    from cregraph.kinds.python import python_pin

    return python_pin.pin(target, sources, context)


def place(target: Target, context: PlaceContext) -> Placement:
    """Return a segment for each wheel, and for an sdist the task that builds its wheel."""
    if not target.pins:
        return Placement()
    python = context.facts.python
    if python is None:
        raise CregraphError("the lock pins Python packages, but the base has no Python", hint="run `cregraph lock`")
    for p in target.pins:
        check_pin(p)
    places = _places(python, context)
    stages = context.stage_of(target)
    build = build_of(target)
    tasks: list[Task] = []
    segments: dict[str, Segment] = {}
    for p in sorted(target.pins, key=lambda p: p.name):
        if hidden(p):
            continue
        made: Task | None = None
        if p.data.get("form") == "sdist":
            wheels = [w for w in target.pins if hidden(w) and w.data.get("for") == p.name]
            made = build_task(p, wheels, build, context, stage=stages[p.name], python=str(places["python"]))
            tasks.append(made)
        source, stage, size = made or p.artifact, stages[p.name], p.artifact.size
        segments[p.name] = segment(context.assembly, target, stage=stage, name=p.name, place=places, source=source, size=size)
    of = {name: each.key for name, each in segments.items()}
    return Placement(segments=tuple(segments.values()), tasks=tuple(tasks), of=of)


def check_pin(pin: Pin) -> None:
    """Raise CregraphError for an invalid pin, as in a lock edited by hand: its texts become paths, and decide its build."""
    role, form = pin.data.get("role"), pin.data.get("form")
    owner = str(pin.data.get("for"))
    name = pin.name.removeprefix(f"build:{owner}:") if role == "build" else pin.name
    path = pin.data.get("backend_path") or []
    if not is_place(f"{name}/x") or (role == "build" and (pin.name == name or not is_place(f"{owner}/x"))):
        raise defaults.edited(f"the lock pins `{pin.name[:120]}`, which is not the normal name of a Python package")
    right = {
        "version": _VERSION.fullmatch(pin.version),
        "file": is_place(pin.artifact.file),
        "data.role": role in (None, "build"),
        "data.form": form == "wheel" or (form == "sdist" and role is None),
        "data.backend": form != "sdist" or _BACKEND.fullmatch(str(pin.data.get("backend") or "")),
        "data.backend_path": isinstance(path, list | tuple)
        and all(isinstance(p, str) and not p.startswith("/") and ".." not in p.split("/") for p in path),
    }
    defaults.check_edited("Python package", owner if role == "build" else pin.name, right)


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    """Return the files of a wheel: of the artifact, or of the one wheel that the task left."""
    from cregraph.kinds.python import wheel_files

    if segment.artifact is not None:
        return wheel_files.entries(segment, source)
    made = source.scratch()
    name = _copy_wheel(segment, source, made)
    _check_interpreter(name, str(segment.place["python"]))
    return wheel_files.wheel_entries(made, name=name, places=segment.place)


def build_of(target: Target) -> Mapping[str, Json]:
    """Return the field `build` of the steps; empty if there is none. Raise CregraphError if two of them differ."""
    stated = [a for a in target.asks if isinstance(a.what, Mapping) and "build" in a.what]
    for other in stated[1:]:
        if canonical(other.what) != canonical(stated[0].what):
            raise CregraphError(
                f"{other.where}: the build requirements of sdists differ from {stated[0].where}",
                hint="state `build` in one recipe only",
            )
    return cast(Mapping[str, Json], stated[0].what["build"]) if stated else {}


def _places(python: PythonFact, context: PlaceContext) -> dict[str, Json]:
    def real(path: str) -> str:
        return real_path(f"{path}/.", context.facts, "Python of the base")

    return {
        "site_packages": real(python.site_packages),
        "scripts": real(python.scripts),
        "prefix": real(python.prefix),
        "executable": python.executable,
        "python": ".".join(python.version.split(".")[:2]),
    }


def _copy_wheel(segment: Segment, source: Input, into: IO[bytes]) -> str:
    from cregraph.formats.untrusted_tar import PACKAGE, Reader

    found = ""
    with source.path().open("rb") as file:
        tar = Reader(file, what=f"{segment.name}: the result of its task", policy=PACKAGE)
        for member in tar:
            if member.type == "directory":
                continue
            if found or member.type != "file" or not member.name.endswith(".whl"):
                raise CregraphError(f"{segment.name}: its build left `{member.name[:200]}` (expected one wheel)")
            found = member.name.rsplit("/", 1)[-1]
            into.writelines(tar.blocks())
    if not found:
        raise CregraphError(f"{segment.name}: its build left no wheel")
    into.seek(0)
    return found


def _check_interpreter(name: str, python: str) -> None:
    """Raise CregraphError unless a wheel that a task built is for the Python of the base."""
    from cregraph.kinds.python.python_pin import wheel_of
    from cregraph.sources.python_index import File, Found

    made = Found(name="", version="", wheels=(File(name=name),), sdist=None)
    if wheel_of(made, python, "2.99") is None:  # the build root's glibc is the base's or older
        raise CregraphError(f"{name} is not for Python {python}, which the base has", hint="run `cregraph lock`")


def _normal(text: Json, where: str) -> str:
    """Return the requirement in one form: the name as pip normalises it, specifiers sorted."""
    if not isinstance(text, str):
        raise CregraphError(f"{where}: `{text}` is not a requirement (expected a text such as `scikit-learn>=1.3,<2`)")
    if text.strip().endswith((".whl", ".tar.gz", ".zip")) or text.strip().startswith((".", "/", "-", "git+", "http")):
        raise CregraphError(
            f"{where}: `{text}` is a file, an address or an option of pip; write the name of a package",
            hint="put the file into a package index, and write `name==version`",
        )
    from packaging.utils import canonicalize_name

    simple = plain_requirement(text)
    if simple is not None:
        name, clauses = simple
        return f"{canonicalize_name(name)}{' ' if clauses else ''}{','.join(sorted(clauses))}"
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        raise CregraphError(
            f"{where}: `{text}` is not a requirement: {str(error).splitlines()[0]}", hint="write it as for pip: `name>=1.2,<2`"
        ) from None
    if found.url:
        raise CregraphError(
            f"{where}: `{text}` names an address; write the name of a package",
            hint="put the file into a package index, and write `name==version`",
        )
    extras = f"[{','.join(sorted(canonicalize_name(e) for e in found.extras))}]" if found.extras else ""
    marker = f" ; {found.marker}" if found.marker else ""
    specifier = ",".join(sorted(str(s) for s in found.specifier))
    return f"{canonicalize_name(found.name)}{extras}{' ' if specifier else ''}{specifier}{marker}"


def _build(build: Json, where: str) -> dict[str, Json]:
    if not isinstance(build, Mapping) or set(build) - {"conda", "env"}:
        raise CregraphError(f"{where}: `build` has the fields `conda` ({{prefix, specs}}) and `env`")
    conda, env = build.get("conda") or {}, build.get("env") or {}
    if not isinstance(conda, Mapping) or set(conda) - {"prefix", "specs", "channels"} or not isinstance(env, Mapping):
        raise CregraphError(f"{where}: `build.conda` has the fields `prefix`, `specs` and `channels`; `build.env` is a mapping")
    if any(not isinstance(v, str) for v in env.values()):
        raise CregraphError(f"{where}: `build.env` maps names to texts")
    kept = {"prefix": conda.get("prefix", ""), "specs": list(conda.get("specs") or [])} if conda else {}
    return {"conda": kept, "env": dict(env)}
