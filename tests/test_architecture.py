"""Imports point one way, and what prints, asks the clock or loads slowly stands where it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cregraph"

#: What things are: no I/O, no clock, no environment.
NOUNS = {
    *("errors", "digest", "pins", "plan", "facts", "lock", "stale", "holes", "graph", "diff", "trial", "outputs"),
    *("values", "references", "recipe", "profile", "schema", "compose"),
}
#: Room -> what its modules may import besides themselves. A name is a module or a room (a folder, all of it).
ROOMS: dict[str, set[str]] = {
    "nouns": {"nouns", "formats.yaml_marks"},
    "formats": {"errors", "digest", "facts", "pins", "lock"},
    "store": {"errors", "digest"},
    "image": {"nouns", "store"},
    "schedule": {"errors"},
    "engines": {"nouns", "store", "image", "schedule"},
    "kinds": {"nouns", "formats", "sources", "image.entry", "image.reference"},
    "sources": {"nouns", "formats", "store", "image"},
    "planning": {"nouns", "kinds", "image.split"},
    "resolve": {"nouns", "kinds"},
    "work": {"nouns", "image.split"},
    "making": {"work", "nouns", "planning", "kinds", "store", "image", "engines", "schedule"},
    "build": {"work", "nouns", "planning", "kinds", "store", "image", "engines", "making"},
    "outlook": {"work", "nouns", "planning", "image.split", "store.throughput"},
    "upkeep": {"nouns", "formats", "planning", "store", "image", "engines"},
    "revision": {"nouns", "formats"},
    "vendor": {"nouns", "formats", "sources", "store", "image"},
    "compare": {"errors", "digest"},
    "rebuild": {"nouns", "planning", "store", "image", "build", "compare"},
    "export": {"nouns", "planning", "kinds", "sources", "store", "image", "engines", "build"},
    "verify": {"nouns", "formats", "planning", "store", "image"},
    "shared": {
        "nouns",
        "planning",
        "sources",
        "store",
        "image",
        "engines",
        "build",
        "making",
        "work",
        "kinds",
        "rebuild",
        "compare",
    },
    "project": {"nouns", "kinds", "formats", "sources", "store"},
    "demo": {"errors", "digest"},
    "trial_driver": set(),  # goes into a container as it stands
    "cli": {
        *("nouns", "planning", "resolve", "build", "making", "project", "demo", "shared", "rebuild", "upkeep"),
        *("vendor", "export", "verify", "work", "outlook", "revision"),
        *("kinds", "sources", "formats", "store", "image", "engines"),
    },
    "__init__": set(),
    "__main__": {"cli"},
}
#: Single imports beyond their room's, each with its reason.
BESIDES = {
    ("compose", "kinds.base"): "a step is what compose makes and a kind reads",
    ("diff", "planning"): "which stages rebuild is a question to two plans",
    ("sources.cran", "kinds.base"): "the protocol World, for types only",
    ("sources.python_index", "kinds.base"): "the protocol World, for types only",
}
#: Modules of a kind that do not begin with its name.
FAMILY = {"wheel_files": "python"}
SHARED_BY_KINDS = {"base", "places"}
#: Programs of their own: what they print is their answer to the process that started them.
PROGRAMS = {"sources.conda_worker", "engines.enter", "trial_driver", "export.installer"}
HEAVY = {"rattler", "docker", "networkx", "rich", "urllib3", "requests", "uv", "zstandard", "deflate", "jsonschema", "conda_lock"}
WORLD = {
    *("os", "sys", "subprocess", "socket", "urllib", "http", "tempfile", "shutil", "time", "random"),
    *("threading", "asyncio", "pathlib"),
}


@cache
def modules() -> list[str]:
    """Every module by its name without `cregraph.`; a folder's own is the folder."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts))
    return sorted(found)


@cache
def tree(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8"))


def imported(module: str) -> Iterator[tuple[str, ast.stmt]]:
    """Full names of what a module imports anywhere in it, names out of a package as modules."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: line {node.lineno}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("cregraph.") in modules() else str(node.module), node


def ours(module: str) -> set[str]:
    names = {name.removeprefix("cregraph.") for name, _ in imported(module) if name.startswith("cregraph.")}
    return names | {"__init__" for name, _ in imported(module) if name == "cregraph"}


def room(module: str) -> str:
    first = module.split(".")[0]
    return "nouns" if module in NOUNS else first


def allowed(importer: str, target: str) -> bool:
    of, to = room(importer), room(target)
    if target == "__init__":
        return True  # the version
    return of == to or bool({to, target} & ROOMS[of]) or (importer, target) in BESIDES


def test_every_module_has_its_room() -> None:
    """A new module at the root is put into NOUNS or ROOMS here, with what it may know."""
    assert sorted({room(module) for module in modules()} - ROOMS.keys()) == []


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    assert sorted(target for target in ours(module) if not allowed(module, target)) == []


def test_what_is_allowed_besides_is_needed() -> None:
    known = set(modules())
    stale = [pair for pair in BESIDES if pair[0] in known and pair[1] not in ours(pair[0])]
    assert stale == []


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("kinds.")])
def test_kinds_never_import_each_other(module: str) -> None:
    """What one needs of another is a token in `provides`."""

    def family(name: str) -> str:
        return FAMILY.get(name, name.split("_")[0])

    own = module.removeprefix("kinds.")
    others = {target.removeprefix("kinds.") for target in ours(module) if target.startswith("kinds.")} - SHARED_BY_KINDS
    assert sorted(other for other in others if family(other) != family(own)) == []


def test_every_kind_has_the_four_verbs() -> None:
    from cregraph.kinds import KINDS, kind

    for name in KINDS:
        module = kind(name)
        assert name == module.NAME
        for verb in ("ask", "pin", "place", "entries"):
            assert callable(getattr(module, verb)), f"{name} has no `{verb}`"


def test_nobody_imports_the_command_line() -> None:
    assert [m for m in modules() if room(m) not in ("cli", "__main__") and any(t.split(".")[0] == "cli" for t in ours(m))] == []


@pytest.mark.parametrize("module", [*sorted(NOUNS & set(modules())), "planning", "resolve"])
def test_nouns_and_choices_do_not_reach_for_the_world(module: str) -> None:
    """No file, process, socket, clock or environment, and no reading of today's date."""
    assert sorted({name.split(".")[0] for name, _ in imported(module)} & WORLD) == []
    called = {
        node.func.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    named = {node.func.id for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"now", "today", "utcnow"} | named & {"open", "input"}


@pytest.mark.parametrize("module", [m for m in modules() if room(m) not in ("cli", "__main__") and m not in PROGRAMS])
def test_only_the_command_line_prints_or_exits(module: str) -> None:
    found = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            said = ast.unparse(node.func)
            if said in ("print", "sys.exit", "exit", "quit", "os._exit", "sys.stdout.write", "sys.stderr.write"):
                found.append(f"line {node.lineno}: {said}")
        elif isinstance(node, ast.Name) and node.id == "SystemExit":
            found.append(f"line {node.lineno}: SystemExit")
    assert found == []


@pytest.mark.parametrize("module", [m for m in modules() if m not in PROGRAMS])
def test_what_loads_slowly_is_imported_where_it_is_used(module: str) -> None:
    """At the top of a module only for types (under TYPE_CHECKING, which is indented)."""
    assert sorted(name for name, node in imported(module) if node.col_offset == 0 and name.split(".")[0] in HEAVY) == []


@pytest.mark.parametrize("module", modules())
def test_a_module_is_read_in_one_sitting(module: str) -> None:
    path = PACKAGE.joinpath(*module.split("."))
    lines = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8").count("\n")
    assert lines <= 450


def test_no_module_is_named_for_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "models"}
    assert [m for m in modules() if m.rpartition(".")[2] in empty] == []
