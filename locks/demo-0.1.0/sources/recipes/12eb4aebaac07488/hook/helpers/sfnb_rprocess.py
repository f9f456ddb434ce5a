"""R inside this Python process: where it is, the environment it needs, and starting it without risk to the kernel.

R that cannot start ends the process that it was loaded into (a missing base package is a call of exit, an unfit library
a signal). So R is first started in a process of its own, with a time limit; only what worked there is done here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import sfnb_libr

REMOVED = ("RENV_", "R_LIBS", "R_PROFILE", "R_ENVIRON")
_TRIAL = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import sfnb_rprocess; sfnb_rprocess.trial()"
_TRIAL_SECONDS = 90.0
_WORKED, _FAILED = "sfnb: R started", "sfnb: failed: "

_SHELL_OWN = ("PWD", "OLDPWD", "SHLVL", "_")

_version: str | None = None


class RNotAvailable(RuntimeError):
    """R cannot be used here. The text is the reason and what to do, on one line."""


def find_prefix(environ: Mapping[str, str]) -> Path:
    """The conda prefix that holds R: the one that ~/.workspace_env_prefix names, else the image's usual place.

    Raises RNotAvailable, naming the file that should have told.
    """
    marker = Path(environ.get("HOME") or "/root") / ".workspace_env_prefix"
    try:
        text = marker.read_text(encoding="utf-8").strip()
        problem = f"`{marker}` is empty"
        if text:
            prefix = Path(text)
            if prefix.is_absolute() and "\n" not in text and ":" not in text:
                return _with_r(prefix)
            problem = f"`{marker}` does not hold one absolute path"
    except FileNotFoundError:
        problem = f"`{marker}` does not exist"
    except (OSError, UnicodeDecodeError) as error:
        problem = f"`{marker}` cannot be read ({getattr(error, 'strerror', None) or 'not text'})"
    root, name = environ.get("SFNB_MICROMAMBA_ROOT"), environ.get("SFNB_ENV_NAME")
    if root and name and (Path(root) / "envs" / name).is_dir():
        return _with_r(Path(root) / "envs" / name)
    raise RNotAvailable(f"{problem}, so R's place is unknown; use an image that was built with R, or write the path there")


def _with_r(prefix: Path) -> Path:
    libr = prefix / "lib" / "R" / "lib" / "libR.so"
    if not libr.exists():
        raise RNotAvailable(f"there is no R in `{prefix}` (`{libr}` is missing); use an image that was built with R")
    return prefix


def environment_for(prefix: Path, environ: Mapping[str, str]) -> dict[str, str | None]:
    """What R needs changed in an environment: a value to set, or None to remove. Applying it twice changes nothing.

    No start-up file of a project or a user is read (`.Rprofile` often starts renv, which can hang where the project
    lies on a network file system), and R's only library is the one of the image.
    """
    home, library = prefix / "lib" / "R", prefix / "lib" / "R" / "library"
    changes: dict[str, str | None] = {name: None for name in environ if name.startswith(REMOVED)}
    changes.update(
        PATH=_first([prefix / "bin"], environ.get("PATH") or os.defpath),
        LD_LIBRARY_PATH=_first([prefix / "lib", home / "lib"], environ.get("LD_LIBRARY_PATH", "")),
        R_HOME=str(home),
        RHOME=str(home),  # Rscript has a place compiled in; this one is asked first
        R_LIBS=str(library),
        R_LIBS_USER=str(library),
        R_PROFILE_USER=os.devnull,
        R_ENVIRON_USER=os.devnull,
        RENV_CONFIG_AUTOLOADER_ENABLED="false",
        RENV_ACTIVATE_PROJECT="false",
        RENV_CONFIG_USER_PROFILE="false",
        TZ=environ.get("TZ") or "UTC",
    )
    if "RPY2_CFFI_MODE" not in environ and importlib.util.find_spec("_rinterface_cffi_api") is None:
        changes["RPY2_CFFI_MODE"] = "ABI"  # rpy2 that was built without a compiler would warn at every start
    return changes


def _first(folders: list[Path], path: str) -> str:
    ours = [str(folder) for folder in folders]
    return os.pathsep.join([*ours, *(entry for entry in path.split(os.pathsep) if entry and entry not in ours)])


def apply(changes: Mapping[str, str | None]) -> None:
    """Change the environment of this process, and so of those that it starts later. No other process is touched."""
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def neutral_folder(prefix: Path) -> Iterator[None]:
    """Work in R's own folder for a moment: R reads `.RData`, `.Rprofile` and `.Renviron` of where it starts."""
    try:
        before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        before = -1  # the working folder is gone or closed to us; there is nothing to return to
    os.chdir(prefix / "lib" / "R")
    try:
        yield
    finally:
        if before >= 0:
            os.fchdir(before)
            os.close(before)


def start(prefix: Path) -> str:
    """Start R in this process and return its version line. A second call returns the same line and does nothing.

    Raises RNotAvailable when a trial run in a process of its own fails or does not end in time (90 seconds, or
    SFNB_R_START_TIMEOUT), with the environment as it was.
    """
    global _version
    if _version is None:
        if "rpy2.rinterface" not in sys.modules:  # otherwise R may be running already, and a trial proves nothing
            _try(prefix)
        _version = _start_here(prefix)
    return _version


def running() -> str | None:
    """R's version line if R was started here, else None."""
    return _version


def _try(prefix: Path) -> None:
    if importlib.util.find_spec("rpy2") is None:
        raise RNotAvailable(f"rpy2 is not installed for `{sys.executable}`; add rpy2 to the image's Python packages")
    seconds = _seconds(os.environ.get("SFNB_R_START_TIMEOUT"))
    path = json.dumps([entry for entry in sys.path if entry])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, path],
            cwd=prefix / "lib" / "R",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise RNotAvailable(
            f"R did not start within {seconds:g} seconds; try `enable_r_cells()` from r_helpers in a cell, "
            "with SFNB_R_START_TIMEOUT set to more seconds"
        ) from None
    if done.returncode == 0 and _WORKED in done.stdout:
        return
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    said = next((line[len(_FAILED) :] for line in lines if line.startswith(_FAILED)), "")
    last = next((line[:300] for line in reversed(lines) if not line.startswith(_FAILED)), "it said nothing")
    if not said:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        said = f"R ends the process that starts it ({ended}: {last})"
    elif last not in said and last != "it said nothing":
        said += f" (before that: {last})"
    if "undefined symbol" in said:
        said += "; this rpy2 was made for another version of R, choose the two together"
    raise RNotAvailable(f"{said}; see `print_diagnostics()` from r_helpers, and test the image before it is published")


def _seconds(text: str | None) -> float:
    try:
        value = float(text or _TRIAL_SECONDS)
    except ValueError:
        return _TRIAL_SECONDS
    return value if 0 < value < float("inf") else _TRIAL_SECONDS


def trial() -> None:
    """Start R in this process, which exists only for that; say how it went and end without R's clean-up."""
    try:
        _start_here(find_prefix(os.environ))
        print(_WORKED, flush=True)
        os._exit(0)
    except BaseException as error:
        text = str(error) if isinstance(error, RNotAvailable) else f"{type(error).__name__}: {error}".removesuffix(": ")
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        print(_FAILED + " ".join(text.split()), file=sys.stderr, flush=True)
        os._exit(1)


def _start_here(prefix: Path) -> str:
    apply(environment_for(prefix, os.environ))
    before = dict(os.environ)
    with neutral_folder(prefix):
        try:
            sfnb_libr.load(prefix)
        except OSError as error:
            raise RNotAvailable(f"R's library cannot be loaded into this Python ({error})") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rpy2 says which variables R's own start-up script sets
            import rpy2.robjects

        # rpy2 takes over the whole environment of an R process that it starts. R needs what is new in it (R_SHARE_DIR);
        # what was there stands, and where a shell was working is no business of this process.
        apply({**dict.fromkeys(_SHELL_OWN), **before})
        os.environ["R_SESSION_TMPDIR"] = str(rpy2.robjects.r("tempdir()")[0])
        version = str(rpy2.robjects.r('paste0(R.version.string, " -- \\"", R.version$nickname, "\\"")')[0])
        rpy2.robjects.r("options(width = 200L, tibble.width = Inf, pillar.width = Inf)")
    return version


def library_paths(prefix: Path) -> list[Path]:
    """The folders in which R looks for packages: asked of R where it runs, else the image's library."""
    if _version is not None:
        import rpy2.robjects

        return [Path(str(entry)) for entry in rpy2.robjects.r(".libPaths()")]
    return [prefix / "lib" / "R" / "library"]


def installed_packages(folders: list[Path]) -> dict[str, str]:
    """Name to version of the R packages in `folders`, read from their DESCRIPTION files; the first folder wins."""
    found: dict[str, str] = {}
    for folder in folders:
        for description in folder.glob("*/DESCRIPTION"):
            with contextlib.suppress(OSError):
                text = description.read_text(encoding="utf-8", errors="replace")
                version = next((line[8:].strip() for line in text.splitlines() if line.startswith("Version:")), "")
                found.setdefault(description.parent.name, version)
    return found
