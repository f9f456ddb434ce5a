"""What is read in a quick way means what the whole reader takes it for: command lines, requirements, YAML."""

from __future__ import annotations

import functools
import inspect
import random
import re
import subprocess
import sys
from typing import Any

import pytest
import typer
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from cregraph.cli.app import COMMANDS as NAMES_OF_COMMANDS
from cregraph.cli.app import app_for, command_of
from cregraph.cli.direct_parser import direct_call
from cregraph.errors import CregraphError
from cregraph.kinds import MODULES
from cregraph.profile import yaml_reader
from cregraph.profile.package_texts import plain_requirement
from cregraph.profile.stated import Stated

COMMANDS = {name: found for name in NAMES_OF_COMMANDS if not isinstance(found := command_of(name), typer.Typer)}


def by_typer(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any] | None:
    """What typer would call the command with; None where it refuses."""
    found: list[dict[str, Any]] = []
    copy = typer.Typer(rich_markup_mode=None, add_completion=False)
    for info in app_for().registered_commands:
        assert info.callback is not None

        def record(_callback: Any = info.callback, **values: Any) -> None:
            found.append(values)

        fake = functools.wraps(info.callback)(record)
        fake.__signature__ = inspect.signature(info.callback, eval_str=True)  # type: ignore[attr-defined]
        fake.__annotations__ = {n: p.annotation for n, p in fake.__signature__.parameters.items()}  # type: ignore[attr-defined]
        copy.command(name=info.name)(fake)
    try:
        copy(words, standalone_mode=False)
    except Exception:  # a usage error; its class depends on typer's version
        return None
    return found[0] if found else None


def same(values: dict[str, Any], command: str) -> dict[str, Any]:
    """With the defaults that were left out, and empty lists for none."""
    whole = {}
    for name, parameter in inspect.signature(COMMANDS[command]).parameters.items():
        value = values.get(name, parameter.default)
        whole[name] = value if value not in ((), []) else None
        if isinstance(value, tuple):
            whole[name] = list(value) or None
    return whole


WORDS = ["a.yaml", "b", "--json", "--all", "--jobs", "2", "--jobs=3", "-j", "--check", "--engine", "native", "--sources", "-o",
         "oci:x", "--output=docker", "--upgrade", "--upgrade-package", "dplyr", "--keep-going", "--", "-h", "--nothing", "-1", "",
         "--format", "json", "--profile", "--as-of", "2025-01-01", "--offline", "--jobs=-1", "--json=x", "-jo"]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from(sorted(COMMANDS)), rest=st.lists(st.sampled_from(WORDS), max_size=5))
def test_both_readers_give_a_command_the_same(monkeypatch: pytest.MonkeyPatch, command: str, rest: list[str]) -> None:
    call = direct_call([command, *rest])
    if call is None:
        return  # typer reads it
    assert isinstance(call, functools.partial)
    assert call.func is COMMANDS[command]
    other = by_typer([command, *rest], monkeypatch)
    assert other is not None, "typer refuses what was taken for plain"
    assert same(dict(call.keywords), command) == same(other, command)


@pytest.mark.parametrize("words", [["build"], ["build", "x.yaml", "-j", "3", "--json"], ["lock", "--check", "x.yaml"], ["plan"]])
def test_everyday_command_lines_are_plain(words: list[str]) -> None:
    assert direct_call(words) is not None


@pytest.mark.parametrize(
    "words", [[], ["--version"], ["build", "--help"], ["build", "--job", "3"], ["buidl"], ["build", "--", "x"]]
)
def test_what_typer_explains_is_left_to_typer(words: list[str]) -> None:
    assert direct_call(words) is None


def test_the_texts_of_help_are_read_only_for_help() -> None:
    for words, read in ((["lock", "--help"], True), (["--help"], False), (["lock", "--nonsense"], False)):
        program = f"import sys; sys.argv[1:] = {words}\nfrom cregraph.cli import main\n"
        program += "try: main()\nfinally: print(sys.modules['cregraph.cli.help_page'].pages.cache_info().currsize > 0)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.stdout.endswith(f"{read}\n"), words


@pytest.mark.parametrize(("words", "module"), [(["lock", "--help"], "lock"), (["--help"], ""), (["buidl"], ""), ([], "")])
def test_no_other_command_is_imported(words: list[str], module: str) -> None:
    program = f"import sys; sys.argv[1:] = {words}\nfrom cregraph.cli import main\ntry: main()\nfinally: print(list(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    imported = set(re.findall(r"'cregraph\.cli\.(\w+)'", done.stdout))
    assert "app" in imported
    assert imported & set(NAMES_OF_COMMANDS) == {module} - {""}


def test_commands_and_kinds_load_no_module_that_a_command_with_nothing_to_do_does_not_need() -> None:
    modules = ["cregraph.cli.direct_parser", *(f"cregraph.cli.{name}" for name in ("lock", "build"))]
    program = f"import sys, importlib as i\nfor m in {[*modules, *MODULES.values()]}: i.import_module(m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "cregraph.kinds.r.r_kind" in loaded
    unwanted = {"gzip", "tempfile", "tarfile", "cregraph.sources.cran", "cregraph.formats.dcf", "cregraph.cli.help_page"}
    assert loaded & unwanted == set()


NAMES = st.sampled_from(["numpy", "scikit-learn", "ruamel.yaml", "a", "A_b", "x-", "-x", "a b", ""])
CLAUSES = st.lists(
    st.sampled_from([">=1", "==2.0", "< 3", "!=1.2.3", "~=1.4", ">=1.*", "== 1", ">=1,<2", ", ", " ", "==1.0rc1", ">=01"]),
    max_size=3,
)


@given(name=NAMES, clauses=CLAUSES, between=st.sampled_from(["", " "]))
def test_a_plain_requirement_is_what_packaging_takes_it_for(name: str, clauses: list[str], between: str) -> None:
    text = f"{name}{between}{','.join(clauses)}"
    simple = plain_requirement(text)
    if simple is not None:
        other = Requirement(text)
        assert simple[0] == other.name
        assert sorted(simple[1]) == sorted(str(one) for one in other.specifier)
        assert not (other.url or other.marker or other.extras)


def test_both_parsers_of_yaml_give_the_same_where_the_quick_one_is_asked() -> None:
    """Files of pieces that mean something to YAML, at random: what the C parser takes, the other takes too, and for the same."""
    chance = random.Random(8)
    taken = 0
    for _ in range(20_000):
        text = "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 14)))
        if yaml_reader._UNSURE.search(text):
            continue
        quick = tree(text, yaml.CSafeLoader)
        if quick is not None:
            taken += 1
            assert tree(text, yaml.SafeLoader) == quick, text
    assert taken > 1000


PIECES = [
    "a", "b: ", "- ", "\n", "  ", "    ", "[", "]", "{", "}", ", ", ": ", "'", "\"", "# c", "|", "|-", ">", "\\n", "1", "x",
    "\n\n", "- - ", "!", "&a", "*a", "%", "---\n", "~", "null", "=", ":", "'its'", "\"q\\u0041\"", "http://x:1/y", "a: b\n",
    "- c\n", "  d: e\n", "k: |\n  text\n  more\n", "k: >\n  f\n  g\n\n", "@", "`", ">+", "|2\n", "yes", "2025-01-01",
    "4.50",
]  # fmt: skip


def tree(text: str, loader: type) -> object:
    """What is read, with places; None where it is refused."""

    def flat(node: Stated) -> object:
        parts = [flat(item) for item in node.items] or [(key, flat(item)) for key, item in node.fields.items()]
        return (str(node.place), node.raw, parts or repr(node.value))

    try:
        return flat(yaml_reader._Builder("file", []).build(yaml.parse(text, Loader=loader)))
    except (yaml.YAMLError, ValueError, CregraphError):
        return None
