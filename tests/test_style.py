"""Plain technical English in docs, help texts and messages: no word of style_words.txt, at most 25 words in a sentence.

`[style]` of limits.toml allows a number of findings for a file. The numbers only shrink: `python -m tests.test_style` lowers
them, and `python -m tests.test_style PATH...` prints the findings of the files whose path contains PATH.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cregraph.cli.help_page import pages
from tests.test_docs import PAGES, ROOT, click_commands

LIMITS = Path(__file__).with_name("limits.toml")
WORDS = Path(__file__).with_name("style_words.txt")
MOST_WORDS = 25
#: A hint begins with one of these, or with a command in backticks.
VERBS = re.findall(
    r"\w+",
    """
    add allow ask begin build change check choose clean copy correct create delete download drop enter export fix free give
    install keep leave let list lock log look loosen lower make mark move name omit open pass pin pull push put quote
    raise rebuild remove rename repair replace report restart restore retry review run select set share start state stop
    store switch take try undo unlock update upgrade use vendor wait write
    """,
)
#: Programs for R, and for the inside of a sandbox. Their texts are code.
NO_PROSE = ("smoke/driver.py",)


@cache
def patterns() -> list[tuple[re.Pattern[str], str]]:
    """Each pattern that is always wrong, and the words to write instead."""
    lines = [line for line in WORDS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    parts = [line.partition("  # ") for line in lines]
    return [(re.compile(pattern, re.IGNORECASE), instead) for pattern, _, instead in parts]


def findings(text: str) -> Iterator[str]:
    """Everything in a paragraph that is not plain English. Code in backticks counts as one word."""
    plain = re.sub(r"`+[^`]+`+", "X", text)
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    plain = " ".join(re.sub(r"[*_]{2}|(?<!\w)[*_]|[*_](?!\w)", "", plain).split())
    for pattern, instead in patterns():
        for match in pattern.finditer(plain):
            yield f"`{match[0].strip()}`: write {instead}: {plain[max(0, match.start() - 40) : match.end() + 40]}"
    for sentence in re.split(r"(?<=[.!?])[)\"']?\s+", plain):
        listed = re.sub(r"\bX(?:(?:,| and| or|, and|, or| ·) X)+\b", "X", sentence)
        words = [word for word in listed.split() if re.search(r"\w", word)]
        if len(words) > MOST_WORDS:
            yield f"{len(words)} words: {sentence}"


# -- where prose is ------------------------------------------------------------------------------------------------------------


def paragraphs(page: str) -> Iterator[str]:
    """The paragraphs, headings, list items and table cells of a Markdown page, without its code."""
    page = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    found: list[str] = []
    for line in [*page.splitlines(), ""]:
        begins = re.match(r"\s*(?:[-*]|\d+\.) |#+ |\s*\|", line)
        code = line.startswith("    ") and (not found)
        if begins or code or not line.strip():
            yield " ".join(found)
            found = []
        if line.lstrip().startswith("|"):
            yield from re.split(r"(?<!\\)\|", line)
        elif line.strip() and not code:
            found.append(re.sub(r"^\s*(?:[-*]|\d+\.|#+|>) ", "", line).strip())


def messages(module: str) -> Iterator[str]:
    """Every text of a module but docstrings, with `X` for what is put into it. A line of a text is a paragraph."""
    tree = ast.parse(module)
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner.add(id(node.value))
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            text = node.value
        if " " in text:
            yield from text.splitlines()


def hints(module: str) -> Iterator[str]:
    """Every hint of a module that does not begin with a verb or a command."""
    for node in ast.walk(ast.parse(module)):
        if isinstance(node, ast.Call):
            found = [word.value for word in node.keywords if word.arg == "hint"]
            if ast.unparse(node.func) in ("CregraphError", "Refused") and len(node.args) > 1:
                found.append(node.args[1])
            for each in [
                part for hint in found for part in ((hint.body, hint.orelse) if isinstance(hint, ast.IfExp) else (hint,))
            ]:
                first = each.values[0] if isinstance(each, ast.JoinedStr) else each
                text = str(first.value) if isinstance(first, ast.Constant) and first.value else "run"
                if text.split()[0].strip("`:,") not in VERBS and not text.startswith(("`", "pip ", "docker ")):
                    yield f"a hint begins with a verb: {text}"


def help_texts(command: Any) -> Iterator[str]:
    """The texts of a command's help, before they are wrapped."""
    for text in (command.help, command.epilog, *(getattr(param, "help", None) for param in command.params)):
        yield from re.split(r"\n\s*\n|\n\s*cregraph ", text or "")


@cache
def prose() -> dict[str, tuple[str, ...]]:
    """The findings of every page, module and command, by its name."""
    found = {page.relative_to(ROOT).as_posix(): list(paragraphs(page.read_text(encoding="utf-8"))) for page in PAGES}
    package = ROOT / "cregraph"
    for path in sorted(package.rglob("*.py")):
        if not path.relative_to(package).as_posix().startswith(NO_PROSE):
            found[path.relative_to(ROOT).as_posix()] = list(messages(path.read_text(encoding="utf-8")))
    for name, command in click_commands().items():
        page = pages()[name]
        found[f"cregraph {name} --help"] = [
            *help_texts(command),
            page["about"],
            *page["exits"].values(),
            *dict(page["examples"]).values(),
        ]
    wrong = {name: tuple(each for text in texts for each in findings(text)) for name, texts in found.items()}
    for name in [name for name in found if name.endswith(".py")]:
        wrong[name] += tuple(hints((ROOT / name).read_text(encoding="utf-8")))
    return {name: each for name, each in wrong.items() if each}


def limits() -> dict[str, int]:
    return dict(tomllib.loads(LIMITS.read_text(encoding="utf-8"))["style"])


# -- tests ---------------------------------------------------------------------------------------------------------------------


def test_docs_help_and_messages_are_plain_english() -> None:
    allowed = limits()
    new = {name: wrong for name, wrong in prose().items() if len(wrong) > allowed.get(name, 0)}
    assert new == {}, f"more than [style] of {LIMITS.name} allows"
    unused = {name: most for name, most in allowed.items() if most > len(prose().get(name, ()))}
    assert unused == {}, f"lower these in {LIMITS.name}: python -m tests.test_style"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`--output x` is none", "is none"),
        ("a mapping is wanted", "is wanted"),
        ("`x` is no folder", "is no"),
        ("the next build makes it anew", "anew"),
        ("Read this. What is kept moves.", "What"),
        ("it stops, for it finds nothing", ", for it"),
        ("a recipe of yours beside the profile", "beside"),
        (" ".join(["word"] * 26) + ".", "26 words"),
    ],
)
def test_a_wrong_text_is_found(text: str, problem: str) -> None:
    assert any(problem in finding for finding in findings(text))


@pytest.mark.parametrize(
    "text",
    [
        "unknown output `x` (expected oci:DIR)",
        "there is no folder `x`",
        "it is no longer needed, for example here",
        " ".join(["word"] * 25) + ". " + " ".join(["word"] * 25) + ".",
        "The fields are " + ", ".join(["`field`"] * 40) + ".",
    ],
)
def test_a_right_text_passes(text: str) -> None:
    assert list(findings(text)) == []


def test_prose_is_read_from_pages_and_modules() -> None:
    page = "# Title\n\nOne\nline.\n\n    code here\n\n- item\n  goes on\n\n| cell | other |\n\n```\ncode\n```\n"
    assert [text.strip() for text in paragraphs(page) if text.strip()] == ["Title", "One line.", "item goes on", "cell", "other"]
    assert list(messages('"""Doc string."""\nraise E(f"a {b} c " "d\\nnext line", "a hint")\n')) == [
        "a X c d",
        "next line",
        "a hint",
    ]


def test_a_hint_that_begins_with_no_verb_is_found() -> None:
    module = 'raise CregraphError("x", hint="the file is damaged")\nraise Refused("x", f"run `{name}`")\n'
    assert list(hints(module)) == ["a hint begins with a verb: the file is damaged"]


def main(names: list[str]) -> None:
    """Print the findings of files, or lower the limits to what is found."""
    if names:
        for file, wrong in prose().items():
            if any(name in file for name in names):
                print(file, *wrong, sep="\n  ")
        return
    allowed = limits()
    kept = {name: min(len(wrong), allowed.get(name, 0)) for name, wrong in sorted(prose().items())}
    head = LIMITS.read_text(encoding="utf-8").partition("[style]\n")[0]
    rows = [f'"{name}" = {most}\n' for name, most in kept.items() if most]
    LIMITS.write_text(head + "[style]\n" + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
