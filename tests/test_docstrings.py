"""Public docstrings: functions begin with an imperative verb, classes and modules with a noun phrase, all in plain English.

`[docstrings]` of limits.toml lists the packages and modules that do not follow this yet. The list only shrinks.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.test_docs import ROOT
from tests.test_style import patterns

LIMITS = Path(__file__).with_name("limits.toml")
#: First words of functions, in the imperative.
VERBS = frozenset(Path(__file__).with_name("docstring_verbs.txt").read_text(encoding="utf-8").split())
#: First words of classes and modules that are nouns, although they are also verbs of functions.
NOUNS = frozenset({"Check", "Count", "Download", "Link", "List", "Lock", "Note", "Place", "Plan", "Record", "Report", "Upload"})
#: First words of classes and modules that do not begin a noun phrase.
OTHERS = frozenset(
    {"From", "How", "Somebody", "Where", "Which", "Why", *(f"{verb}s" for verb in VERBS - NOUNS - {"Build", "Run"})}
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


def public(tree: ast.Module) -> Iterator[Documented]:
    """Yield a module, the functions and classes in its `__all__`, and the public methods of these classes."""
    yield tree
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names |= {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | Function) and node.name in names:
            yield node
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, Function) and not part.name.startswith("_"):
                    yield part


def is_property(node: Documented) -> bool:
    """Return whether a function is read like an attribute."""
    return isinstance(node, Function) and any("property" in ast.unparse(each) for each in node.decorator_list)


def findings(tree: ast.Module) -> Iterator[str]:
    """Yield each public docstring of a module that breaks a rule, with its line and the rule."""
    for node in public(tree):
        text = ast.get_docstring(node)
        if text is None:
            continue
        first = text.split()[0].strip("`:,.;")
        place = f"{getattr(node, 'lineno', 1)}: {getattr(node, 'name', 'module')}"
        if isinstance(node, Function) and not is_property(node) and first not in VERBS:
            yield f"{place}: `{first}` is not a verb in tests/docstring_verbs.txt"
        if not isinstance(node, Function) and first in OTHERS | VERBS - NOUNS:
            yield f"{place}: begins with `{first}` (expected a noun phrase)"
        for pattern, instead in patterns():
            for match in pattern.finditer(" ".join(text.split())):
                yield f"{place}: `{match[0].strip()}`: write {instead}"


def areas() -> dict[str, list[str]]:
    """Return the findings of each package, and of each module at the root."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "cregraph").rglob("*.py")):
        name = path.relative_to(ROOT / "cregraph")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found.setdefault(name.parts[0], []).extend(f"cregraph/{name}:{each}" for each in findings(tree))
    return found


def test_public_docstrings_follow_the_rules() -> None:
    not_done = tomllib.loads(LIMITS.read_text(encoding="utf-8"))["docstrings"]["not_done"]
    found = areas()
    assert [each for area, listed in found.items() if area not in not_done for each in listed] == []
    assert [area for area in not_done if not found.get(area)] == [], "remove these from [docstrings] in limits.toml"


def test_the_rules_find_each_fault() -> None:
    functions = '__all__ = ["A", "f", "g"]\ndef f(): "Returns 1."\ndef g(): "Return 1 anew."\ndef h(): "Returns 2."\n'
    module = functions + 'class A:\n "Run it."\n @property\n def size(self): "Number of bytes."\n'
    assert [each.split(":")[0] for each in findings(ast.parse(module))] == ["2", "3", "5"]
