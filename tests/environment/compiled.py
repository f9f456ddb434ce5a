"""R packages that Debian 12 has too old, compiled from Debian 13's sources with the channel's own R.

They are compiled where they will be used, under the prefix of the recipes, inside the build root: what comes out is
packed like everything else, and that it comes out shows that the channel compiles.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from graphlib import TopologicalSorter
from pathlib import Path

from . import conda, debtree, names
from .apt import Suite
from .command import run, run_in
from .description import needs, read_description
from .install import install

PREFIX = "/home/jupyter/micromamba/envs/workspace_env"
_BUILT = "2024-01-15 00:00:00 UTC"
# Libraries that the packages link, beside those that every one needs.
_LIBRARIES = {"curl": ("libcurl",)}


def workshop(build_tree: Path, channel: Path, into: Path) -> None:
    """The build root with everything of the channel installed at `PREFIX`: a place to compile R packages in."""
    run("cp", "-a", build_tree, into)
    (into / PREFIX[1:]).mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda package: install(package, into, PREFIX), sorted((channel / "linux-64").glob("*.conda"))))


def compile_all(suite: Suite, root: Path, patchelf: Path, channel: Path, scratch: Path) -> list[str]:
    """Compile `names.COMPILED` in the workshop `root` and write them into `channel`; the files written."""
    tarballs = suite.sources([f"r-cran-{name}" for name in names.COMPILED])
    sources: dict[str, dict[str, str]] = {}
    for tarball in tarballs.values():
        fields = unpack_source(tarball, root / "src")
        sources[fields["Package"]] = fields
    order = TopologicalSorter({name: set(needs(fields)) & set(sources) for name, fields in sources.items()})
    order.prepare()
    written = []

    def one(name: str) -> str:
        install_source(root, name)
        return _pack(root, sources[name], patchelf, channel, scratch / name).name

    with ThreadPoolExecutor(2) as pool:
        running = {}
        while order.is_active():
            for name in order.get_ready():
                running[name] = pool.submit(one, name)
            name = next(iter(running))
            written.append(running.pop(name).result())
            order.done(name)
    return sorted(written)


def unpack_source(tarball: Path, into: Path) -> dict[str, str]:
    """Unpack a source package to `into/<Package>` and read its DESCRIPTION; Debian's name of the top folder is no matter."""
    scratch = into / f".{tarball.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    with tarfile.open(tarball) as tar:
        tar.extraction_filter = lambda member, path: member  # the argument `filter` came with Python 3.11.4
        tar.extractall(scratch)
    (top,) = list(scratch.iterdir())
    fields = read_description((top / "DESCRIPTION").read_text(errors="replace"))
    shutil.rmtree(into / fields["Package"], ignore_errors=True)
    top.rename(into / fields["Package"])
    scratch.rmdir()
    return fields


def install_source(root: Path, name: str) -> None:
    """R CMD INSTALL of `/src/<name>` inside the workshop, without network; equal bytes each time."""
    r = f"{PREFIX}/bin/R"
    options = ("--no-test-load", f"--built-timestamp={_BUILT}")
    run_in(root, r, "CMD", "INSTALL", *options, f"/src/{name}", env={"MAKEFLAGS": "-j2", "R_DEFAULT_INTERNET_TIMEOUT": "1"})
    for library in sorted((root / PREFIX[1:] / f"lib/R/library/{name}/libs").glob("*.so")):
        run_in(root, "strip", "--strip-unneeded", f"{PREFIX}/lib/R/library/{name}/libs/{library.name}")


def _pack(root: Path, fields: dict[str, str], patchelf: Path, channel: Path, stage: Path) -> Path:
    name = fields["Package"]
    shutil.copytree(root / PREFIX[1:] / "lib/R/library" / name, stage / "lib/R/library" / name, symlinks=True)
    debtree.own_libraries(stage, patchelf)
    for path in stage.rglob("*"):
        if path.is_file() and PREFIX.encode() in path.read_bytes():
            _without_prefix(path)
    depends = ["r-base >=4.2,<4.3.0a0"]
    for other, relation in needs(fields).items():
        wanted = re.match(r">=\s*(\S+)", relation)
        depends.append(f"r-{other.lower()}" + (f" >={wanted[1].replace('-', '_')}" if wanted else ""))
    if list(stage.rglob("*.so")):
        depends += ["__glibc >=2.34", "libgcc >=12", "libstdcxx >=12", *_LIBRARIES.get(name, ())]
    recipe = conda.Recipe(
        name=f"r-{name.lower()}",
        version=fields["Version"].replace("-", "_"),
        build="r42comp_0",
        depends=tuple(sorted(depends)),
        license=fields.get("License", ""),
        summary=f"{fields.get('Title', name)} (compiled from the source that Debian 13 has)",
        home=fields.get("URL", "").split(",")[0].strip(),
    )
    package = conda.write(stage, recipe, channel)
    shutil.rmtree(stage)
    return package


def _without_prefix(path: Path) -> None:
    data = path.read_bytes()
    if b"\0" in data:
        raise AssertionError(f"{path} holds the prefix it was compiled at")
    path.write_bytes(data.replace(PREFIX.encode(), conda.PLACEHOLDER.encode()))
