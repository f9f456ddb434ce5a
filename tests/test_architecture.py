"""Imports point one way, and what prints, asks the clock or loads slowly stands where it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Protocol

import pytest

from cregraph.kinds import KINDS
from cregraph.kinds.base import Kind

PACKAGE = Path(__file__).parent.parent / "cregraph"

#: Units of the package, lowest first. A module imports its own unit and lower ones. Its unit is the longest name that fits.
ORDER = (
    *("errors", "digest", "text", "scheduler", "http", "formats", "profile", "lock"),
    *("plan.parts", "plan.layer_split"),
    *(
        "store",
        "image",
        "sources",
        "vendor.vendor_files",
        "verify.installed",
        "kinds",
        "plan",
        "resolve",
        "engines",
        "build",
        "store.gc",
    ),
    *("remote_cache", "vendor", "export", "verify", "smoke", "demo", "session", "review", "init"),
    *("__init__", "cli", "__main__"),
)
#: Imports against the order, each with its reason. The list only shrinks.
AGAINST = {}
#: Units without I/O, clock or environment.
PURE = {"errors", "digest", "profile", "lock", "plan.parts", "plan.layer_split", "plan", "resolve", "review"}
#: Modules of `kinds/` that every kind may import.
SHARED_BY_KINDS = {"kinds", "kinds.base", "kinds.defaults", "kinds.image_paths"}
#: Programs of their own: what they print is their answer to the process that started them.
PROGRAMS = {"sources.conda_worker", "engines.enter", "smoke.driver", "export.installer"}
HEAVY = {"rattler", "docker", "networkx", "rich", "urllib3", "requests", "uv", "zstandard", "deflate", "jsonschema", "conda_lock"}
OUTSIDE = {
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


def unit(module: str) -> str:
    """The longest name in ORDER that `module` is, or lies below."""
    return max((name for name in ORDER if module == name or module.startswith(f"{name}.")), key=len)


def test_every_module_has_its_unit() -> None:
    """A new module at the root is put into ORDER here, above what it imports."""
    assert [m for m in modules() if not any(m == name or m.startswith(f"{name}.") for name in ORDER)] == []


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    own = unit(module)
    wrong = [
        target
        for target in ours(module)
        if target != "__init__" and unit(target) != own and ORDER.index(unit(target)) >= ORDER.index(own)
    ]
    assert sorted(target for target in wrong if (module, target) not in AGAINST) == []


def test_exceptions_to_the_order_are_needed() -> None:
    assert [pair for pair in AGAINST if pair[1] not in ours(pair[0])] == []


@pytest.mark.parametrize("module", [m for m in modules() if m.startswith("kinds.")])
def test_kinds_never_import_each_other(module: str) -> None:
    """A kind finds the pins of another by the tokens that these provide."""
    family = module.split(".")[1]
    others = [t for t in ours(module) if t.startswith("kinds.") and t not in SHARED_BY_KINDS and t.split(".")[1] != family]
    assert sorted(others) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_has_every_name_of_the_protocol(name: str) -> None:
    """Stated by the kind, or given to it from kinds/defaults.py."""
    module = KINDS[name]
    assert name == module.NAME
    wanted = {each for base in Kind.__mro__ for each in (*vars(base), *getattr(base, "__annotations__", ())) if each[0] != "_"}
    assert {"ask", "pin", "place", "entries", "scope", "FIELDS", "BUCKETS"} <= wanted
    assert sorted(each for each in wanted if not hasattr(module, each)) == []


def test_parts_of_kinds_have_the_names_of_their_protocol() -> None:
    from cregraph.kinds import KINDS, parts
    from cregraph.vendor.vendor_files import VendorRules
    from cregraph.verify.installed import VerifyRules

    names = {
        **{part: set(dir(rules)) - set(dir(Protocol)) for part, rules in (("vendor", VendorRules), ("verify", VerifyRules))},
        "entries": {"entries"},
        "smoke": {"checks"},
        "notes": {"notes"},
        "hints": {"FAILED", "FIELD", "PATTERNS", "USUAL", "ways_out"},
    }
    assert {part for kind in KINDS.values() for part in kind.PARTS} == set(names)
    for part in names:
        for name, module in parts(part).items():
            assert sorted(each for each in names[part] if not each.startswith("_") and not hasattr(module, each)) == [], name


def test_nobody_imports_the_command_line() -> None:
    assert [m for m in modules() if unit(m) not in ("cli", "__main__") and any(t.split(".")[0] == "cli" for t in ours(m))] == []


@pytest.mark.parametrize("module", [m for m in modules() if unit(m) in PURE])
def test_pure_units_do_no_input_or_output(module: str) -> None:
    """No file, process, socket, clock or environment, and no reading of today's date."""
    assert sorted({name.split(".")[0] for name, _ in imported(module)} & OUTSIDE) == []
    called = {
        node.func.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    named = {node.func.id for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"now", "today", "utcnow"} | named & {"open", "input"}


@pytest.mark.parametrize("module", [m for m in modules() if unit(m) not in ("cli", "__main__") and m not in PROGRAMS])
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


def test_no_module_is_named_for_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "models"}
    assert [m for m in modules() if m.rpartition(".")[2] in empty] == []
