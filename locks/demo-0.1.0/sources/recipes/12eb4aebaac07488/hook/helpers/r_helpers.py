"""R in a notebook: `%%R` cells, and what to look at when they do not work.

Everything here uses what is in the image. Nothing is downloaded or installed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import sfnb_rprocess
from sfnb_rprocess import RNotAvailable

__all__ = [
    "RNotAvailable",
    "check_environment",
    "enable_r_cells",
    "print_diagnostics",
    "set_r_console_width",
    "setup_r_environment",
    "start_kernel",
]


def setup_r_environment(install_rpy2: bool = False, register_magic: bool = True) -> dict[str, Any]:
    """Start R in this process and register %%R. Calling it again is harmless. Never raises for a broken R.

    Returns `success`, `r_version`, `magic_registered`, `prefix`, `rpy2_version` and `errors`. Without IPython, in a job,
    R is started and `magic_registered` is False. `install_rpy2` is accepted for notebooks written for other images;
    rpy2 is part of this one, and nothing is installed.
    """
    del install_rpy2
    result: dict[str, Any] = {
        "success": False,
        "r_version": None,
        "magic_registered": False,
        "prefix": None,
        "rpy2_version": _version_of("rpy2"),
        "errors": [],
    }
    try:
        prefix = sfnb_rprocess.find_prefix(os.environ)
        result["prefix"] = str(prefix)
        result["r_version"] = sfnb_rprocess.start(prefix)
        if register_magic:
            result["magic_registered"] = _register_magic()
        result["success"] = True
    except RNotAvailable as error:
        result["errors"].append(_line(str(error)))
    except KeyboardInterrupt:
        result["errors"].append("it was interrupted; `enable_r_cells()` from r_helpers tries again")
    except BaseException as error:  # rpy2 and R report what they dislike in many ways, SystemExit among them
        result["errors"].append(
            _line(f"{type(error).__name__}: {error}; `print_diagnostics()` from r_helpers says what is where")
        )
    return result


def enable_r_cells() -> bool:
    """Make %%R and %R work in this notebook, and say whether they do."""
    return _announce(setup_r_environment())


def start_kernel() -> None:
    """What the start-up hook does: one line says that %%R is ready, or why not."""
    _announce(setup_r_environment())


def _announce(result: dict[str, Any]) -> bool:
    if result["success"]:
        _say(f"[sfnb CRE] %%R ready — {result['r_version']} (magic registered={result['magic_registered']})")
    else:
        _say(f"[sfnb CRE] %%R not available: {' '.join(result['errors'])}")
    return bool(result["success"])


def _register_magic() -> bool:
    if "IPython" not in sys.modules:
        return False  # a plain Python process, such as a job
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return False
    shell.extension_manager.load_extension("rpy2.ipython")
    return "R" in shell.magics_manager.magics["cell"]


def set_r_console_width(width: int = 200, tibble_width: int | None = None) -> None:
    """How many characters wide R prints; tibbles show all columns unless `tibble_width` is given."""
    import rpy2.robjects

    tibble = "Inf" if tibble_width is None else f"{int(tibble_width)}L"
    rpy2.robjects.r(f"options(width = {int(width)}L, tibble.width = {tibble}, pillar.width = {tibble})")


def check_environment() -> dict[str, Any]:
    """Facts for finding out why R does not work, without starting it: what is set, what is where."""
    facts: dict[str, Any] = {
        "image version": _first_line(Path("/opt/sfnb/CRE_VERSION")) or os.environ.get("SFNB_CRE_VERSION"),
        "SFNB_CUSTOM_RUNTIME": os.environ.get("SFNB_CUSTOM_RUNTIME"),
        "helpers": str(Path(__file__).parent),
        "start-up file": _existing(Path.home() / ".ipython/profile_default/startup/00-sfnb-enable-r.py"),
        "prefix file": _first_line(Path.home() / ".workspace_env_prefix"),
        "python": sys.executable,
        "rpy2": _version_of("rpy2"),
        "rpy2 mode": "API" if importlib.util.find_spec("_rinterface_cffi_api") else "ABI",
        "working folder": _working_folder(),
        "R running": sfnb_rprocess.running(),
        "prefix": None,
        "R packages": None,
        "problem": None,
    }
    try:
        prefix = sfnb_rprocess.find_prefix(os.environ)
        facts["prefix"] = str(prefix)
        facts["R packages"] = len(sfnb_rprocess.installed_packages(sfnb_rprocess.library_paths(prefix)))
    except RNotAvailable as error:
        facts["problem"] = str(error)
    for name in ("R_HOME", "R_LIBS", "R_LIBS_USER", "R_PROFILE_USER", "PATH", "LD_LIBRARY_PATH", "TZ"):
        facts[name] = os.environ.get(name)
    return facts


def print_diagnostics(diagnostics: dict[str, Any] | None = None) -> None:
    """Print `check_environment()`, one fact a line."""
    for name, value in (diagnostics or check_environment()).items():
        _say(f"{name}: {'-' if value is None else value}")


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().split("\n")[0] or None
    except OSError:
        return None


def _existing(path: Path) -> str | None:
    return str(path) if path.exists() else None


def _working_folder() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _line(text: str) -> str:
    return " ".join(text.split())


def _say(text: str) -> None:
    """Print a line, whatever the encoding of stdout is and whoever replaced it."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "replace").decode(), flush=True)
