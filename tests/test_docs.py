"""What the docs say is there, what is there is in the docs, and the output that the README shows is real."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from cregraph.cli.app import app_for
from cregraph.errors import CregraphError, Refused
from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.sources import routes
from cregraph.sources.routes import read_routes

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
COMMANDS = (DOCS / "commands.md").read_text(encoding="utf-8")


def click_commands() -> dict[str, Any]:
    """The commands by name, those of a group as `cache gc`."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app_for()).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {below}": one for below, one in inner.items()}
    return found


def sections(text: str, level: str = "##") -> dict[str, str]:
    """The parts of a page by their headings."""
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_column(text: str) -> set[str]:
    """Everything in backticks in the first cell of each row of the tables in `text`."""
    rows = re.findall(r"^\| *(`[^|]*?) *\|", text, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


# -- commands ------------------------------------------------------------------------------------------------------------------


def test_every_command_is_in_the_docs_and_the_reverse() -> None:
    written = {name.removeprefix("cregraph ") for name in sections(COMMANDS) if name.startswith("cregraph ")}
    assert written == set(click_commands())


@pytest.mark.parametrize("name", sorted(click_commands()))
def test_every_option_is_in_the_docs_and_the_reverse(name: str) -> None:
    options = {opt for p in click_commands()[name].params if p.param_type_name == "option" for opt in p.opts}
    written = {text.split(" ")[0] for text in first_column(sections(COMMANDS)[f"cregraph {name}"]) if text.startswith("-")}
    assert written == options


@pytest.mark.parametrize("name", sorted(click_commands()))
def test_the_arguments_of_a_command_are_as_written(name: str) -> None:
    arguments = [p.metavar or p.name.upper() for p in click_commands()[name].params if p.param_type_name == "argument"]
    written = re.search(rf"^    cregraph {name}(?: (.*))?$", sections(COMMANDS)[f"cregraph {name}"], flags=re.MULTILINE)
    assert written is not None
    assert re.sub(r"[\[\].]", "", written[1] or "").split() == [re.sub(r"[\[\].]", "", argument) for argument in arguments]


def test_options_of_all_commands_together_are_in_the_docs() -> None:
    top = {opt for p in typer.main.get_command(app_for()).params for opt in p.opts}
    assert set(re.findall(r"`(--[a-z-]+)`", COMMANDS.partition("\n## ")[0])) == top


def test_options_named_anywhere_in_the_docs_exist() -> None:
    known = {opt for command in click_commands().values() for p in command.params for opt in p.opts} | {"--help", "--version"}
    for page in PAGES:
        for line, name, rest in re.findall(r"(cregraph ([a-z]+)((?: [^`\n#]*)?))", page.read_text(encoding="utf-8")):
            if name in click_commands():
                unknown = set(re.findall(r"(?<=\s)--[a-z-]+", rest)) - known
                assert not unknown, f"{page.name}: {line}"


def test_the_exit_codes_are_those_of_the_errors() -> None:
    """0 and 1 are shown by the tests of commands, 3 and 130 by those of the command line."""
    assert first_column(COMMANDS.partition("`PROFILE`")[0]) == {"0", "1", "2", "3", "130"}
    assert (Refused.exit_code, CregraphError.exit_code) == (1, 2)
    main = "".join((ROOT / f"cregraph/cli/{name}.py").read_text(encoding="utf-8") for name in ("error_output", "__init__"))
    assert {node.value for node in ast.walk(ast.parse(main)) if isinstance(node, ast.Constant)} >= {0, 2, 3, 130}


def test_variables_named_in_the_docs_are_read_somewhere_and_the_reverse() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "cregraph").rglob("*.py"))
    read = set(re.findall(r"environ(?:\.get\(|\[)\"(CREGRAPH_[A-Z_]+)\"", source))
    written = first_column(sections(COMMANDS)["Variables"])
    assert {name for name in written if name.startswith("CREGRAPH_")} == read
    assert [name for name in written if name not in source] == []


# -- files ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "reader"),
    [
        ("The lock", "top"),
        ("Its image", "image"),
        ("A stage", "stage"),
        ("A check", "check"),
        ("A target", "target"),
        ("An ask", "ask"),
        ("A pin", "pin"),
    ],
)
def test_the_fields_of_a_lock_are_those_that_its_reader_knows(heading: str, reader: str) -> None:
    """The reader refuses every field but those that it lists, in calls of `fields`."""
    written = first_column(sections((DOCS / "lock.md").read_text(encoding="utf-8"))[heading])
    assert written in _objects(), f"{reader}: {sorted(written)}"


def test_every_object_of_a_lock_is_in_the_docs() -> None:
    page = sections((DOCS / "lock.md").read_text(encoding="utf-8"))
    written = [first_column(part) for part in page.values()]
    assert [names for names in _objects() if names not in written] == []


def _objects() -> list[set[str]]:
    tree = ast.parse(Path(locks.__file__).read_text(encoding="utf-8"))
    calls = [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "fields"
    ]
    return [{ast.literal_eval(arg) for arg in call.args} | {str(word.arg) for word in call.keywords} for call in calls]


def test_the_sections_of_sources_yaml_are_in_the_docs_and_the_reverse() -> None:
    page = (DOCS / "sources.md").read_text(encoding="utf-8")
    assert first_column(page) == set(routes._SECTIONS)
    example = re.search(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert example is not None
    found = read_routes(example[1], name="sources.yaml", folder=ROOT)
    assert all(getattr(found, section) for section in routes._SECTIONS)
    for default in (routes.CONDA_DEFAULT, routes.CRAN_DEFAULT):
        assert f"`{default.replace('{name}', '<name>')}`" in page


def test_every_kind_is_in_the_docs() -> None:
    for page in ("glossary.md", "recipes.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        assert [name for name in KINDS if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_files_named_in_the_docs_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = page.parent / path if path else page
        headings = [re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in _headings(file)]
        if not file.exists() or (anchor and anchor not in headings):
            dead.append(target)
    for name in re.findall(r"`((?:cregraph|tests|docs|examples|recipes|benchmarks)/[A-Za-z0-9_/.-]*)`", text):
        if not (ROOT / name).exists() and "julia" not in name and "golden" not in name:
            dead.append(name)
    assert dead == []


def _headings(file: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE) if file.is_file() else []


def test_every_page_is_reached_from_the_index() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", text)}
    assert [page.name for page in DOCS.rglob("*.md") if page.resolve() not in linked and page.name != "index.md"] == []


def test_the_tests_that_the_docs_name_exist() -> None:
    named = re.findall(r"`(test_[a-z_]+\.py)::(test_[a-z0-9_]+)`", (DOCS / "exactness.md").read_text(encoding="utf-8"))
    assert named
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file} has no {name}"


# -- console blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_what_a_page_tells_to_type_prints_what_the_page_shows(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Run the commands of all console blocks one after another. Only times may differ.

    Another digest has a reason, or is a defect. `pytest --update-golden tests/test_docs.py` writes the real output.
    """
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    here = tmp_path / "here"
    here.mkdir()

    def ran(match: re.Match[str]) -> str:
        nonlocal here
        lines = []
        for command in _COMMAND.findall(match[1]):
            lines.append(f"$ {command}\n")
            if command.startswith("cd "):
                here = here / command.removeprefix("cd ")
            else:
                lines.append(_shown(command, here))
        return "```console\n" + "".join(lines) + "```"

    real = re.sub(r"```console\n(.*?)```", ran, text, flags=re.DOTALL)
    if name == "docs/tutorial.md":
        _check_example(here, update=bool(request.config.getoption("--update-golden")))
    if request.config.getoption("--update-golden"):
        if _timeless(real) != _timeless(text):
            page.write_text(real, encoding="utf-8")
        return
    assert _timeless(text) == _timeless(real)


def _check_example(project: Path, *, update: bool) -> None:
    """`examples/tutorial/` holds the profile and the lock that the tutorial ends with."""
    example = ROOT / "examples" / "tutorial"
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "main"], cwd=project, capture_output=True, text=True, check=True
    )
    for path in listed.stdout.splitlines():
        if path.startswith((".git", "locks/recipes/")):
            continue
        made = subprocess.run(["git", "show", f"main:{path}"], cwd=project, capture_output=True, check=True).stdout
        if update:
            (example / path).parent.mkdir(parents=True, exist_ok=True)
            (example / path).write_bytes(made)
        assert (example / path).read_bytes() == made, path


#: A command after the prompt, with its here document if it has one.
_COMMAND = re.compile(r"^\$ (.+<<'EOF'\n(?:.*\n)*?EOF|.+)$", flags=re.MULTILINE)


def _shown(command: str, cwd: Path) -> str:
    """Return what a terminal shows of a command: both streams, as they come."""
    kept = {k: v for k, v in os.environ.items() if k in ("TMPDIR", "LD_LIBRARY_PATH", "LANG", "PYTHONPATH")}
    env = kept | {
        "HOME": str(cwd.parent),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        **{f"GIT_{who}_{what}": "me@team.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    return done.stdout.rstrip("\n") + "\n" if done.stdout.strip() else ""


def _timeless(text: str) -> str:
    return re.sub(r"\b\d+\.\d s\b", "0.0 s", text)
