"""The command line as a user meets it: its words are true, its options are not ignored, its secrets stay secret."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cregraph.build.build_run import Event
from cregraph.cli.app import app_for
from cregraph.cli.build_progress import Display
from cregraph.demo.demo_project import claim, write_project
from cregraph.engines import choice
from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.lock.pins import Artifact
from cregraph.plan.missing_work import MissingWork
from cregraph.sources.configured import ConfiguredSources
from cregraph.sources.project_files import Local
from cregraph.sources.routes import Routes
from cregraph.store import Store
from tests.environment.serving import serve
from tests.real_project import Done

PACKAGE = Path(__file__).parent.parent / "cregraph"
SECRET = "s3kret-passw0rd"
TOOL = """\
recipe: tool
about: a file from an address
needs: [snowbooks]
steps:
  - archive: {url: "https://files.invalid/noarch/repodata.json", at: /opt/tool.json}
"""


def run(folder: Path, *words: str, **changed: str) -> Done:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")}
    command = [sys.executable, "-m", "cregraph", *words]
    done = subprocess.run(command, cwd=folder, env=kept | changed, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's project: locked and built."""
    folder = tmp_path_factory.mktemp("demo") / "it"
    claim(folder)
    write_project(folder)
    for words in (("lock", "demo.yaml"), ("build", "demo.yaml")):
        done = run(folder, *words, CREGRAPH_CACHE=str(folder / "cache"))
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "own", symlinks=True)
    return tmp_path / "own"


# -- what messages name --------------------------------------------------------------------------------------------------------


def options(name: str) -> set[str]:
    """The options of a command; of one with commands of its own, theirs all together."""
    command: Any = typer.main.get_command(app_for()).commands[name]  # type: ignore[attr-defined]
    below = getattr(command, "commands", {}).values()
    return {"--help", *(opt for one in (command, *below) for p in one.params for opt in p.opts)}


def texts() -> Iterator[tuple[str, str]]:
    """Every string of the package with its place; what stands between the parts of an f-string is `…`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
                text = node.value
            else:
                continue
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def test_every_command_and_option_that_a_text_of_the_package_names_exists() -> None:
    commands = set(typer.main.get_command(app_for()).commands)  # type: ignore[attr-defined]
    wrong = []
    for place, text in texts():
        for name, rest in re.findall(r"(?:`|: |^ {4})cregraph ([a-z]+)\b([^`\n]*)", text):
            if name not in commands:
                wrong.append(f"{place}: cregraph {name}")
            else:
                wrong += [
                    f"{place}: cregraph {name} {opt}" for opt in re.findall(r"--[a-z][a-z-]*", rest) if opt not in options(name)
                ]
    assert wrong == []


def test_every_option_that_a_message_names_exists() -> None:
    """In what is raised and said. Options of other programs stand in their command, in backticks or after `docker run`."""
    known = {opt for name in typer.main.get_command(app_for()).commands for opt in options(name)}  # type: ignore[attr-defined]
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            if named not in ("CregraphError", "Refused", "NotThere", "talk", "report"):
                continue
            assert isinstance(node, ast.Call)
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    own = re.sub(r"`(?!cregraph)[a-z]+ [^`]*`|docker run .*", "", part.value)
                    found = re.findall(r"(?<![\w-])--[a-z][a-z-]*", own)
                    wrong += [f"{path.name}:{part.lineno}: {opt}" for opt in found if opt not in known]
    assert wrong == []


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:-9], lambda text: text.replace('"size"', '"sise"', 1), lambda text: "[" * 9999],
    ids=["cut", "edited", "too deep"],
)
def test_the_way_out_of_a_broken_lock_is_one(project: Path, damage: Any) -> None:
    """`lock` refuses it too, so nothing is lost unseen; without the file it writes an equal one, for nothing moved."""
    lock = project / "locks/demo.lock.json"
    good = lock.read_text()
    lock.write_text(damage(good))
    for words in (("lock", "demo.yaml"), ("lock", "demo.yaml", "--check"), ("build", "demo.yaml"), ("plan", "demo.yaml")):
        done = run(project, *words)
        assert (done.code, done.out) == (2, ""), done.err
        assert done.err.startswith("error: locks/demo.lock.json:")
        assert done.err.endswith("Or remove the file and run `cregraph lock`, which chooses every pin again\n")
    lock.unlink()
    assert run(project, "lock", "demo.yaml").code == 0
    assert lock.read_text() == good


def test_a_base_whose_layout_is_gone_is_said_to_be_missing(project: Path) -> None:
    shutil.rmtree(project / "sources/base")
    done = run(project, "build", "demo.yaml", "--output", "oci:image")
    assert done.code == 2
    assert "oci:sources/base" in done.err
    assert "the layout with" in done.err
    assert "damaged" not in done.err


def test_a_file_that_a_profile_asks_for_and_that_is_not_there_is_said_with_its_line(project: Path) -> None:
    text = (project / "demo.yaml").read_text()
    (project / "demo.yaml").write_text(text.replace("  tag: v1\n", "  tag: v1\n  runtime_config: ./none.yaml\n"))
    done = run(project, "lock", "demo.yaml")
    assert done.code == 2
    assert re.match(
        r"locking demo\.yaml\nerror: demo\.yaml:\d+: cre\.runtime_config: `\./none\.yaml` does not exist\nhint: ", done.err
    ), done.err


# -- secrets -------------------------------------------------------------------------------------------------------------------


def told(done: Done, project: Path) -> list[str]:
    """Where the secret is, besides the file that states it."""
    found = [name for name, text in (("stdout", done.out), ("stderr", done.err)) if SECRET in text]
    files = [path for path in project.rglob("*") if path.is_file() and path.name != "sources.yaml"]
    return found + [str(path.relative_to(project)) for path in files if SECRET.encode() in path.read_bytes()]


def with_tool(project: Path) -> None:
    (project / "recipes").mkdir(exist_ok=True)
    (project / "recipes/tool.yaml").write_text(TOOL)
    with (project / "demo.yaml").open("a") as file:
        file.write("\nwith: [tool]\n")


def test_a_password_in_the_address_of_a_source_is_in_no_lock_no_store_and_no_word(project: Path) -> None:
    with_tool(project)
    shutil.rmtree(project / "cache")
    for page in (project / "sources/simple").glob("*/index.html"):  # the server has both forms of a page
        files = [{"filename": name, "url": name, "hashes": {}} for name in re.findall(r">([^<]+\.whl)<", page.read_text())]
        listing = {"meta": {"api-version": "1.0"}, "name": page.parent.name, "files": files}
        page.with_name("index.json").write_text(json.dumps(listing))
    with serve(project / "sources") as server:
        address = server.address.replace("http://", f"http://user:{SECRET}@")
        (project / "sources.yaml").write_text(
            f"conda: {{demo: {address}/channel}}\ncran: {address}/cran\npypi: {address}/simple\n"
            f'url: {{"https://files.invalid/": "{address}/channel/"}}\n'
        )
        (project / "cache").mkdir()
        for words in (
            ("lock", "demo.yaml", "with-cran.yaml", "--upgrade"),
            ("build", "demo.yaml", "--output", "oci:image"),
            ("plan", "with-cran.yaml"),
        ):
            done = run(project, *words)
            assert done.code == 0, done.err
            assert told(done, project) == []


@pytest.mark.parametrize("section", ["conda", "cran", "pypi", "url"])
@pytest.mark.parametrize("command", ["lock", "build"])
def test_a_password_is_in_no_word_about_a_source_that_does_not_answer(project: Path, section: str, command: str) -> None:
    with_tool(project)
    profile = "with-cran.yaml"
    url = 'url: {"https://files.invalid/": ./sources/channel/}\n'
    if command == "build":
        reasons = choice.reasons("auto", store=Store(project / "cache"))
        if all(reasons.values()):
            pytest.skip(f"no engine works here: {reasons['native']}")
        with (project / "sources.yaml").open("a") as file:
            file.write(url)
        assert run(project, "lock", profile).code == 0
    shutil.rmtree(project / "cache")
    (project / "cache").mkdir()
    with serve(project / "sources") as server:
        bad = server.address.replace("http://", f"http://user:{SECRET}@") + "/none"
        routes = {
            "conda": "{demo: ./sources/channel}",
            "cran": "./sources/cran",
            "pypi": "./sources/simple",
            "url": url.removeprefix("url: ").strip(),
        }
        routes[section] = {"conda": f"{{demo: {bad}}}", "url": f'{{"https://files.invalid/": "{bad}/"}}'}.get(section, bad)
        (project / "sources.yaml").write_text("".join(f"{key}: {value}\n" for key, value in routes.items()))
        done = run(project, command, profile)
    assert done.code == 2, done.err
    assert "127.0.0.1" in done.err or section == "pypi"  # no index has it: none is named
    assert told(done, project) == []


@pytest.mark.parametrize(
    ("kind", "source", "file"),
    [
        ("conda", "c", "noarch/x-1-0.conda"),
        ("r", "cran", "2025-01-01/x_1.tar.gz"),
        ("python", "pypi", "x/x-1-py3-none-any.whl"),
        ("url", "@ADDRESS@/x.gz?token=@SECRET@", ""),
    ],
)
def test_what_cannot_be_reached_is_named_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str, file: str
) -> None:
    """Whether it is read, taken or fetched, also where its name is an address."""
    monkeypatch.setattr("cregraph.http.PAUSES", ())
    address = f"http://user:{SECRET}@127.0.0.1:9/simple"  # nobody listens there
    source, file = (text.replace("@ADDRESS@", address).replace("@SECRET@", SECRET) for text in (source, file))
    sources = ConfiguredSources(
        kinds=KINDS,
        store=Store(tmp_path / "store"),
        routes=Routes(conda={"c": (address,)}, cran=(address,), pypi=(address,)),
        local=Local(project=tmp_path, shipped=tmp_path),
    )
    artifact = Artifact(kind=kind, source=source, file=file, sha256="0" * 64, size=1)
    for ask in (
        lambda: sources.read(kind=kind, source=source, file=file),
        lambda: sources.take(kind=kind, source=source, file=file),
        lambda: sources.fetch(artifact),
    ):
        with pytest.raises(CregraphError) as caught:
            ask()
        assert "127.0.0.1" in caught.value.message
        assert SECRET not in f"{caught.value.message} {caught.value.hint}"


def test_a_password_in_the_address_of_a_profile_is_refused_before_it_is_locked(project: Path) -> None:
    with_tool(project)
    recipe = project / "recipes/tool.yaml"
    recipe.write_text(TOOL.replace("https://files", f"https://user:{SECRET}@files"))
    done = run(project, "lock", "demo.yaml")
    assert done.code == 2
    assert "contains a user or password" in done.err
    assert SECRET not in done.err


# -- paths that a user names ---------------------------------------------------------------------------------------------------

LONG = "x" * 300
NOWHERE = ["/proc/x", "afile/x", LONG, f"{LONG}/x"]


@pytest.mark.parametrize("path", NOWHERE, ids=["no such", "below a file", "too long", "below too long"])
def test_an_output_that_cannot_be_written_is_said_with_its_path(project: Path, path: str) -> None:
    (project / "afile").write_text("")
    done = run(project, "build", "demo.yaml", "-o", f"oci:{path}")
    assert (done.code, done.out) == (2, ""), done.err
    assert f"error: `{path}` cannot be written: " in done.err
    assert "hint: use a folder with free space that you may write to" in done.err


@pytest.mark.parametrize("path", NOWHERE, ids=["no such", "below a file", "too long", "below too long"])
@pytest.mark.parametrize("words", ["lock demo.yaml --upgrade", "build demo.yaml"])
def test_a_store_that_cannot_be_written_is_said_with_its_path(project: Path, path: str, words: str) -> None:
    (project / "afile").write_text("")
    done = run(project, *words.split(), CREGRAPH_CACHE=path)
    assert (done.code, done.out) == (2, ""), done.err
    assert f"{path} cannot be written to: " in done.err
    assert "hint: set CREGRAPH_CACHE to your own folder" in done.err


@pytest.mark.parametrize("path", ["/proc", "afile/x", "none.yaml"])
def test_sources_that_cannot_be_read_are_said_though_nothing_needs_them(project: Path, path: str) -> None:
    (project / "afile").write_text("")
    done = run(project, "lock", "demo.yaml", "--sources", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: `{path}` cannot be read: ")


# -- options -------------------------------------------------------------------------------------------------------------------


def test_an_engine_that_is_none_is_refused_though_nothing_is_compiled(project: Path) -> None:
    for command in ("build", "test"):
        done = run(project, command, "demo.yaml", "--engine", "nativ")
        assert (done.code, done.out) == (2, "")
        assert done.err == "error: unknown engine `nativ` (expected auto, native or docker)\nhint: write `native` instead\n"


@pytest.mark.parametrize("moving", [["--upgrade"], ["--upgrade-package", "r-base"], ["--as-of", "2025-01-01"]])
def test_check_takes_no_option_that_moves_pins(project: Path, moving: list[str]) -> None:
    done = run(project, "lock", "demo.yaml", "--check", *moving)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: `--check` does not work with `{moving[0]}`\n")


def test_a_day_that_moves_nothing_is_said_to(project: Path) -> None:
    done = run(project, "lock", "demo.yaml", "--as-of", "2025-01-01")
    assert done.code == 0
    assert done.err == "locks/demo.lock.json is fresh: `--as-of` alone moves no pin. Add `--upgrade`\n"


def test_all_finds_profiles_by_either_ending_and_names_a_lock_that_has_none(project: Path) -> None:
    (project / "demo.yaml").rename(project / "team.v2.yml")
    (project / "with-cran.yaml").unlink()
    (project / "locks/demo.lock.json").rename(project / "locks/team.v2.lock.json")
    (project / "locks/old.lock.json").write_text("{}")
    done = run(project, "lock", "--all", "--check")
    assert (done.code, done.out) == (0, "locks/team.v2.lock.json is fresh\n"), done.err
    assert done.err == "skipped `locks/old.lock.json`: neither `old.yaml` nor `old.yml` exists\n"
    (project / "team.v2.yml").unlink()
    done = run(project, "lock", "--all")
    assert done.code == 2
    assert "there is no lock of a profile in `locks/`" in done.err


def test_revisions_can_be_compared_from_a_folder_below_the_project(project: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=project, check=True, capture_output=True)

    git("init", "-q")
    git("add", "locks", "bases", "demo.yaml")
    git("commit", "-qm", "one")
    (project / "deep/er").mkdir(parents=True)
    done = run(project / "deep/er", "diff", "HEAD", "HEAD")
    assert (done.code, done.err) == (0, "the same\n")


def test_sources_beside_the_caller_and_not_beside_the_profile_are_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sources = ConfiguredSources(
        kinds=KINDS, store=Store(tmp_path / "s"), routes=Routes(), local=Local(project=tmp_path / "sub", shipped=tmp_path)
    )
    with pytest.raises(CregraphError) as caught:
        sources.routes("registry", "snowflake")
    assert "--sources" not in (caught.value.hint or "")
    (tmp_path / "sources.yaml").write_text("")
    with pytest.raises(CregraphError) as caught:
        sources.routes("registry", "snowflake")
    assert (caught.value.hint or "").endswith(
        "; the `sources.yaml` in the current folder is not the project's: name it with --sources"
    )


@pytest.mark.parametrize(("length", "code"), [(115, 0), (116, 2)])
def test_a_label_may_be_as_long_as_a_tag_leaves_room(project: Path, length: int, code: int) -> None:
    text = (project / "demo.yaml").read_text()
    (project / "demo.yaml").write_text(text.replace("tag: v1", f"tag: {'v' * length}"))
    assert run(project, "lock", "demo.yaml").code == code
    done = run(project, "build", "demo.yaml", "--output", "oci:image")
    assert done.code == code
    if code == 0:
        assert len(done.out.partition(":")[2].partition("@")[0]) == 128
    else:
        assert "at most 115 of them" in done.err


# -- what a build says ---------------------------------------------------------------------------------------------------------


def test_a_build_says_what_it_fetched_made_and_reused(project: Path) -> None:
    done = run(project, "build", "demo.yaml")
    said = r"12 layers, [\d.]+ kB over the base: 0 made, 12 reused; tasks: 0 run, 0 reused; 0 files fetched; [\d.]+ s\n"
    assert re.fullmatch(said, done.err), done.err
    shutil.rmtree(project / "cache")
    (project / "cache").mkdir()
    done = run(project, "build", "demo.yaml")
    files = r"(?P<n>\d+) files"
    said = (
        rf"fetched {files}, (?P<size>[\d.]+ kB) in [\d.]+ s\n12 layers, [\d.]+ kB over the base: 12 made, 0 reused; "
        r"tasks: 0 run, 0 reused; (?P=n) files fetched, (?P=size); [\d.]+ s\n"
    )
    assert re.fullmatch(said, done.err), done.err


def a_file(number: int) -> Artifact:
    return Artifact(kind="conda", source="c", file=f"f{number}", sha256=f"{number:064}", size=50)


def test_without_a_terminal_a_task_has_a_line_when_it_begins_and_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display("v1", MissingWork(artifacts=(a_file(1), a_file(2))), layers=2)
    with display:
        display(Event(what="fetched", subject="artifact", name="f1", size=50))
        display(Event(what="fetched", subject="artifact", name="f2", size=50, seconds=3))
        display(Event(what="begin", subject="task", name="dplyr 1.0"))
        display(Event(what="made", subject="task", name="dplyr 1.0", seconds=2))
        display(Event(what="begin", subject="task", name="sf 1.0"))
        display(Event(what="failed", subject="task", name="sf 1.0", seconds=0.5))
        display(Event(what="made", subject="layer", name="conda-1", seconds=0.1))
        display(Event(what="made", subject="layer", name="conda-2", seconds=4))
        display(Event(what="made", subject="image", name="sha256:0"))
    assert re.sub(r"in [\d.]+ s", "in 0 s", capsys.readouterr().err).splitlines() == [
        "artifact f2: fetched, 3.0 s",
        "fetched 2 files, 100 B in 0 s",
        "task dplyr 1.0: started",
        "task dplyr 1.0: made, 2.0 s",
        "task sf 1.0: started",
        "task sf 1.0: failed, 0.5 s",
        "layer conda-2: made, 4.0 s",
    ]


def test_on_a_terminal_every_line_fits_and_is_plain_text() -> None:
    """Also with thousands of each, a long tag, names in brackets, and more tasks than are shown."""
    from rich.console import Console, Group

    display = Display("v" * 128, MissingWork(artifacts=tuple(a_file(n) for n in range(2000))), layers=127)
    display._all |= {"segment": 2400, "task": 1200}
    display._count |= {"artifact": 1999, "segment": 2399, "task": 1199, "layer": 126}
    display.received(15_200_000_000)
    display._running = {f"[red]task{n}[/red] 1.0": 0.0 for n in range(14)}
    console = Console(width=80, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(Group(display._picture()))  # as the live part prints it
    shown = capture.get().splitlines()
    assert len(shown) == 2 + 10 + 1
    assert all(len(line) <= 80 for line in shown), shown
    assert shown[1] == "files 1999 of 2000  segments 2399 of 2400  tasks 1199 of 1200  layers 126 of 127"
    assert shown[2].startswith("  [red]task0[/red] 1.0  ")
    assert shown[-1] == "  and 4 more"
    assert "\x1b" not in capture.get()


# -- names that are not UTF-8 --------------------------------------------------------------------------------------------------


def test_a_name_that_is_not_utf_8_leaves_as_it_came_and_makes_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "cregraph.yaml").write_text("")
    store = os.fsencode(tmp_path) + b"/st\xffre"

    def raw(*words: str) -> subprocess.CompletedProcess[bytes]:
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")}
        env = {**kept, "CREGRAPH_CACHE": os.fsdecode(store), "PYTHONIOENCODING": "utf-8:strict"}
        return subprocess.run([sys.executable, "-m", "cregraph", *words], cwd=tmp_path, env=env, capture_output=True)

    done = raw("cache", "path")
    assert (done.returncode, done.stdout, done.stderr) == (0, store + b"\n", b"")
    done = raw("cache", "ls", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["store"] == os.fsdecode(store)
