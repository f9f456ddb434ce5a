"""The glossary defines the words that docs and code use: one line each, in order."""

from __future__ import annotations

import ast
import re

from tests.test_architecture import modules, tree
from tests.test_docs import DOCS, PAGES

#: The words that the design defines.
WORDS = [
    *(
        "profile",
        "recipe",
        "stage",
        "step",
        "ask",
        "kind",
        "target",
        "source",
        "pin",
        "lock",
        "stale",
        "inconsistent",
        "contract",
    ),
    *("gate", "finding", "segment", "task", "layer", "key", "tag", "digest", "base facts", "assembly", "outputs", "store"),
    "remote cache",
]
#: Modules whose classes an engineer meets first.
CENTRAL = [
    *("lock.pins", "lock.lock_file", "profile.step", "profile.stated", "profile.recipe", "profile.profile_file", "plan.parts"),
    *("plan.planner", "plan.missing_work", "kinds.base", "sources.protocol", "build.build_run", "session.session"),
]
#: Classes of these modules that are a part of another: their docstring is enough.
PARTS = {"StageRecord", "Found", "Library", "Input", "Event", "NotThere"}
PARTS |= {"StepRules", "LockRules", "LayerRules", "LocationRules", "VendorRules", "VerifyRules"}


def rows() -> list[tuple[str, str, str]]:
    """Word, class (or nothing) and meaning."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    return re.findall(r"^\| ([a-z][a-z -]*) \| (?:`(\w+)`)? ?\| (.+) \|$", text, flags=re.MULTILINE)


def classes(module: str) -> set[str]:
    """The public classes of a module."""
    return {node.name for node in tree(module).body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}


def test_every_line_is_a_definition_and_they_are_in_order() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    words = [word for word, _, _ in rows()]
    assert len(words) == text.count("\n| ") - 1, "a line that is not of the form | word | `Class` | meaning |"
    assert words == sorted(set(words))
    assert [word for word, _, meaning in rows() if len(meaning.split()) > 25 or meaning.endswith(".")] == []


def test_every_word_of_the_design_is_defined() -> None:
    assert sorted(set(WORDS) - {word for word, _, _ in rows()}) == []


def test_the_classes_of_the_glossary_exist() -> None:
    known = {name for module in modules() for name in classes(module)} | {"Scope"}
    assert [name for _, name, _ in rows() if name and name not in known] == []


def test_central_classes_and_those_that_docs_name_are_defined() -> None:
    known = {name for module in modules() for name in classes(module)}
    pages = [page for page in PAGES if page.name not in ("glossary.md", "CHANGELOG.md")]
    named = {name for page in pages for name in re.findall(r"`([A-Z][A-Za-z]+)[`.(]", page.read_text(encoding="utf-8"))}
    central = {name for module in CENTRAL for name in classes(module)}
    defined = {name for _, name, _ in rows()}
    defined |= {name for name in known if name.endswith("Rules")}  # what a kind states: CONTRIBUTING.md
    assert sorted(((named & known) | central) - defined - PARTS) == []
