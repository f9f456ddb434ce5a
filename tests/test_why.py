"""Why: every path from the profile over asks and requirements to a pin, across ecosystems."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cregraph.demo.demo_project import claim, write_project
from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.lock.lock_file import Lock, StageRecord
from cregraph.lock.pins import Pin
from cregraph.review.why import SHOWN, Answer, as_text, names, why
from tests.real_project import Done
from tests.test_cli import run
from tests.test_diff import PREFIX, a_lock, base, pin, python, target

ENVIRONMENT = f"conda:{PREFIX}"
LIBRARY = f"r:{PREFIX}/lib/R/library"


def of(token: str, version: str = "1", *, needs: str = "", asked: str = "", also: str = "", role: str = "") -> Pin:
    """A pin that provides `token` (and `also`), needs the tokens in `needs`, and answers `asked` of its stage."""
    ecosystem, _, name = token.rpartition(":")
    return pin(
        ecosystem,
        token if role else name,
        version,
        asked=(asked,) if asked else (),
        needs=tuple(needs.split()),
        provides=tuple(f"{each} {version}" for each in (token, *also.split())),
        data={"role": role} if role else {},
    )


def a_cross_lock() -> Lock:
    """R from CRAN over R from conda over a library of conda; Python with a wheel that builds it; R twice in the sandbox."""
    lock = a_lock(
        base(),
        target(
            "conda",
            PREFIX,
            "r",
            {"r-base =4.5": "p.yaml: cre.r_version", "r-sf": "p.yaml: extras.conda_r"},
            of("conda:r-base", "4.5.2", needs="conda:libzlib", also="r:base", asked="r: r-base =4.5"),
            of("conda:r-sf", "1.0", needs="conda:r-base conda:libgdal", also="r:sf", asked="r: r-sf"),
            of("conda:r-data.table", "1.17", needs="conda:r-base", also="r:data.table"),
            of("conda:libgdal", "3.9", needs="conda:libzlib"),
            of("conda:libzlib", "1.3"),
        ),
        target(
            "conda",
            "/cregraph/build",
            "r",
            {"gcc_linux-64": "r.yaml: steps.r.build"},
            of("conda:gcc_linux-64", "14", needs="conda:libzlib", asked="r: gcc_linux-64"),
            of("conda:libzlib", "1.2"),
        ),
        target(
            "r",
            f"{PREFIX}/lib/R/library",
            "cran",
            {"stars": "p.yaml: extras.cran", "data.table": "p.yaml: extras.cran"},
            of("r:stars", "0.6", needs="r:sf r:abind", asked="cran: stars"),
            of("r:abind", "1.4"),
        ),
        python(
            of("py:rpy2", "3.6", needs="py:cffi build:rpy2:setuptools", asked="python: rpy2"),
            of("py:my-tool", "2"),
            of("build:rpy2:setuptools", "80", role="build"),
            asks={"rpy2": "p.yaml: extras.pip"},
        ),
    )
    return replace(lock, stages=(*lock.stages, StageRecord(name="cran")))


def paths(answer: Answer) -> list[str]:
    return [" ".join((path.ask.text, ">", *(each.name for each in path.pins))) for path in answer.paths]


# -- paths


def test_a_path_crosses_from_cran_to_conda_to_a_library() -> None:
    inside, sandbox = why(a_cross_lock(), "libzlib")

    assert paths(inside) == [
        "r-base =4.5 > r-base libzlib",
        "r-sf > r-sf r-base libzlib",
        "data.table > r-data.table r-base libzlib",
        "r-sf > r-sf libgdal libzlib",
        "stars > stars r-sf r-base libzlib",
        "stars > stars r-sf libgdal libzlib",
    ]
    assert [each.ecosystem for each in inside.paths[-1].pins] == ["r", "conda", "conda", "conda"]
    assert paths(sandbox) == ["gcc_linux-64 > gcc_linux-64 libzlib"]


def test_the_text_names_an_ecosystem_where_it_changes_and_a_place_where_two_have_the_name(golden) -> None:  # type: ignore[no-untyped-def]
    golden.check("why.txt", "\n".join(as_text(why(a_cross_lock(), "libzlib"))) + "\n")


def test_what_only_tasks_see_is_marked() -> None:
    (answer,) = why(a_cross_lock(), "setuptools")

    assert as_text([answer]) == [
        "python build:rpy2:setuptools 80 (sandbox)",
        "  p.yaml: extras.pip: rpy2",
        "    python rpy2 3.6 -> build:rpy2:setuptools 80 (sandbox)",
    ]


def test_an_ask_is_shown_with_the_line_that_has_it_now_and_as_the_lock_has_it_if_none_has() -> None:
    lock = a_cross_lock()
    moved = locks.loads(locks.dumps(lock).replace("p.yaml: extras.cran", "p.yaml:7: extras.cran"), name="x", kinds=KINDS).targets

    (answer,) = why(lock, "abind", current=moved)
    assert [path.ask.where for path in answer.paths] == ["p.yaml:7: extras.cran"]
    (answer,) = why(lock, "rpy2", current=[t for t in moved if t.kind != "python"])
    assert [path.ask.where for path in answer.paths] == ["p.yaml: extras.pip"]


def test_a_pin_that_no_ask_reaches_is_found_and_said_to_be_so() -> None:
    assert as_text(why(a_cross_lock(), "my-tool"))[1:] == ["  no ask of the profile needs it: run `cregraph lock`"]


# -- names


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("r-sf", ["r-sf"]),
        ("sf", ["r-sf"]),
        ("r:SF", ["r-sf"]),
        ("conda:r-sf", ["r-sf"]),
        ("conda:sf", []),
        ("Data_Table", ["r-data.table"]),
        ("My.Tool", ["my-tool"]),
        ("py:my-tool", ["my-tool"]),
        ("python:my-tool", ["my-tool"]),
        ("r:my-tool", []),
        ("snowbooks", ["snowbooks"]),
        ("zlib", []),
        ("", []),
        (":", []),
    ],
)
def test_a_name_is_taken_in_any_spelling_and_in_one_ecosystem_if_that_is_said(name: str, found: list[str]) -> None:
    assert [answer.pin.name for answer in why(a_cross_lock(), name)] == found


def test_an_exact_name_is_preferred_to_another_spelling() -> None:
    lock = a_lock(base(), target("conda", PREFIX, "r", {}, of("conda:ruamel.yaml"), of("conda:ruamel_yaml")))

    assert [answer.pin.name for answer in why(lock, "ruamel_yaml")] == ["ruamel_yaml"]
    assert [answer.pin.name for answer in why(lock, "ruamel-yaml")] == ["ruamel.yaml", "ruamel_yaml"]


def test_every_name_that_is_suggested_is_found() -> None:
    lock = a_cross_lock()

    assert {"sf", "r-sf", "rpy2", "setuptools", "snowbooks"} <= names(lock)
    assert all(why(lock, name) for name in names(lock))


# -- many paths


def a_graph(needs: Mapping[str, list[str]], asked: list[str]) -> Lock:
    pins = [
        of(f"conda:{name}", needs=" ".join(f"conda:{n}" for n in listed), asked=f"r: {name}" if name in asked else "")
        for name, listed in needs.items()
    ]
    return a_lock(base(), target("conda", PREFIX, "r", {name: f"p.yaml: {name}" for name in asked}, *pins))


def layers(count: int, width: int) -> Lock:
    """Every pin of a layer needs every pin of the next: `width ** count` paths to the goal."""
    needs = {f"x{i}-{j}": [f"x{i + 1}-{k}" for k in range(width)] for i in range(count) for j in range(width)}
    needs |= {f"x{count - 1}-{j}": ["goal"] for j in range(width)} | {"goal": []}
    return a_graph(needs, [f"x0-{j}" for j in range(width)])


@pytest.mark.parametrize(("count", "width"), [(200, 3), (60, 10)])
def test_a_number_of_paths_that_explodes_costs_no_time(count: int, width: int) -> None:
    lock = layers(count, width)
    why(layers(1, 1), "goal")  # networkx is imported

    start = time.process_time()
    (answer,) = why(lock, "goal")
    assert time.process_time() - start < 0.5
    assert (len(answer.paths), answer.more, answer.exact) == (SHOWN, 1_000_000, False)
    assert as_text([answer])[-1] == "  and at least 1,000,000 more, none of them shorter"


def test_pins_that_all_need_each_other_cost_no_time_and_the_count_is_said_to_be_unsure() -> None:
    many = [f"x{i}" for i in range(60)]
    lock = a_graph({"a": ["b"], "b": ["goal", *many], "goal": []} | {x: ["b", *(y for y in many if y != x)] for x in many}, ["a"])
    why(layers(1, 1), "goal")

    start = time.process_time()
    (answer,) = why(lock, "goal")
    assert time.process_time() - start < 0.5
    assert paths(answer) == ["a > a b goal"]
    assert not answer.exact
    assert as_text([answer])[-1] == "  and perhaps some more, none of them shorter"


def test_the_rest_is_counted() -> None:
    (answer,) = why(layers(3, 3), "goal")

    assert (len(answer.paths), answer.more, answer.exact) == (SHOWN, 27 - SHOWN, True)
    assert as_text([answer])[-1] == "  and 17 more, none of them shorter"


GRAPHS = st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.sampled_from("abcdefg"), max_size=3), min_size=1).map(
    lambda graph: {name: sorted({need for need in needs if need in graph} - {name}) for name, needs in graph.items()}
)


@given(GRAPHS, st.data())
def test_the_paths_are_the_shortest_of_all_simple_paths(needs: dict[str, list[str]], data: st.DataObject) -> None:
    """Circles included, against the enumeration of networkx."""
    asked = data.draw(st.lists(st.sampled_from(sorted(needs)), unique=True))
    goal = data.draw(st.sampled_from(sorted(needs)))
    (answer,) = why(a_graph(needs, asked), goal)

    graph = networkx.DiGraph(needs)
    every = sorted(
        (len(path), path)
        for name in asked
        for path in ([[goal]] if name == goal else networkx.all_simple_paths(graph, name, goal))
    )
    found = [[each.name for each in path.pins] for path in answer.paths]
    assert [len(path) for path in found] == [length for length, _ in every[:SHOWN]]
    assert all((len(path), path) in every for path in found)
    assert len({tuple(path) for path in found}) == len(found)
    assert all(b in needs[a] for path in found for a, b in pairwise(path))
    rest = len(every) - len(found)
    assert answer.more == rest if answer.exact else answer.more <= rest


def test_the_order_of_a_lock_never_shows() -> None:
    lock = a_cross_lock()
    read = locks.loads(locks.dumps(lock), name="x", kinds=KINDS)

    assert as_text(why(read, "libzlib")) == as_text(why(locks.sorted_lock(lock), "libzlib"))


# -- the command


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("why") / "demo"
    claim(folder)
    write_project(folder)
    done = run(folder, "lock", "demo.yaml", "with-cran.yaml", CREGRAPH_CACHE=str(folder / "cache"))
    assert done.code == 0, done.err
    yield folder


def test_the_command_answers_with_lines_of_the_profile(demo: Path) -> None:
    done = run(demo, "why", "demo-zlib", "with-cran.yaml")

    assert (done.code, done.err) == (0, "")
    assert "  with-cran.yaml:6: extras.cran[0]: demoplots\n" in done.out
    assert "    r demoplots 0.4.2 -> conda r-demoframes 1.2.0 -> r-base 4.5.2 -> demo-zlib 1.3.1\n" in done.out


def test_the_example_in_the_docs_is_real(demo: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "commands.md").read_text(encoding="utf-8")
    shown = page.partition("    $ cregraph why r-demotools with-cran.yaml\n")[2].partition("\n\n")[0]
    done = run(demo, "why", "r-demotools", "with-cran.yaml")

    assert [line.removeprefix("    ") for line in shown.splitlines()] == done.out.splitlines()


def test_the_same_for_a_program(demo: Path) -> None:
    done = run(demo, "why", "r:demostats", "with-cran.yaml", "--json")

    assert done.code == 0
    answer = json.loads(done.out)
    assert (answer["lock"], answer["package"]) == ("locks/with-cran.lock.json", "r:demostats")
    (found,) = answer["pins"]
    assert (found["pin"]["ecosystem"], found["pin"]["name"], found["pin"]["sandbox"], found["more"]) == (
        "r",
        "demostats",
        False,
        0,
    )
    (path,) = found["paths"]
    assert (path["ask"]["where"], path["ask"]["text"]) == ("with-cran.yaml:6: extras.cran[0]", "demoplots")
    assert [each["name"] for each in path["pins"]] == ["demoplots", "demostats"]


def test_a_name_that_the_lock_has_not_is_no_with_the_nearest(demo: Path) -> None:
    done = run(demo, "why", "demo-zlip", "demo.yaml")
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: `locks/demo.lock.json` has no pin of `demo-zlip`\nhint: write `demo-zlib` instead\n"

    done = run(demo, "why", "demo-zlip", "demo.yaml", "--json")
    assert (done.code, done.err) == (1, "")
    answer = {
        "version": 1,
        "lock": "locks/demo.lock.json",
        "package": "demo-zlip",
        "pins": [],
        "nearest": "demo-zlib",
        "base": None,
    }
    assert json.loads(done.out) == answer


def test_a_package_of_the_base_is_said_to_be_there(demo: Path) -> None:
    done = run(demo, "why", "demo_tables", "demo.yaml")

    assert done.code == 1
    assert "hint: the base image has it, version 2.1.0; the lock pins only what is added to the base\n" in done.err


def test_a_stale_lock_and_an_unreadable_profile_are_answered_too(demo: Path, tmp_path: Path) -> None:
    for name in ("demo.yaml", "locks/demo.lock.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((demo / name).read_text())
    profile = tmp_path / "demo.yaml"
    profile.write_text("# a line\n" + profile.read_text().replace("- demo-greeting >=1", "- demo-words"))
    done = run(tmp_path, "why", "demo-words", "demo.yaml")
    assert (done.code, done.err) == (0, "")
    assert "  demo.yaml: extras.pip: demo-greeting >=1\n" in done.out

    profile.write_text("cre: [")
    done = run(tmp_path, "why", "r-base", "demo.yaml")
    assert done.code == 0
    assert done.err.startswith("cannot show line numbers: demo.yaml:1: ")
    assert "  demo.yaml: cre.r_version: r-base =4.5.2\n" in done.out


def test_without_a_lock_there_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("cre: {}\n")
    done = run(tmp_path, "why", "x", "p.yaml")

    assert done == Done(2, "", "error: locks/p.lock.json: the lock does not exist\nhint: run `cregraph lock p.yaml`\n")


def test_what_would_move_a_cursor_is_written_as_an_escape(demo: Path) -> None:
    done = run(demo, "why", "\x1b[2Jx", "demo.yaml")

    assert (done.code, "\x1b" in done.err) == (1, False)


def test_no_socket_is_opened(demo: Path) -> None:
    """Python reports every socket to an audit hook."""
    program = """
import sys
def hook(event, _):
    if event.startswith("socket."):
        print(event)
        sys.exit(9)
sys.addaudithook(hook)
sys.argv = ["cregraph", "why", "demo-zlib", "demo.yaml"]
from cregraph.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=demo, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
