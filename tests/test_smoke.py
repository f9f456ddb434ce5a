"""`cregraph test`: which checks a lock asks for, and the driver that carries them out.

The driver runs here in a process of its own with a fake jupyter_client, whose kernel is a real process that executes Python
and knows as much of %%R as the checks ask. That true kernels and true R pass is shown with the test environment's image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cregraph.kinds import KINDS
from cregraph.lock.base_facts import BaseFacts, PythonFact
from cregraph.lock.lock_file import Identity, Lock, StageRecord
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.smoke.smoke_checks import DRIVER, Check, Outcome, checks_of, files, home_of, read, settled

PREFIX = "/home/jupyter/micromamba/envs/workspace_env"
LIBRARY = f"{PREFIX}/lib/R/library"
HOOK = "/root/.ipython/profile_default/startup/00-sfnb-enable-r.py"


def pin(kind: str, name: str, version: str, *provides: str, asked: bool = True, **data: str) -> Pin:
    artifact = Artifact(kind=kind, source="s", file="f", sha256="0" * 64, size=1)
    return Pin(
        name=name, version=version, artifact=artifact, provides=provides, asked=(f"r: {name}",) if asked else (), data=data
    )


def target(kind: str, place: str, asks: list[object], *pins: Pin) -> Target:
    made = tuple(Ask(kind=kind, place=place, stage="r", what=what, where="p.yaml:1: x") for what in asks)
    return Target(kind=kind, place=place, scope=KINDS[kind].scope(place), asks=made, pins=pins)


BASE = Target(kind="image", place="base", pins=(pin("image", "base", "1"),))
R = target(
    "conda",
    PREFIX,
    ["r-base =4.5.2", "r-dplyr", "zlib", "r-sf"],
    pin("conda", "r-base", "4.5.2", "conda:r-base 4.5.2", "r:base 4.5.2"),
    pin("conda", "r-dplyr", "1.1.4", "conda:r-dplyr 1.1.4", "r:dplyr 1.1.4"),
    pin("conda", "r-rlang", "1.1.5", "conda:r-rlang 1.1.5", "r:rlang 1.1.5", asked=False),
    pin("conda", "r-sf", "1.0_16", "conda:r-sf 1.0_16", "r:sf 1.0-16"),
    pin("conda", "zlib", "1.3", "conda:zlib 1.3"),
)
CRAN = target(
    "r",
    LIBRARY,
    ["survival ==3.5-8", "rlang", {"name": "snowflakeR", "tarball": "https://x.example/snowflakeR_0.1.0.tar.gz"}],
    pin("r", "survival", "3.5-8", "r:survival 3.5-8"),
    pin("r", "Matrix", "1.6-5", "r:matrix 1.6-5", asked=False),
    pin("r", "snowflakeR", "0.1.0", "r:snowflaker 0.1.0"),
)
PYTHON = target(
    "python",
    "$(snowbooks.python)",
    ["tabulate", "pandas >=2", 'tomli ; python_version < "3"', {"build": {"conda": {}, "env": {}}}],
    pin("python", "tabulate", "0.9.0", "py:tabulate 0.9.0"),
    pin("python", "build:tabulate:setuptools", "80", asked=False, role="build"),
)
FILES = target(
    "file",
    "",
    [{"at": [HOOK, "/home/jupyter/x"], "from": "standard:hook/x.py"}, {"at": ["/opt/sfnb/CRE_VERSION"], "text": "v1\n"}],
)


def a_lock(*targets: Target, checks: tuple[object, ...] = ()) -> Lock:
    stages = (StageRecord(name="r"), StageRecord(name="hook", checks=checks))
    return Lock(identity=Identity(name="n", image="i", label="v1", tag="v1"), stages=stages, targets=(BASE, *targets))


FACTS = BaseFacts(
    digest="sha256:" + "0" * 64,
    config={},
    layers=(),
    glibc=None,
    users={},
    python=PythonFact(
        version="3.11.2", executable="/p", prefix="/", site_packages="/s", scripts="/b", distributions={"pandas": "2.2.3"}
    ),
)


# -- which checks


def test_a_lock_asks_for_everything_that_was_asked_for_at_the_version_that_it_pins():
    checks = checks_of(a_lock(R, CRAN, PYTHON, FILES, checks=({"kind": "kernel", "code": ["%%R\n1"]},)), FACTS)

    assert [c.name for c in checks] == [
        "kernel: starts",
        "hook: says that it is there",
        "mark: /opt/sfnb/CRE_VERSION",
        "kernel: %%R is R 4.5.2",
        "kernel: %%R after a restart",
        "kernel: %%R in the folder of a renv project",
        "r: dplyr 1.1.4",
        "r: rlang 1.1.5",
        "r: sf 1.0-16",
        "r: snowflakeR 0.1.0",
        "r: survival 3.5-8",
        "python: pandas 2.2.3",
        "python: tabulate 0.9.0",
        "python: pip check",
        "recipe hook: its kernel check",
    ]


def test_an_image_without_r_and_hook_is_asked_for_neither():
    assert [c.name for c in checks_of(a_lock(PYTHON), None)] == ["kernel: starts", "python: tabulate 0.9.0", "python: pip check"]


def test_without_the_hook_r_is_asked_itself_and_no_magic_is_expected():
    lock = a_lock(R)

    checks = checks_of(lock, FACTS)

    assert not any("%%R" in c.name for c in checks)
    assert json.loads(files(lock, checks)["/cregraph-smoke/checks.json"])["programs"]["r"] == f"{PREFIX}/bin/R"


def test_what_exists_in_the_sandbox_only_is_not_looked_for_in_the_image():
    sandbox = target("conda", "/cregraph/python", ["r-x"], pin("conda", "r-x", "1", "r:x 1"))

    assert not [c for c in checks_of(a_lock(R, sandbox), FACTS) if c.name == "r: x 1"]


def test_the_home_of_sessions_is_the_stated_one_else_snowflakes():
    stated = replace(BASE, options={"user": "jovyan", "home": "/home/jovyan"})
    lock = a_lock(target("file", "", [{"at": [f"/home/jovyan/{HOOK.removeprefix('/root/')}"], "from": "standard:hook/x.py"}]))

    assert home_of(lock) == "/root"
    assert not [c for c in checks_of(lock, FACTS) if c.name.startswith("hook:")]
    stated_lock = replace(lock, targets=(stated, *lock.targets[1:]))
    assert home_of(stated_lock) == "/home/jovyan"
    (hook,) = [c for c in checks_of(stated_lock, FACTS) if c.name.startswith("hook:")]
    assert hook.data["file"] == "/home/jovyan/.ipython/profile_default/startup/00-sfnb-enable-r.py"


def test_two_checks_of_a_recipe_have_two_names():
    checks = checks_of(a_lock(checks=({"kind": "r", "code": ["1"]}, {"kind": "r", "code": ["2"]})), None)

    assert [c.name for c in checks][-2:] == ["recipe hook: its r check (1)", "recipe hook: its r check (2)"]


def test_a_check_without_an_answer_failed():
    checks = [Check(name=name, do="x") for name in ("a", "b")]

    said = list(read(["entry point says hello", "{", "[1]", '{"cregraph-check": 5}', '{"cregraph-check": "b", "ok": true}']))

    assert settled(checks, said, why="it ended") == (Outcome(name="a", ok=False, why="it ended"), Outcome(name="b", ok=True))


# -- the driver

MANAGER = """
import json, os, queue, subprocess, sys, threading
KERNEL = os.path.join(os.path.dirname(__file__), "kernel.py")
class Client:
    def __init__(self, manager): self.manager, self.shell, self.number = manager, queue.Queue(), 0
    def start_channels(self): pass
    def stop_channels(self): pass
    def kernel_info(self):
        self.shell.put({"parent_header": {"msg_id": "info"}}); return "info"
    def get_shell_msg(self, timeout): return self.shell.get(timeout=timeout)
    def get_iopub_msg(self, timeout): return self.manager.published.get(timeout=min(timeout, 0.2))
    def execute(self, code, **_):
        self.number += 1
        try:
            self.manager.process.stdin.write(json.dumps([str(self.number), code]) + "\\n"); self.manager.process.stdin.flush()
        except OSError: pass
        return str(self.number)
class KernelManager:
    def __init__(self, kernel_name): self.process = None
    def start_kernel(self, cwd, stdout, stderr):
        self.launch = dict(cwd=cwd, stderr=stderr)
        self.published = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-u", KERNEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **self.launch)
        threading.Thread(target=self.listen, args=(self.process, self.published), daemon=True).start()
    def listen(self, process, published):
        for row in process.stdout: published.put(json.loads(row))
    def client(self): return Client(self)
    def is_alive(self): return self.process.poll() is None
    def shutdown_kernel(self, now): self.process.kill(); self.process.wait()
    def restart_kernel(self, now):
        published = self.published; self.shutdown_kernel(now=True); self.start_kernel(stdout=None, **self.launch)
"""

KERNEL = """
import contextlib, io, json, os, re, sys
def say(kind, parent, **content):
    print(json.dumps({"msg_type": kind, "parent_header": {"msg_id": parent} if parent else {}, "content": content}))
HAVE = json.loads(os.environ.get("FAKE_R", "{}"))
def magic(code):
    if os.environ.get("FAKE_NO_R"): return "UsageError: Cell magic `%%R` not found."
    if "installed.packages" in code: return "".join(f"cregraph-answer:{n}\\n" for n in HAVE)
    if "R.version.string" in code: return "R version 4.5.2 (2025-10-31)"
    name = re.search(r'library\\("(.*?)"', code)
    if not name: return code.split("\\n", 1)[1]
    if HAVE[name[1]] == "broken":
        raise RuntimeError("Failed to evaluate line 'x'.\\nR error message: \\"Error in library(x): no\\\\n such object\\"")
    if HAVE[name[1]] == "deadly": print("*** caught segfault ***", file=sys.stderr); os._exit(11)
    return f"\\ncregraph-answer:{HAVE[name[1]]}\\n"
if os.environ.get("FAKE_BANNER"): say("stream", None, text=os.environ["FAKE_BANNER"] + "\\n")
space = {}
deaf = os.environ.get("FAKE_DEAF")
for row in sys.stdin:
    if deaf and "pass" not in row and len(os.listdir(deaf)) < int(os.environ["FAKE_TIMES"]):
        open(os.path.join(deaf, str(os.getpid())), "w").close()
        continue
    number, code = json.loads(row)
    out = io.StringIO()
    try:
        if code.startswith("%%R"): say("display_data", number, data={"text/plain": magic(code)})
        else:
            with contextlib.redirect_stdout(out): exec(code, space)
            say("stream", number, text=out.getvalue())
    except Exception as error: say("error", number, ename=type(error).__name__, evalue=str(error))
    say("status", number, execution_state="idle")
"""


class Image:
    """A folder that stands for the inside of an image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.site = root / "site"
        (self.site / "jupyter_client").mkdir(parents=True)
        (self.site / "jupyter_client/__init__.py").write_text("")
        (self.site / "jupyter_client/manager.py").write_text(MANAGER)
        (self.site / "jupyter_client/kernel.py").write_text(KERNEL)
        self.env = {"PYTHONPATH": str(self.site), "PATH": os.environ["PATH"]}
        self.program: str | None = None
        self.taken = 20.0

    def distribution(self, name: str, version: str, **modules: str) -> None:
        folder = self.site / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        record = []
        for module, text in modules.items():
            path = self.site / module.replace("__", "/") / "__init__.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            record.append(f"{path.relative_to(self.site)},,\n")
        (folder / "RECORD").write_text("".join(record))

    def run(self, *checks: Check) -> list[tuple[bool, str]]:
        folder = self.root / "trial"
        folder.mkdir(exist_ok=True)
        (folder / "renv").mkdir(exist_ok=True)
        text = files(a_lock(), ())[DRIVER].replace(b"TAKEN_SECONDS = 20.0", f"TAKEN_SECONDS = {self.taken}".encode())
        (folder / "driver.py").write_bytes(text)
        asked = [{"name": c.name, "do": c.do, "data": dict(c.data)} for c in checks]
        (folder / "checks.json").write_text(
            json.dumps({"checks": asked, "renv": str(folder / "renv"), "programs": {"r": self.program}})
        )
        done = subprocess.run(
            [sys.executable, folder / "driver.py"], cwd=self.root, env=self.env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        outcomes = list(read(done.stdout.splitlines()))
        assert [o.name for o in outcomes] == [c.name for c in checks]
        return [(o.ok, o.why) for o in outcomes]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def check(do: str, **data: object) -> Check:
    return Check(name=f"{do} {sorted(data.items())}", do=do, data=data)


def a_package(package: str, version: str) -> Check:
    return check("r_package", package=package, version=version)


OK = (True, "")


def test_r_is_asked_at_the_start_after_a_restart_and_in_a_renv_project(image):
    versions = [check("r_version", version="4.5.2", first=first) for first in ("", "restart", "renv")]

    assert image.run(check("start"), *versions) == [OK] * 4


def test_another_r_is_told_from_the_one_that_is_locked(image):
    assert image.run(check("r_version", version="4.5")) == [
        (False, "R.version.string is `R version 4.5.2 (2025-10-31)` (expected R 4.5)")
    ]


def test_r_packages_are_found_in_whatever_case_and_versions_compared_as_r_does(image):
    image.env["FAKE_R"] = json.dumps({"DBI": "1.2.3", "sf": "1.0-16", "Matrix": "1.6-5"})

    assert image.run(a_package("dbi", "1.2.3"), a_package("sf", "1.0_16"), a_package("Matrix", "1.6.5")) == [OK] * 3


def test_what_is_wrong_with_an_r_package_is_said_in_rs_words(image):
    image.env["FAKE_R"] = json.dumps({"old": "1.0", "bad": "broken"})

    assert image.run(a_package("old", "1.1"), a_package("bad", "1"), a_package("none", "1")) == [
        (False, "it is version 1.0, and 1.1 is locked"),
        (False, "Error in library(x): no such object"),
        (False, "R has no package of that name"),
    ]


def test_a_package_that_kills_the_kernel_fails_alone(image):
    image.env["FAKE_R"] = json.dumps({"a": "1", "killer": "deadly", "z": "1"})

    assert image.run(a_package("a", "1"), a_package("killer", "1"), a_package("z", "1")) == [
        OK,
        (False, "the kernel died: *** caught segfault ***"),
        OK,
    ]


@pytest.mark.parametrize(("times", "outcome"), [(2, OK), (9, (False, "the kernel lives, and does not begin what it is asked"))])
def test_a_kernel_that_never_hears_of_a_cell_is_replaced_and_the_whole_check_repeated(image, times, outcome):
    deaf = image.root / "deaf"
    deaf.mkdir()
    image.env |= {"FAKE_DEAF": str(deaf), "FAKE_TIMES": str(times)}
    image.taken = 3.0

    assert image.run(check("recipe", language="python", code=["x = 1", "assert x == 1"])) == [outcome]
    assert len(list(deaf.iterdir())) == min(times, 3)


def test_without_r_every_check_of_r_fails_in_words(image):
    image.env["FAKE_NO_R"] = "1"
    missing = (False, "UsageError: Cell magic `%%R` not found.")

    checks = [check("r_version", version="4.5.2"), a_package("dplyr", "1"), check("recipe", language="r", code=["1"])]

    assert image.run(check("start"), *checks) == [OK, missing, missing, missing]


def test_without_jupyter_every_check_of_the_kernel_fails_in_words_and_the_others_go_on(image):
    (image.site / "jupyter_client/manager.py").unlink()
    (image.root / "mark").write_text("v1\n")

    first, second, third = image.run(
        check("start"), check("recipe", language="kernel", code=["1"]), check("file", file=str(image.root / "mark"), text="v1")
    )

    assert first == second
    assert first[1].startswith("this image cannot start a Jupyter kernel: ModuleNotFoundError: No module named")
    assert third == OK


def test_a_file_that_says_something_else_is_quoted(image):
    (image.root / "mark").write_text("v2\x1b[2J\n")

    assert image.run(check("file", file=str(image.root / "mark"), text="v1")) == [(False, "it says `v2` (expected `v1`)")]


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("[sfnb CRE] %%R ready", OK),
        ("[sfnb CRE] %%R not available: no libR", (False, "[sfnb CRE] %%R not available: no libR")),
        ("", (False, "the kernel's start does not say `[sfnb CRE]`")),
    ],
)
def test_the_hooks_line_is_heard_at_the_kernels_start(image, said, outcome):
    image.env["FAKE_BANNER"] = said
    (image.root / "hook.py").write_text("pass\n")

    assert image.run(check("banner", file=str(image.root / "hook.py"), says="[sfnb CRE]")) == [outcome]


def test_python_packages_are_imported_and_their_versions_compared(image):
    image.distribution("good", "1.0", good="", good__inner="raise SystemExit('never imported')")
    image.distribution("spaced", "2", space__part="")
    image.distribution("bad", "1", bad="import no_such_module", _private="1/0", tests="1/0")
    image.distribution("quits", "1", quits="raise SystemExit('bye')")

    def package(name: str, version: str) -> Check:
        return check("python_package", package=name, version=version)

    assert image.run(
        package("good", "1.0"), package("good", "1.1"), package("spaced", "2"), package("bad", "1"), package("quits", "1"),
        package("absent", "1"),
    ) == [
        OK,
        (False, "it is version 1.0, and 1.1 is locked"),
        OK,
        (False, "import bad: ModuleNotFoundError: No module named 'no_such_module'"),
        (False, "import quits: SystemExit: bye"),
        (False, "it is not installed"),
    ]  # fmt: skip


def test_checks_of_recipes_run_cell_by_cell_in_one_kernel(image):
    good = check("recipe", language="python", code=["x = 1", "assert x == 1"])
    bad = check("recipe", language="kernel", code=["%%R\ncat(1)", "assert x == 2, 'x is\\n\x1b[31mnot 2'"])

    assert image.run(good, bad) == [OK, (False, "AssertionError: x is not 2")]


def test_pip_check_passes_over_what_snowflake_passes_over(image):
    (image.site / "pip").mkdir()
    (image.site / "pip/__init__.py").write_text("")
    main = image.site / "pip/__main__.py"
    main.write_text("print('jupyterlab 4 requires jupyter-lsp, which is not installed.'); raise SystemExit(1)")
    assert image.run(check("pip_check")) == [OK]

    main.write_text("print('a 1 has requirement b>2, but you have b 1.'); raise SystemExit(1)")
    assert image.run(check("pip_check")) == [(False, "a 1 has requirement b>2, but you have b 1.")]


def test_where_no_magic_is_promised_r_itself_is_asked(image, tmp_path):
    program = tmp_path / "R"
    program.write_text(
        "#!/bin/sh\ncode=$(cat)\ncase $code in\n*installed.packages*) echo cregraph-answer:DBI;;\n"
        "*DBI*) echo; echo cregraph-answer:1.2.3;;\n*) echo 'Error: no' >&2; exit 1;;\nesac\n"
    )
    program.chmod(0o755)
    image.program = str(program)

    assert image.run(a_package("dbi", "1.2.3"), check("recipe", language="r", code=["stop()"])) == [OK, (False, "Error: no")]


def test_the_driver_needs_no_newer_python_than_38():
    import ast

    ast.parse(files(a_lock(), ())[DRIVER], feature_version=(3, 8))
