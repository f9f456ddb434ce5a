"""The conda channel: Debian's packages, repackaged with the dependencies that Debian's control data gives."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import debtree, interpreter, names, relocate
from .apt import Package, Suite, upstream
from .conda import PLACEHOLDER, Recipe, write
from .description import read_description

_R_MINOR = "r-base >=4.2,<4.3.0a0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A conda package to be, and the Debian packages that it is made of."""

    name: str
    debs: tuple[str, ...]
    depends: tuple[str, ...]


def plan(suite: Suite) -> list[Planned]:
    """What the channel holds: the roots and the closure of what they need, sorted by name."""
    python = (*interpreter.RUNTIME, *interpreter.HEADERS)
    todo = ["r-base", "python", "libcurl", "openssl", *names.R_BUILD, *(f"r-{name}" for name in names.R_ROOTS)]
    compiled = {f"r-{name}" for name in names.COMPILED}
    planned: dict[str, Planned] = {}
    while todo:
        name = todo.pop()
        if name in planned or name in compiled:
            continue
        debs = {"python": python, "r-base": ("r-base-core",)}.get(name) or names.GROUPS.get(name)
        debs = debs or (name.replace("r-", "r-cran-", 1) if name.startswith("r-") else name,)
        depends = _depends(suite, name, debs)
        if name == "r-base":
            depends |= {other: "" for other in names.R_BUILD if other not in depends}
        if name == "zlib":
            depends["libzlib"] = f"=={upstream(suite.packages['zlib1g'].version)}"
        planned[name] = Planned(
            name=name, debs=debs, depends=tuple(f"{key} {value}".strip() for key, value in sorted(depends.items()))
        )
        todo.extend(other for other in depends if not other.startswith("__"))
    return sorted(planned.values(), key=lambda one: one.name)


def build(suite: Suite, planned: list[Planned], patchelf: Path, channel: Path, scratch: Path) -> None:
    """Write the packages of a plan into `channel`."""
    debs = suite.debs([deb for one in planned for deb in one.debs])

    def one(package: Planned) -> None:
        stage = scratch / package.name
        debtree.unpack([debs[deb] for deb in package.debs], stage)
        _adapt(package.name, stage)
        debtree.own_libraries(stage, patchelf)
        write(stage, _recipe(suite, package, stage), channel)
        shutil.rmtree(stage)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, sorted(planned, key=lambda one: -sum(debs[deb].stat().st_size for deb in one.debs))))


def _adapt(name: str, stage: Path) -> None:
    relocate.pkgconfig(stage)
    relocate.fonts(stage)
    if name == "r-base":
        relocate.r_base(stage)
    if name == "python":
        interpreter.make_upstream(stage, PLACEHOLDER)
        (stage / f"lib/python{interpreter.MINOR}/EXTERNALLY-MANAGED").unlink()


def _recipe(suite: Suite, package: Planned, stage: Path) -> Recipe:
    first: Package = suite.packages[package.debs[0]]
    version = conda_version(first)
    license = "see info/licenses"
    for description in stage.glob("lib/R/library/*/DESCRIPTION"):
        if package.name != "r-base":
            fields = read_description(description.read_text(errors="replace"))
            version, license = fields["Version"].replace("-", "_"), fields.get("License", license)
    return Recipe(
        name=package.name,
        version=version,
        build="r42deb12_0" if package.name.startswith("r-") and package.name != "r-base" else "deb12_0",
        depends=package.depends,
        license=license,
        summary=f"{first.description} (repackaged from Debian's {first.name} {first.version})",
        home=first.homepage,
    )


def conda_version(package: Package) -> str:
    if package.name == "r-base-core":
        return "4.2.2"
    return upstream(package.version).replace("-", "_")


def _depends(suite: Suite, name: str, debs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for deb in debs:
        for choices in suite.packages[deb].depends:
            other, relation = _chosen(suite, choices)
            if other == "libc6":
                other, relation = "__glibc", relation or ">= 2.17"
            elif other == "r-api-4.0":
                found["r-base"] = _R_MINOR.removeprefix("r-base ")
                continue
            else:
                mapped = names.conda_name(other)
                if mapped is None or mapped in (name, "libc6-dev") or other.startswith(("libpython3", "python3")):
                    continue
                if deb.endswith("-dev") and mapped not in names.GROUPS:
                    continue
                other = mapped
            if other == "r-base":
                found.setdefault("r-base", _R_MINOR.removeprefix("r-base "))
                continue
            version = _relation(relation)
            if version or other not in found:
                found[other] = max(found.get(other, ""), version, key=len)
    return found


def _chosen(suite: Suite, choices: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    for name, relation in choices:
        if name in suite.packages or name == "r-api-4.0":
            return name, relation
    for name, _ in choices:
        for package in suite.packages.values():
            if name in package.provides:
                return package.name, ""
    raise AssertionError(f"nothing in {suite.name} is {choices}")


def _relation(relation: str) -> str:
    found = re.match(r"(>=|=)\s*(\S+)", relation)
    if not found:
        return ""
    version = re.split(r"[+~]", upstream(found[2]))[0].replace("-", "_")
    return f">={version}"
