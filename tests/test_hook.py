"""The kernel start-up hook and its helpers, in processes of their own with a fake R, rpy2 and IPython.

The fakes are what a notebook image has beside the hook: a prefix with a loadable libR.so, a package `rpy2` that behaves
as told (and, like rpy2 3.6, takes over an environment), and a shell that loads extensions. The hook's files are the
shipped ones. That real R answers is shown with the test environment's image.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
HOOK = ROOT / "recipes" / "hook"
STARTUP = HOOK / "00-sfnb-enable-r.py"
HELPERS = HOOK / "helpers"
MACHINES = {"x86_64": 62, "aarch64": 183}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the hook runs in a Linux image")

RPY2 = """
import json, os, sys
if os.environ.get("FAKE_RPY2_FAILS"): exec(os.environ["FAKE_RPY2_FAILS"])
with open(os.environ["FAKE_LOG"], "a") as log: log.write(os.getcwd() + "\\n")
os.environ.update(PWD=os.getcwd(), PATH="/rscript/bin", LD_LIBRARY_PATH="/java", R_SHARE_DIR="/share", _="/Rscript")
def r(code):
    if code == "tempdir()": return ["/tmp/RtmpFake"]
    if code == ".libPaths()": return [os.environ["R_LIBS"]]
    if code.startswith("options("): return []
    return ['R version 4.5.2 (2025-10-31) -- "[Not] Part in a Rumble"']
"""

RPY2_IPYTHON = """
def load_ipython_extension(shell):
    shell.loads += 1
    shell.magics_manager.magics["cell"]["R"] = shell.magics_manager.magics["line"]["R"] = print
"""

IPYTHON = """
import importlib
class Magics: magics = {"cell": {}, "line": {}}
class Extensions:
    loaded = set()
    def load_extension(self, name):
        if name in self.loaded: return "already loaded"
        self.loaded.add(name)
        importlib.import_module(name).load_ipython_extension(shell)
class Shell:
    loads = 0
    magics_manager = Magics()
    extension_manager = Extensions()
shell = Shell()
def get_ipython(): return shell
"""

SNOWPARK = """
import os
class Session:
    now = {"role": '"ANALYST"', "warehouse": '"WH"', "database": '"DB"', "schema": None, "account": '"XY1"', "user": '"ME"'}
    def __getattr__(self, name):
        verb, _, what = name.partition("_")
        if verb == "get": return lambda: self.now[what.removeprefix("current_")]
        def use(value):
            if value == "FORBIDDEN": raise RuntimeError("no privilege on\\nFORBIDDEN")
            self.now[what] = f'"{value.upper()}"'
        return use
def get_active_session(): return Session()
"""

KERNEL = """
import io, json, os, sys, contextlib
import IPython
namespace = {"__name__": "__main__"}
before = dict(os.environ)
said = io.StringIO()
with contextlib.redirect_stdout(said):
    for _ in range(int(os.environ.get("FAKE_STARTS", "1"))):
        exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), namespace)
    if len(sys.argv) > 2:
        exec(sys.argv[2], namespace)
try: folder = os.getcwd()
except OSError: folder = None
print(json.dumps({
    "said": said.getvalue(), "names": sorted(n for n in namespace if not n.startswith("__")),
    "before": before, "after": dict(os.environ), "cwd": folder, "path": sys.path,
    "cell magics": sorted(IPython.shell.magics_manager.magics["cell"]), "loads": IPython.shell.loads,
    "answer": namespace.get("answer"),
}))
"""


def load_helper(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hook_{name}", HELPERS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


@pytest.fixture(scope="module")
def libr() -> Any:
    return load_helper("sfnb_libr")


class Image:
    """What a kernel finds around it; every part can be broken by a test."""

    def __init__(self, root: Path, libr: Any) -> None:
        self.root = root
        self.home, self.prefix, self.site, self.work = (root / n for n in ("home", "env", "site", "filesystem"))
        self.log = root / "log"
        for folder in (self.home, self.site, self.work):
            folder.mkdir()
        self.library = self.prefix / "lib" / "R" / "library"
        self.libr = self.prefix / "lib" / "R" / "lib" / "libR.so"
        self.libr.parent.mkdir(parents=True)
        self.libr.write_bytes(libr.carrier(MACHINES[os.uname().machine], [], [self.libr.parent]))
        for name, version in {"base": "4.5.2", "snowflakeR": "0.2.0", "R6": "2.6.1"}.items():
            (self.library / name).mkdir(parents=True)
            (self.library / name / "DESCRIPTION").write_text(f"Package: {name}\nVersion: {version}\n")
        self.marker = self.home / ".workspace_env_prefix"
        self.marker.write_text(f"{self.prefix}\n")
        self.module("rpy2/__init__.py")
        self.module("rpy2/robjects.py", RPY2)
        self.module("rpy2/ipython/__init__.py", RPY2_IPYTHON)
        self.module("IPython/__init__.py", IPYTHON)
        self.environ = {
            "SFNB_CUSTOM_RUNTIME": "1",
            "SFNB_HELPERS_PATH": str(HELPERS),
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(self.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "FAKE_LOG": str(self.log),
        }

    def module(self, name: str, text: str = "") -> None:
        path = self.site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, code: str = "", **environ: str) -> dict[str, Any]:
        """Start a kernel in the working folder, run the hook and then `code`; what the kernel is like afterwards."""
        done = subprocess.run(
            [sys.executable, "-c", KERNEL, str(STARTUP), code],
            cwd=self.work,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def notebook(self, call: str, **environ: str) -> tuple[dict[str, Any], list[str]]:
        """The report of a call of sfnb_setup in a started kernel, and the lines that it printed."""
        kernel = self.start(f"import sfnb_setup; answer = sfnb_setup.{call}", **environ)
        return kernel["answer"], kernel["said"].splitlines()[1:]


@pytest.fixture
def image(tmp_path: Path, libr: Any) -> Image:
    return Image(tmp_path, libr)


READY = '[sfnb CRE] %%R ready — R version 4.5.2 (2025-10-31) -- "[Not] Part in a Rumble" (magic registered=True)\n'


def test_a_kernel_start_gives_r_cells_and_says_so_in_one_line(image: Image) -> None:
    kernel = image.start()

    assert kernel["said"] == READY
    assert kernel["cell magics"] == ["R"]
    assert kernel["names"] == []


def test_the_image_helpers_can_be_imported_by_the_notebook(image: Image) -> None:
    kernel = image.start("from sfnb_setup import setup_notebook; from r_helpers import setup_r_environment")

    assert kernel["path"][0] == str(HELPERS)


def test_an_older_copy_of_the_helpers_in_the_project_does_not_win(image: Image) -> None:
    (image.work / "r_helpers.py").write_text("raise SystemExit('the old one')")

    assert image.start()["said"] == READY


def test_the_environment_of_r_is_set_in_this_process(image: Image) -> None:
    after = image.start(LD_LIBRARY_PATH="/cuda/lib")["after"]

    home, library = image.prefix / "lib/R", str(image.library)
    assert after["R_HOME"] == after["RHOME"] == str(home)
    assert after["R_LIBS"] == after["R_LIBS_USER"] == library
    assert after["PATH"] == f"{image.prefix}/bin:/usr/bin:/bin"
    assert after["LD_LIBRARY_PATH"] == f"{image.prefix}/lib:{home}/lib:/cuda/lib"
    assert after["TZ"] == "UTC"
    assert after["R_SESSION_TMPDIR"] == "/tmp/RtmpFake"


def test_a_time_zone_that_was_chosen_stays(image: Image) -> None:
    assert image.start(TZ="Europe/Rome")["after"]["TZ"] == "Europe/Rome"


def test_a_renv_project_in_the_working_folder_is_skipped(image: Image) -> None:
    kernel = image.start(
        RENV_PROJECT="/filesystem/x",
        R_LIBS_SITE="/renv/library",
        R_PROFILE="/filesystem/x/.Rprofile",
        R_ENVIRON="/filesystem/x/.Renviron",
        RENV_PATHS_CACHE="/cache",
    )

    after = kernel["after"]
    assert not {"RENV_PROJECT", "R_LIBS_SITE", "R_PROFILE", "R_ENVIRON", "RENV_PATHS_CACHE"} & set(after)
    assert after["R_PROFILE_USER"] == after["R_ENVIRON_USER"] == "/dev/null"
    assert after["RENV_CONFIG_AUTOLOADER_ENABLED"] == after["RENV_ACTIVATE_PROJECT"] == "false"
    started_in = set(image.log.read_text().splitlines())
    assert started_in == {str(image.prefix / "lib/R")}, "R must not start where .Rprofile and .RData lie"
    assert kernel["cwd"] == str(image.work)


def test_what_rpy2_takes_over_from_another_process_does_not_stay(image: Image) -> None:
    kernel = image.start(PWD=str(image.work))

    assert kernel["after"]["PWD"] == str(image.work)
    assert "/java" not in kernel["after"]["LD_LIBRARY_PATH"]
    assert kernel["after"].get("_") == kernel["before"].get("_")
    assert kernel["after"]["R_SHARE_DIR"] == "/share", "R needs what is new"


def test_running_the_hook_again_changes_nothing(image: Image) -> None:
    once, twice = image.start(), image.start(FAKE_STARTS="2")

    assert twice["said"] == READY * 2
    assert twice["loads"] == 1
    assert {k: v for k, v in twice["after"].items() if k != "FAKE_STARTS"} == once["after"]
    assert twice["path"].count(str(HELPERS)) == 1


@pytest.mark.parametrize("value", [None, "", "0", "false", "no"])
def test_on_any_other_image_the_hook_does_nothing(image: Image, value: str | None) -> None:
    del image.environ["SFNB_CUSTOM_RUNTIME"]
    kernel = image.start(**({} if value is None else {"SFNB_CUSTOM_RUNTIME": value}))

    assert kernel["said"] == ""
    assert kernel["after"] == kernel["before"]
    assert str(HELPERS) not in kernel["path"]
    assert not image.log.exists()


@pytest.mark.parametrize("value", ["1", "true", "TRUE", " yes "])
def test_the_mark_of_the_image_may_be_written_in_several_ways(image: Image, value: str) -> None:
    assert image.start(SFNB_CUSTOM_RUNTIME=value)["said"] == READY


def test_a_working_folder_that_is_gone_does_not_stop_r(image: Image) -> None:
    gone = image.root / "gone"
    gone.mkdir()
    script = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n" + KERNEL
    done = subprocess.run(
        [sys.executable, "-c", script, str(STARTUP)], env=image.environ, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["said"] == READY


NOT = "[sfnb CRE] %%R not available: "


def refused(image: Image, **environ: str) -> str:
    """The reason that the banner gives, having checked that it is one line and that the kernel is as it was."""
    kernel = image.start(**environ)
    said: str = kernel["said"]
    assert said.startswith(NOT) and said.endswith("\n") and said.count("\n") == 1
    assert kernel["cwd"] == str(image.work)
    assert kernel["after"] == kernel["before"]
    assert kernel["cell magics"] == []
    return said.removeprefix(NOT).rstrip("\n")


def test_a_missing_prefix_file_is_named(image: Image) -> None:
    image.marker.unlink()

    assert refused(image) == (
        f"`{image.marker}` does not exist, so R's place is unknown; use an image that was built with R, or write the path there"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"envs/workspace_env\n", "does not hold one absolute path"),
        (b"/a\n/b\n", "does not hold one absolute path"),
        (b"/a:/b\n", "does not hold one absolute path"),
        (b"\xff\xfe\x00", "cannot be read (not text)"),
    ],
)
def test_a_broken_prefix_file_is_named(image: Image, content: bytes, reason: str) -> None:
    image.marker.write_bytes(content)

    assert refused(image).startswith(f"`{image.marker}` {reason}, so R's place is unknown")


def test_an_unreadable_prefix_file_is_named(image: Image) -> None:
    image.marker.unlink()
    image.marker.mkdir()

    assert refused(image).startswith(f"`{image.marker}` cannot be read (Is a directory)")


def test_without_a_prefix_file_the_images_usual_place_is_used(image: Image) -> None:
    image.marker.unlink()
    usual = image.root / "micromamba" / "envs" / "workspace_env"
    usual.parent.mkdir(parents=True)
    image.prefix.rename(usual)
    kernel = image.start(SFNB_MICROMAMBA_ROOT=str(image.root / "micromamba"), SFNB_ENV_NAME="workspace_env")

    assert kernel["said"] == READY
    assert kernel["after"]["R_HOME"] == str(usual / "lib/R")


def test_a_prefix_without_r_is_named(image: Image) -> None:
    shutil.rmtree(image.prefix)

    assert refused(image) == (
        f"there is no R in `{image.prefix}` (`{image.libr}` is missing); use an image that was built with R"
    )


@pytest.mark.parametrize("content", [b"", b"not ELF", b"\x7fELF\x02\x01" + bytes(58)])
def test_a_broken_libr_is_named(image: Image, content: bytes) -> None:
    image.libr.write_bytes(content)

    assert refused(image).startswith("R's library cannot be loaded into this Python (")


def test_a_missing_rpy2_is_named(image: Image) -> None:
    shutil.rmtree(image.site / "rpy2")

    assert refused(image) == f"rpy2 is not installed for `{sys.executable}`; add rpy2 to the image's Python packages"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("raise SystemExit('R_HOME?')", "SystemExit: R_HOME?"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt; see `print_diagnostics()`"),
        ("print('cannot open base'); raise StopIteration", "StopIteration (before that: cannot open base); see"),
        ("raise ImportError('libR.so:\\n undefined symbol: R_getVar')", "made for another version of R"),
        ("print('unable to open the base package'); sys.stdout.flush(); os._exit(2)", "(exit code 2: unable to open"),
        ("os.abort()", "R ends the process that starts it (signal 6: "),
        ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", "(signal 11: it said nothing)"),
        ("os._exit(0)", "R ends the process that starts it (exit code 0"),
        ("import time; time.sleep(30)", "R did not start within 1 seconds; try `enable_r_cells()`"),
    ],
)
def test_a_broken_r_never_takes_the_kernel_with_it(image: Image, failure: str, reason: str) -> None:
    seconds = "1" if "sleep" in failure else "nonsense"
    assert reason in refused(image, FAKE_RPY2_FAILS=failure, SFNB_R_START_TIMEOUT=seconds)


def test_a_magic_that_cannot_be_registered_is_said(image: Image) -> None:
    image.module("rpy2/ipython/__init__.py", "raise ImportError('no pandas')")

    assert image.start()["said"].startswith(NOT + "ImportError: no pandas; `print_diagnostics()` from r_helpers")


def test_missing_helpers_are_said(image: Image) -> None:
    said = image.start(SFNB_HELPERS_PATH=str(image.root / "nowhere"))["said"]

    assert said == NOT + "the start-up hook failed (ModuleNotFoundError: No module named 'r_helpers')\n"


def test_a_console_that_has_only_ascii_is_enough(image: Image) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, IPython\nexec(open({str(STARTUP)!r}, encoding='utf-8').read())"],
        cwd=image.work,
        env={**image.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == READY.replace("—", "?"), done.stderr


def test_r_runs_without_ipython_in_a_job(image: Image) -> None:
    shutil.rmtree(image.site / "IPython")
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from r_helpers import setup_r_environment; print(json.dumps(setup_r_environment(install_rpy2=True)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(HELPERS)],
        cwd=image.work,
        env=image.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    result = json.loads(done.stdout)

    assert result["success"] is True
    assert result["magic_registered"] is False
    assert result["prefix"] == str(image.prefix)


def test_diagnostics_name_what_is_where_even_when_r_is_broken(image: Image) -> None:
    image.marker.write_text("")
    kernel = image.start("import r_helpers; r_helpers.print_diagnostics()")

    assert f"problem: `{image.marker}` is empty" in kernel["said"]
    assert f"python: {sys.executable}\n" in kernel["said"]


def test_setup_notebook_says_which_packages_are_missing_and_the_way_out(image: Image) -> None:
    report, said = image.notebook("setup_notebook(packages=['snowflakeR', 'RSnowflake', 'R6==2.6.1'])")

    assert report["success"] is False
    assert report["magic_registered"] is True
    assert report["packages"] == {"snowflakeR": "0.2.0", "R6": "2.6.1"}
    assert report["missing"] == ["RSnowflake"]
    assert said[-1] == (
        "[sfnb CRE] R package `RSnowflake` is not in this image. Add it to the image's profile (extras.conda_r: "
        "r-rsnowflake, extras.cran: RSnowflake, or tarballs) and build again; for this session only, "
        'install.packages("RSnowflake") in a %%R cell, where the session may reach a CRAN mirror.'
    )


def test_setup_notebook_says_when_another_version_is_there(image: Image) -> None:
    report, _ = image.notebook("setup_notebook(packages=['R6==2.5.0', '../evil'])")

    assert report["errors"] == [
        "R package `R6` is 2.6.1 in this image, and 2.5.0 was asked for; change the image's profile, or the notebook",
        "`../evil` is not an R package's name, nor `name==version`",
    ]


def test_setup_notebook_with_the_images_own_config_succeeds(image: Image) -> None:
    report, said = image.notebook("setup_notebook()", SFNB_CONFIG_PATH=str(HOOK / "cre_multilang_r.yaml"))

    assert report["success"] is True
    assert report["errors"] == [] and report["missing"] == []
    assert said == ["[sfnb CRE] " + READY.partition("— ")[2].rstrip("\n")]


def test_setup_notebook_compares_what_a_notebooks_config_asks_for(image: Image) -> None:
    config = image.work / "my.yaml"
    config.write_text(
        "languages:\n"
        "  r: {enabled: true, conda_packages: [r-base=4.5, 'r-r6 >=2', r-tidyverse], cran_packages: [R6==2.6.1],\n"
        "      tarballs: {snowflakeR: 'https://example.org/x.tar.gz'}}\n"
        "  scala: {enabled: true}\n"
    )
    report, _ = image.notebook("setup_notebook(config='my.yaml', force=True)")

    assert report["packages"] == {"R6": "2.6.1", "snowflakeR": "0.2.0"}
    assert report["missing"] == ["tidyverse"]
    assert report["errors"] == ["language `scala` is not in this image, which has Python and R"]
    assert report["ignored"] == ["force"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: [", "cannot be read as YAML"),
        (b"- 1\n", "must hold a mapping"),
        (b"a: !!python/object/apply:os.abort []\n", "cannot be read as YAML"),
        (b"\xff\xff", "cannot be read as YAML"),
        (b"[" * 5000, "cannot be read as YAML"),
        (b"# " + b"x" * (1 << 20), "it is larger than 1 MiB"),
        (None, "does not exist"),
    ],
)
def test_a_config_that_cannot_be_read_is_an_error_in_the_report(image: Image, content: bytes | None, reason: str) -> None:
    if content is not None:
        (image.work / "my.yaml").write_bytes(content)
    report, _ = image.notebook("setup_notebook(config='my.yaml')")

    assert report["success"] is False
    assert report["errors"][0].startswith("`my.yaml` ") and reason in report["errors"][0]


def test_a_base_without_pyyaml_is_an_error_only_where_a_config_was_given(image: Image) -> None:
    image.module("yaml.py", "raise ImportError")
    given, _ = image.notebook("setup_notebook(config='my.yaml')")
    default, _ = image.notebook("setup_notebook()", SFNB_CONFIG_PATH="/opt/sfnb/config/x.yaml")

    assert given["errors"] == ["`my.yaml` was not read: the Python package PyYAML is missing; add it to the image"]
    assert default["success"] is True


def test_setup_notebook_reports_a_broken_r_and_raises_nothing(image: Image) -> None:
    image.marker.write_text("")
    report, _ = image.notebook("setup_notebook(packages=['snowflakeR'])")

    assert report["success"] is False
    assert report["missing"] == []
    assert report["errors"][0].startswith(f"`{image.marker}` is empty")


def test_the_context_of_the_session_reaches_r(image: Image) -> None:
    for name in ("snowflake/__init__.py", "snowflake/snowpark/__init__.py"):
        image.module(name)
    image.module("snowflake/snowpark/context.py", SNOWPARK)
    (image.work / "my.yaml").write_text("context: {warehouse: big_wh, schema: PUBLIC, role: FORBIDDEN}\n")
    kernel = image.start(
        "import sfnb_setup; answer = sfnb_setup.setup_notebook('my.yaml', quiet=True)", SNOWFLAKE_ACCOUNT="org-acct"
    )

    assert kernel["answer"]["context"] == {
        "SNOWFLAKE_WAREHOUSE": "BIG_WH",
        "SNOWFLAKE_DATABASE": "DB",
        "SNOWFLAKE_SCHEMA": "PUBLIC",
        "SNOWFLAKE_USER": "ME",
    }
    assert kernel["answer"]["errors"] == ["role `FORBIDDEN` cannot be used: no privilege on FORBIDDEN"]
    assert kernel["after"]["SNOWFLAKE_WAREHOUSE"] == "BIG_WH"
    assert kernel["after"]["SNOWFLAKE_ACCOUNT"] == "org-acct", "the platform's own word stands"


def test_without_a_session_the_configs_context_is_used(image: Image) -> None:
    (image.work / "my.yaml").write_text("context: {warehouse: WH2}\n")
    report, _ = image.notebook("setup_notebook('my.yaml')")

    assert report["context"] == {"SNOWFLAKE_WAREHOUSE": "WH2"}


def test_calls_of_other_images_install_nothing(image: Image) -> None:
    kernel = image.start(
        "from sfnb_setup import ensure_eai, install_r, install_r_packages\n"
        "answer = [ensure_eai(None, managed='X'), install_r()['success'], install_r_packages('R6', quiet=True)['success']]"
    )

    assert kernel["answer"] == [{"action": "no_change", "eai_name": None, "domains_added": []}, True, True]


@pytest.mark.parametrize("path", [STARTUP, *sorted(HELPERS.glob("*.py"))], ids=lambda path: path.name)
def test_the_files_are_of_the_oldest_python_that_a_base_has(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 10))

    ours = {helper.stem for helper in HELPERS.glob("*.py")}
    at_top = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {str(name).split(".")[0] for name in at_top} <= ours | set(sys.stdlib_module_names)


def test_every_helper_name_that_exists_is_in_the_docs_and_the_reverse() -> None:
    text = (ROOT / "docs" / "hook.md").read_text()
    there = text.partition("## Helper functions")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)\.(\w+)\(", there, re.MULTILINE))

    offered = set()
    for module in ("r_helpers", "sfnb_setup"):
        for node in ast.parse((HELPERS / f"{module}.py").read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                offered.add((module, node.name))
    assert named == offered


def test_no_piece_of_a_damaged_object_breaks_the_reader(libr: Any, tmp_path: Path) -> None:
    whole = libr.carrier(62, ["libx.so.1", "liby.so"], [Path("/a"), Path("/b")])
    path = tmp_path / "x.so"
    path.write_bytes(whole)
    assert libr.read_needs(path) == (62, ("libx.so.1", "liby.so"), True)

    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        try:
            assert libr.read_needs(path).machine == 62
        except OSError as error:
            assert str(path) in str(error)
    for at in range(0, len(whole) - 8, 8):
        path.write_bytes(whole[:at] + struct.pack("<Q", 2**64 - 1) + whole[at + 8 :])
        try:
            libr.read_needs(path)
        except OSError as error:
            assert str(path) in str(error)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_r_without_search_paths_finds_its_libraries_in_the_prefix(tmp_path: Path) -> None:
    """As LD_LIBRARY_PATH would do it, had it been set before the process started."""
    lib, package = tmp_path / "lib", tmp_path / "lib" / "R" / "library" / "xml" / "libs"
    home = lib / "R"
    for folder in (home / "lib", package):
        folder.mkdir(parents=True)

    def compiled(path: Path, code: str, *needs: Path) -> Path:
        source = tmp_path / "x.c"
        source.write_text(code)
        subprocess.run(["cc", "-shared", "-fPIC", "-nostdlib", "-Wl,-rpath-link", lib, "-o", path, source, *needs], check=True)
        return path

    def needing(path: Path, code: str, *names: tuple[Path, str]) -> Path:
        return compiled(path, code, *(arg for folder, name in names for arg in (f"-L{folder}", f"-l{name}")))  # type: ignore[arg-type]

    compiled(lib / "libsfnbdeep.so", "int deep(void) { return 40; }")
    needing(lib / "libsfnbblas.so", "int deep(void); int blas(void) { return deep() + 1; }", (lib, "sfnbdeep"))
    compiled(lib / "libsfnbxml.so", "int xml(void) { return 7; }")
    compiled(lib / "libsfnbunused.so", "int unused(void) { return 0; }")
    needing(home / "lib" / "libR.so", "int blas(void); int r(void) { return blas() + 1; }", (lib, "sfnbblas"))
    plugin = needing(
        package / "xml.so",
        "int r(void); int xml(void); int package(void) { return r() + xml(); }",
        (home / "lib", "R"),
        (lib, "sfnbxml"),
    )
    (package / "text.so").write_text("a linker script, say")
    code = (
        "import ctypes, sys; sys.path.insert(0, sys.argv[1]); import sfnb_libr; from pathlib import Path\n"
        "prefix = Path(sys.argv[2])\n"
        "try: ctypes.CDLL(str(prefix / 'lib/R/lib/libR.so')); print('the test is void')\n"
        "except OSError: pass\n"
        "sfnb_libr.load(prefix); sfnb_libr.load(prefix)\n"
        "print(ctypes.CDLL(sys.argv[3]).package(), 'unused' in open('/proc/self/maps').read())"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, HELPERS, tmp_path, plugin], capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "49 False\n", done.stderr


def test_symbols_of_r_do_not_reach_the_rest_of_the_process(libr: Any) -> None:
    """A BLAS of R's in the global scope would answer for the one that a Python package brought."""
    assert libr.ctypes.DEFAULT_MODE == ctypes.RTLD_LOCAL
    assert "RTLD_GLOBAL" not in (HELPERS / "sfnb_libr.py").read_text()


def test_the_adbc_package_is_r_alone_and_says_so() -> None:
    package = ROOT / "recipes" / "adbc" / "adbcsnowflake"
    fields = dict(re.findall(r"^(\w+): (.+)$", (package / "DESCRIPTION").read_text(), re.MULTILINE))

    assert fields["Package"] == "adbcsnowflake"
    assert fields["NeedsCompilation"] == "no"
    assert fields["Imports"] == "adbcdrivermanager"
    assert not (package / "src").exists()
    assert "export(adbcsnowflake)" in (package / "NAMESPACE").read_text()
