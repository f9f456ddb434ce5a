"""The size and shape of the code. Lists of exceptions only shrink: an entry that is no longer needed fails its test."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cregraph.cli.app import COMMANDS
from tests.test_architecture import PACKAGE, modules, tree

ROOT = PACKAGE.parent

MOST_ROOT_MODULES = 8
MOST_LINES = 35_000
LONG = 300
LONG_IN_CLI = 150
COMPLEX = 15

#: Exceptions that stand in limits.toml and only shrink. `python -m tests.test_invariants` deletes those that are not needed.
LIMITS = Path(__file__).with_name("limits.toml")
#: An ecosystem may have one name in several packages.
ECOSYSTEM_NAMES = {"conda", "cran", "images"}
#: Declared for a command that is not written yet.
NOT_YET_IMPORTED: set[str] = set()
#: Distributions whose module has another name.
MODULE_NAMES = {"pyyaml": "yaml", "py-rattler": "rattler", "conda-lock": "conda_lock"}


@cache
def limits() -> dict[str, list[str]]:
    return tomllib.loads(LIMITS.read_text(encoding="utf-8"))


def check(section: str, found: set[str]) -> None:
    """Fail for what is found and not listed, and for what is listed and not found."""
    listed = set(limits()[section])
    assert sorted(found - listed) == [], f"new: see [{section}] of {LIMITS.name}"
    assert sorted(listed - found) == [], f"delete these from {LIMITS.name}: python -m tests.test_invariants"


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_the_root_of_the_package_has_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_ROOT_MODULES


def test_the_package_stays_small() -> None:
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".sh")]
    assert sum(path.read_text(encoding="utf-8").count("\n") for path in files) <= MOST_LINES


def test_modules_of_different_meaning_have_different_names() -> None:
    """A module of cli/ is called as its command, and an ecosystem may have one name in several packages."""
    names = Counter(
        module.rpartition(".")[2]
        for module in modules()
        if path_of(module).name != "__init__.py"
        and not (module.startswith("cli.") and module.removeprefix("cli.") in COMMANDS)
        and module.rpartition(".")[2] not in ECOSYSTEM_NAMES
    )
    assert sorted(name for name, count in names.items() if count > 1) == []


def test_a_module_is_read_in_one_sitting() -> None:
    check("long_modules", long_modules())


def test_modules_of_the_command_line_are_short() -> None:
    cli = [module for module in modules() if module.startswith("cli.")]
    lengths = {module: path_of(module).read_text(encoding="utf-8").count("\n") for module in cli}
    assert {module: length for module, length in lengths.items() if length > LONG_IN_CLI} == {}


def long_modules() -> set[str]:
    return {module for module in modules() if path_of(module).read_text(encoding="utf-8").count("\n") > LONG}


def functions() -> Iterator[tuple[str, int]]:
    """`module:function` (or `module:Class.method`) and its complexity, as radon counts it."""
    from radon.complexity import cc_visit

    for module in modules():
        for block in cc_visit(path_of(module).read_text(encoding="utf-8")):
            if block.letter == "C":
                yield from ((f"{module}:{block.name}.{method.name}", method.complexity) for method in block.methods)
            elif not getattr(block, "classname", None):
                yield f"{module}:{block.name}", block.complexity


def test_functions_are_simple() -> None:
    check("complex_functions", complex_functions(COMPLEX))


def test_functions_of_twenty_branches_are_in_engines_only() -> None:
    check("very_complex_functions", {name for name in complex_functions(20) if not name.startswith("engines.")})


def complex_functions(most: int) -> set[str]:
    return {name for name, count in measured() if count > most}


@cache
def measured() -> tuple[tuple[str, int], ...]:
    return tuple(functions())


def test_every_declared_dependency_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["conda-lock"]]
    names = {re.match(r"[A-Za-z0-9-]+", line).group() for line in declared}  # type: ignore[union-attr]
    imported = set()
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    assert {name for name in names if MODULE_NAMES.get(name, name) not in imported} == NOT_YET_IMPORTED


@cache
def kinds() -> frozenset[str]:
    from cregraph.kinds import KINDS

    return frozenset(KINDS)


def kind_comparisons(module: str) -> Iterator[str]:
    """Comparisons with a kind's name, tables by kinds' names, and texts that begin like a target's id (`file://` is a URL)."""

    def names(node: ast.AST) -> list[str]:
        inner = node.elts if isinstance(node, ast.Tuple | ast.Set | ast.List) else [node]
        return [str(each.value) for each in inner if isinstance(each, ast.Constant) and each.value in kinds()]

    def is_kind(node: ast.AST) -> bool:
        return bool(re.search(r"(^|[._])(kind|ecosystem|group|section)s?(\(.*\))?$", ast.unparse(node)))

    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(names(side) for side in sides) and any(is_kind(side) for side in sides):
                yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Dict):
            if sum(bool(key is not None and names(key)) for key in node.keys) > 1:
                yield f"{node.lineno}: a table by kind"
        elif isinstance(node, ast.Tuple | ast.Set | ast.List) and len(set(names(node))) > 2:
            yield f"{node.lineno}: a list of kinds"
        elif isinstance(node, ast.Constant) and re.match(rf"(?!file://)({'|'.join(sorted(kinds()))}):[^ ]*$", str(node.value)):
            yield f"{node.lineno}: {node.value!r}"


def test_only_kinds_know_the_names_of_kinds() -> None:
    check("kind_names", kind_names())


def kind_names() -> set[str]:
    """Modules outside kinds/ that know the name of a kind. The demo makes a channel, a CRAN and an index by design."""
    return {m for m in modules() if m.split(".")[0] not in ("kinds", "demo") and any(kind_comparisons(m))}


def defined(module: str) -> Iterator[str]:
    """Public functions, classes, constants and methods of a module, as `name` or `Class.name`."""
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                    yield f"{node.name}.{each.name}"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (t.id for t in targets if isinstance(t, ast.Name) and not t.id.startswith("_"))


@cache
def uses() -> Counter[str]:
    """How often each name stands in the package as code, definitions included; names inside f-strings count too."""
    found: Counter[str] = Counter()
    for module in modules():
        for token in tokenize.generate_tokens(io.StringIO(path_of(module).read_text(encoding="utf-8")).readline):
            if token.type == tokenize.NAME:
                found[token.string] += 1
            elif token.type == tokenize.STRING and re.match(r"[rR]?[fF]", token.string):
                found.update(re.findall(r"[A-Za-z_]\w+", " ".join(re.findall(r"\{([^{}]*)\}", token.string))))
    return found


def test_every_public_name_has_a_caller() -> None:
    check("without_caller", without_caller())


def without_caller() -> set[str]:
    names = [(module, name, name.rpartition(".")[2]) for module in modules() for name in defined(module)]
    definitions = Counter(last for _, _, last in names)
    called = {*CALLED_BY_OTHERS, *COMMANDS}
    return {f"{module}:{name}" for module, name, last in names if uses()[last] <= definitions[last] and last not in called}


#: Names that Python or a library calls; io asks a raw file for `readable` and `readinto`.
CALLED_BY_OTHERS = {"readable", "readinto", "handle_starttag", "get_help"}


def main() -> None:
    """Delete the exceptions that are not needed any more."""
    found_now = {
        "long_modules": long_modules(),
        "complex_functions": complex_functions(COMPLEX),
        "very_complex_functions": {name for name in complex_functions(20) if not name.startswith("engines.")},
        "kind_names": kind_names(),
        "without_caller": without_caller(),
    }
    lines = [
        "# Exceptions of test_invariants.py. The lists only shrink; `python -m tests.test_invariants` deletes what is not needed."
    ]
    for section, found in found_now.items():
        kept = sorted(found & set(limits()[section]))
        lines += ["", f"{section} = [", *(f'  "{name}",' for name in kept), "]"]
    rest = LIMITS.read_text(encoding="utf-8").partition("[docstrings]\n")[2]  # for test_docstrings.py and test_style.py
    LIMITS.write_text("\n".join([*lines, "", "[docstrings]\n"]) + rest, encoding="utf-8")


if __name__ == "__main__":
    main()
