"""Pins of Python packages: uv chooses over the base's distributions; the best wheel of each is taken, else its sdist."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from cregraph.digest import Json
from cregraph.errors import CregraphError, Several
from cregraph.kinds.base import PinContext
from cregraph.kinds.python.python_build import build_system
from cregraph.lock.base_facts import BaseFacts, PythonFact
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.sources.index_page import is_place
from cregraph.sources.protocol import Sources
from cregraph.sources.python_index import File, Found
from cregraph.sources.uv_resolver import Question, Unanswered, resolve

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["pin", "wheel_of"]


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    """Return the pins of all asks of one interpreter.

    Raises CregraphError for an ask that contradicts the base, for asks without a solution (with uv's reasons), and for
    a package that has neither a fitting wheel nor an sdist whose build a step describes.
    """
    facts = context.facts
    if facts is None or facts.python is None:
        raise CregraphError(f"Python packages need a Python, but the base has none ({target.id})")
    from packaging.requirements import Requirement

    python = facts.python
    asked = [(a, Requirement(a.what)) for a in target.asks if isinstance(a.what, str)]
    problems: list[CregraphError] = []
    wanted = [a for a, requirement in asked if not _answered_by_base(a, requirement, python, problems)]
    locked = {p.name: p for p in context.locked}
    chosen = _answers(wanted, problems, facts, python, sources, context)
    pins: list[Pin] = []
    for one, wheel, artifact in chosen:
        build, data = ([], {"form": "wheel"}) if wheel else _building(one, artifact, target, sources, context, locked)
        needs = [*(f"py:{other.name}" for other, _, _ in chosen if one.name in other.via), *(p.name for p in build)]
        why = {f"{a.stage}: {a.what}" for a, requirement in asked if canonicalize_name(requirement.name) == one.name}
        pins += build
        pins.append(
            Pin(
                name=one.name,
                version=one.version,
                artifact=artifact,
                needs=tuple(sorted(needs)),
                provides=(f"py:{one.name} {one.version}",),
                asked=tuple(sorted(why)),
                data=data,
            )
        )
    return replace(target, pins=tuple(sorted(pins, key=lambda p: p.name)))


def _answers(
    wanted: Sequence[Ask],
    problems: list[CregraphError],
    facts: BaseFacts,
    python: PythonFact,
    sources: Sources,
    context: PinContext,
) -> list[tuple[Found, File | None, Artifact]]:
    """Return the result of `_choose`. Leave out an ask without an answer and ask again, so that one run finds all of them.

    Raises Several with `problems` and those, and with the lines of all that is `wanted` if only together they have no answer.
    """
    locked = {p.name: p for p in context.locked}
    question = Question(
        requirements=tuple(dict.fromkeys(a.what for a in wanted)),
        python=python.version,
        glibc=facts.glibc,
        base=python.distributions,
        keep={name: p.version for name, p in locked.items() if p.data.get("role") != "build"},
        as_of=context.as_of,
    )
    try:
        found = _choose(question, sources, locked)
    except Unanswered as error:
        refused = _refused_one(error.message, wanted)
        if refused is not None:
            problems.append(refused[1])
            return _answers([a for a in wanted if a is not refused[0]], problems, facts, python, sources, context)
        lines = "\n".join(f"  {a.where}: {a.what}" for a in wanted)
        problems.append(
            CregraphError(
                f"no set of packages for Python {python.version} satisfies all asks:\n{error.message}\nasked for:\n{lines}",
                hint="loosen a line, or choose another base image: the base's own distributions never move",
            )
        )
    except CregraphError as error:
        problems.append(error)
    if problems:
        raise Several(problems)
    return found


def _refused_one(said: str, wanted: Sequence[Ask]) -> tuple[Ask, CregraphError] | None:
    """Return the ask and its problem, if uv's only reason is that no version of its package answers it."""
    match = _ONE_REASON.search(" ".join(said.split()))
    name = canonicalize_name(match[2]) if match else ""
    asked = [a for a in wanted if canonicalize_name(_NAME.split(str(a.what), maxsplit=1)[0]) == name]
    if match is None or len(asked) != 1:
        return None
    (ask,) = asked
    if match[1].endswith("was not found in the package registry"):
        return ask, CregraphError(
            f"{ask.where}: no package index has `{name}`",
            hint="correct the name, or name the index that has it in sources.yaml: `pypi: https://…/simple`",
        )
    return ask, CregraphError(
        f"{ask.where}: no version answers `{ask.what}`: {match[1]}", hint="write a version that is available, or remove the line"
    )


#: All of uv's explanation, if one requirement is the only cause: the reason, and the name of the package.
_ONE_REASON = re.compile(
    r"No solution found when resolving dependencies:? Because ([^,]+) and you require ([A-Za-z0-9._-]+)[^,]*, "
    r"we can conclude that your requirements are unsatisfiable\.$"
)
_NAME = re.compile(r"[^A-Za-z0-9._-]")


def wheel_of(found: Found, python: str, glibc: str | None) -> File | None:
    """Return the best wheel of `found` for CPython `python` on x86-64 Linux with `glibc`; None if none fits."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    rank = {tag: number for number, tag in enumerate(_tags(python, glibc))}
    best: tuple[int, tuple[int, str], str] | None = None
    files = {}
    for file in found.wheels:
        try:
            _, _, build, tags = parse_wheel_filename(file.name)
        except InvalidWheelFilename:
            continue
        fitting = [rank[str(tag)] for tag in tags if str(tag) in rank]
        if not fitting:
            continue
        files[file.name] = file
        number, letters = build if build else (0, "")
        candidate = (min(fitting), (-number, letters), file.name)
        best = min(best, candidate) if best else candidate
    return files[best[2]] if best else None


def _tags(python: str, glibc: str | None) -> list[str]:
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in python.split(".")[:2])
    newest = int((glibc or "2.17").split(".")[1])
    platforms = [f"manylinux_2_{n}_x86_64" for n in range(newest, 4, -1)]
    for old, at in (
        ("manylinux2014", "manylinux_2_17_x86_64"),
        ("manylinux2010", "manylinux_2_12_x86_64"),
        ("manylinux1", "manylinux_2_5_x86_64"),
    ):
        if at in platforms:
            platforms.insert(platforms.index(at) + 1, f"{old}_x86_64")
    platforms.append("linux_x86_64")
    interpreter = f"cp{major}{minor}"
    tags = [*cpython_tags((major, minor), [interpreter], platforms), *compatible_tags((major, minor), interpreter, platforms)]
    return [str(tag) for tag in tags]


def _answered_by_base(asked: Ask, wanted: Requirement, python: PythonFact, problems: list[CregraphError]) -> bool:
    """Return whether the base has it. If the base has another version, add that to `problems`. uv answers for extras."""
    have = python.distributions.get(canonicalize_name(wanted.name))
    if have is None or not _applies(wanted, python):
        return False
    if wanted.specifier.contains(have, prereleases=True):
        return not wanted.extras
    said = f"{asked.where} asks for {asked.what}, but the base has {canonicalize_name(wanted.name)} {have}, which never moves"
    problems.append(CregraphError(said, f"loosen the line so that {have} satisfies it, or choose a base image that has another"))
    return True


def _applies(wanted: Requirement, python: PythonFact) -> bool:
    if wanted.marker is None:
        return True
    minor = ".".join(python.version.split(".")[:2])
    return wanted.marker.evaluate(
        {
            "python_version": minor,
            "python_full_version": python.version,
            "implementation_version": python.version,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "os_name": "posix",
        }
    )


def _choose(
    question: Question, sources: Sources, locked: Mapping[str, Pin], *, prefix: str = "", building: str = ""
) -> list[tuple[Found, File | None, Artifact]]:
    """Return what uv chooses, the best wheel of each (None: the sdist must be built), and its artifact.

    The locked artifact stays while it has the chosen version and form.
    Raises Unanswered, and CregraphError for a package without a fitting file.
    """

    def artifact(one: Found, wheel: File | None) -> Artifact:
        old = locked.get(prefix + one.name)
        if old is not None and old.version == one.version and (old.data.get("form") == "wheel") == (wheel is not None):
            base = old.artifact.file.rsplit("/", 1)[-1]
            if wheel is None or wheel.name == base or any(w.name == base for w in one.wheels):
                return old.artifact
        file = wheel or one.sdist
        if file is None:
            raise CregraphError(f"Python package {one.name} {one.version} has no matching file", hint="choose another version")
        place = f"{one.name}/{file.name}"
        if not is_place(place):
            raise CregraphError(
                f"Python package {one.name} {one.version}: `{file.name[:200]}` in its index is not the name of a wheel or sdist",
                hint="choose another version, or ask the operator of the index",
            )
        if file.sha256 and file.size:
            return Artifact(kind="python", source="pypi", file=place, sha256=file.sha256, size=file.size)
        taken, _ = sources.take(kind="python", source="pypi", file=place)  # an index that does not say sha256 and size
        if file.sha256 and taken.sha256 != file.sha256:
            raise CregraphError(f"{file.name} has sha256:{taken.sha256}, but its index says sha256:{file.sha256}")
        return Artifact(kind="python", source="pypi", file=place, sha256=taken.sha256, size=taken.size)

    found = resolve(sources, question) if question.requirements else ()
    chosen = [(one, wheel_of(one, question.python, question.glibc)) for one in found]
    for one, wheel in chosen:
        if wheel is None and building:
            raise CregraphError(
                f"building {building} needs {one.name} {one.version}, which has no matching wheel",
                hint="choose another version",
            )
    with ThreadPoolExecutor(max_workers=8) as pool:
        artifacts = pool.map(lambda each: artifact(*each), chosen)
        return [(one, wheel, each) for (one, wheel), each in zip(chosen, artifacts, strict=True)]


def _building(
    one: Found, artifact: Artifact, target: Target, sources: Sources, context: PinContext, locked: Mapping[str, Pin]
) -> tuple[list[Pin], dict[str, Json]]:
    """Return the pins of what the sdist's build needs, and the data of the sdist's own pin."""
    facts = context.facts
    assert facts is not None and facts.python is not None
    what = f"{one.name} {one.version}"
    if not any(isinstance(a.what, Mapping) and "build" in a.what for a in target.asks):
        raise CregraphError(
            f"Python package {what} has no wheel for Python {facts.python.version} on x86-64 Linux with glibc {facts.glibc}, and "
            "no step describes its build",
            hint="add `build:` (conda: {prefix, specs}, env) to the step that asks for it, or choose a version that has a wheel",
        )
    system = build_system(sources.fetch(artifact), what=artifact.file.rsplit("/", 1)[-1])
    prefix = f"build:{one.name}:"
    root = context.build_root
    question = Question(
        requirements=system.requires,
        python=facts.python.version,
        glibc=root.glibc if root is not None and root.glibc else facts.glibc,
        base={},
        keep={name.removeprefix(prefix): p.version for name, p in locked.items() if name.startswith(prefix)},
        as_of=context.as_of,
        wheels_only=True,
    )
    try:
        chosen = _choose(question, sources, locked, prefix=prefix, building=what)
    except Unanswered as error:
        raise CregraphError(
            f"no set of wheels satisfies the build requirements of {what}:\n{error.message}",
            hint="choose a version that has a wheel",
        ) from None
    pins = [
        Pin(
            name=prefix + one_.name,
            version=one_.version,
            artifact=wheel,
            provides=(f"{prefix}{one_.name} {one_.version}",),
            data={"form": "wheel", "role": "build", "for": one.name},
        )
        for one_, _, wheel in chosen
    ]
    data: dict[str, Json] = {"form": "sdist", "backend": system.backend}
    if system.path:
        data["backend_path"] = list(system.path)
    return pins, data
