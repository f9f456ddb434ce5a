"""`cregraph doctor`."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from cregraph.cli.options import AsJson, Builder, Context, Profile, Sources
from cregraph.cli.terminal_output import as_json, megabytes, result
from cregraph.engines import choice
from cregraph.errors import CregraphError
from cregraph.image.media.registry_credentials import docker_credentials
from cregraph.session.project import Project
from cregraph.sources.routes import Routes
from cregraph.store import Store

__all__ = ["Finding", "doctor"]

_NO_CREDENTIALS = "no credentials, so cregraph reads only public images and cannot push"
_SPACE = 5 << 30  # bytes; a build of R's packages takes about 2 GiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One result. `hint` says how to repair it. No build runs here without an `ok` of what is `needed`."""

    what: str
    ok: bool
    text: str
    hint: str | None = None
    needed: bool = True


def doctor(
    profile: Profile = None,
    builder: Builder = None,
    context: Context = None,
    sources: Sources = None,
    json: AsJson = False,
) -> None:
    """Check whether this machine can build."""
    choice.check("auto", builder=builder, context=context)
    # Other commands need a profile. This one asks about the machine, not about the project.
    project = Project.of(profile) if profile else Project(profile=Path("cregraph.yaml"))
    found = [_python(), _compressor(), *_store(project)]
    routes = _routes(project, sources, found)
    found += _registries(project, routes)
    engines, auto = _engines(project.store(), builder, context)
    found += engines
    well = all(each.ok for each in found if each.needed)
    if json:
        as_json({"ok": well, "engine": auto, "findings": [asdict(each) for each in found]})
    else:
        for each in found:
            result(f"{'ok' if each.ok else 'no'}  {each.what}: {each.text}")
            if each.hint and not each.ok:
                for line in each.hint.splitlines():
                    result(f"      {line}")
        result("a build can run here" if well else "a build cannot run here yet")
    raise typer.Exit(0 if well else 1)


def _python() -> Finding:
    version = platform.python_version()
    text = f"{version} on {platform.system()} {platform.machine()}, {sys.executable}"
    return Finding(what="python", ok=sys.version_info >= (3, 11), text=text, hint="install Python 3.11 or later")


def _compressor() -> Finding:
    from cregraph.image.model.gzip_members import check_compressor

    try:
        check_compressor()
    except CregraphError as error:
        return Finding(what="compressor", ok=False, text=error.message, hint=error.hint)
    except ImportError as error:
        return Finding(
            what="compressor", ok=False, text=f"it is not installed ({error})", hint="run `pip install deflate==0.9.0`"
        )
    return Finding(what="compressor", ok=True, text="gives the expected bytes")


def _store(project: Project) -> Iterator[Finding]:
    store = project.store()
    elsewhere = "use another folder: set CREGRAPH_CACHE=DIR, or make a folder `cache` in the project"
    try:
        with store.scratch_folder() as folder:
            (folder / "probe").write_bytes(b"probe")
    except (OSError, CregraphError) as error:
        words = error.message if isinstance(error, CregraphError) else f"cannot be written: {error.strerror}"
        yield Finding(what="store", ok=False, text=f"{store.root}: {words}", hint=elsewhere)
        return
    yield Finding(what="store", ok=True, text=f"{store.root} is writable")
    free = shutil.disk_usage(store.root).free
    hint = f"run `cregraph cache gc` to delete what no lock needs, or {elsewhere}"
    yield Finding(what="space", ok=free >= _SPACE, text=f"{megabytes(free)} free", hint=hint, needed=False)


def _routes(project: Project, sources: str | None, found: list[Finding]) -> Routes:
    """Return the addresses of sources, and add a finding about them to `found`."""
    try:
        routes = project.routes(sources, registry_url=None)
    except CregraphError as error:
        found.append(Finding(what="sources", ok=False, text=error.message, hint=error.hint))
        return Routes()
    text = f"from {routes.origin}" if routes.origin != Routes().origin else "public sources (no sources.yaml)"
    found.append(Finding(what="sources", ok=True, text=text))
    return routes


def _registries(project: Project, routes: Routes) -> Iterator[Finding]:
    """Yield whether there are credentials for each known registry. cregraph neither shows nor tries them."""
    hosts = {registry.host: name for name, registry in sorted(routes.registry.items(), reverse=True)}
    try:
        url = project.asked().composition.profile.registry_url if project.profile.is_file() else None
    except CregraphError:
        url = None  # `cregraph lock` says what is wrong with a profile
    if url:
        hosts.setdefault(url.split("/")[0], "the profile's")
    for host, name in sorted(hosts.items()):
        what = f"registry {host} ({name})"
        try:
            there = bool(docker_credentials(host))
        except CregraphError as error:
            yield Finding(what=what, ok=False, text=error.message, hint=error.hint, needed=False)
            continue
        text = "has credentials" if there else _NO_CREDENTIALS
        yield Finding(what=what, ok=there, text=text, hint=f"run `docker login {host}`", needed=False)


def _engines(store: Store, builder: str | None, context: str | None) -> tuple[list[Finding], str | None]:
    """Return a finding for each engine and one for all, and the name of the engine that `auto` uses."""
    states = choice.engine_states(store, builder=builder, context=context)
    found = [
        Finding(what=f"engine {one.name}", ok=one.reason is None, text=one.reason or "works", hint=one.hint, needed=False)
        for one in states
    ]
    auto = next((one.name for one in states if one.reason is None), None)
    text = f"auto uses {auto}" if auto else "no engine works here, so cregraph cannot compile packages"
    hint = "repair one of the two, or use a Docker engine on another machine: `--context NAME` or DOCKER_HOST=ssh://USER@HOST"
    return [*found, Finding(what="engine", ok=auto is not None, text=text, hint=hint)], auto
