"""`setup_notebook()`: what a notebook's first cell calls, on an image that already has everything.

On other runtimes this call installs R. Here it installs nothing and opens no connection of its own: it makes sure that
%%R works, puts the session's context where R's packages look for it, and compares what was asked for with what is there.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sfnb_rprocess
from r_helpers import enable_r_cells, setup_r_environment

__all__ = ["enable_r_cells", "ensure_eai", "install_r", "install_r_packages", "setup_notebook", "setup_r_environment"]

CONTEXT = ("role", "warehouse", "database", "schema")  # in the order in which a session must be told
_CONFIG_LIMIT = 1 << 20
_PACKAGE = re.compile(r"([A-Za-z][A-Za-z0-9.]*[A-Za-z0-9])(?:==(\S+))?")


def setup_notebook(
    config: str | os.PathLike[str] | None = None,
    packages: Iterable[str] | None = None,
    languages: Iterable[str] | None = None,
    quiet: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """Make this notebook ready for R, and report what is missing. Nothing is downloaded; nothing is raised.

    `config` is a YAML file (default: the one that SFNB_CONFIG_PATH names); `packages` are R packages that the notebook
    needs, `name` or `name==1.2.3`, beside those of the config's `languages.r`. Keyword arguments of other versions of
    this call are accepted and named in the report under `ignored`.

    Returns a dictionary: `success` (R works, nothing asked for is missing and nothing failed), `r_version`,
    `magic_registered`, `prefix`, `cre_version`, `context` (the variables set), `packages` (name to version), `missing`,
    `ignored`, `errors`. Unless `quiet`, a summary is printed; errors are printed in any case.
    """
    started = setup_r_environment()
    errors: list[str] = list(started["errors"])
    settings = _read_config(config, errors)
    for language in _languages(languages, settings):
        if language.lower() != "r":
            errors.append(f"language `{language}` is not in this image, which has Python and R")
    context = _set_context(_mapping(settings, "context"), errors)
    found, missing = _compare([*(packages or ()), *_asked_by(settings)], started["prefix"], errors)
    report: dict[str, Any] = {
        "success": bool(started["success"]) and not errors and not missing,
        "r_version": started["r_version"],
        "magic_registered": started["magic_registered"],
        "prefix": started["prefix"],
        "cre_version": os.environ.get("SFNB_CRE_VERSION"),
        "context": context,
        "packages": found,
        "missing": missing,
        "ignored": sorted(kwargs),
        "errors": errors,
    }
    _tell(report, quiet)
    return report


def install_r(**kwargs: Any) -> dict[str, Any]:
    """R is in the image: the same as `setup_notebook()`, for notebooks that call this one."""
    return setup_notebook(**kwargs)


def install_r_packages(packages: Iterable[str] | str, **kwargs: Any) -> dict[str, Any]:
    """Say which of `packages` the image has. Nothing is installed: `missing` in the report says what to add to it."""
    return setup_notebook(packages=[packages] if isinstance(packages, str) else packages, **kwargs)


def ensure_eai(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Nothing is downloaded, so no external access integration is looked for, created or changed."""
    del args, kwargs
    return {"action": "no_change", "eai_name": None, "domains_added": []}


def _read_config(config: str | os.PathLike[str] | None, errors: list[str]) -> dict[str, Any]:
    name = config if config is not None else os.environ.get("SFNB_CONFIG_PATH")
    if not name:
        return {}
    path = Path(name)
    try:
        import yaml
    except ImportError:
        if config is not None:
            errors.append(f"`{path}` was not read: the Python package PyYAML is missing; add it to the image")
        return {}
    try:
        with path.open("rb") as file:
            text = file.read(_CONFIG_LIMIT + 1)
        if len(text) > _CONFIG_LIMIT:
            raise ValueError("it is larger than 1 MiB")
        settings = yaml.safe_load(text)
    except FileNotFoundError:
        errors.append(f"`{path}` does not exist; the image's own is `{os.environ.get('SFNB_CONFIG_PATH') or 'not set'}`")
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        errors.append(f"`{path}` cannot be read as YAML: {' '.join(str(error).split())}")
        return {}
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        errors.append(f"`{path}` must hold a mapping (`languages:`, `context:`)")
        return {}
    return settings


def _mapping(settings: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    value: Any = settings
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _languages(asked: Iterable[str] | None, settings: Mapping[str, Any]) -> list[str]:
    if asked is not None:
        return [str(language) for language in asked]
    sections = _mapping(settings, "languages")
    return [str(name) for name in sections if _mapping(sections, name).get("enabled")]


def _asked_by(settings: Mapping[str, Any]) -> list[str]:
    """R packages that the config's `languages.r` names, conda's `r-` names included."""
    section = _mapping(settings, "languages", "r")
    asked: list[str] = []
    for field in ("cran_packages", "conda_packages"):
        value = section.get(field)
        asked += [str(entry) for entry in value] if isinstance(value, list) else []
    return [*asked, *(str(name) for name in _mapping(section, "tarballs"))]


def _compare(asked: list[str], prefix: str | None, errors: list[str]) -> tuple[dict[str, str], list[str]]:
    """The asked-for packages that are there, with their versions, and those that are not; conda's names fold case."""
    if prefix is None:
        return {}, []  # that R is missing has been said
    installed = sfnb_rprocess.installed_packages(sfnb_rprocess.library_paths(Path(prefix)))
    folded = {name.lower(): name for name in installed}
    found: dict[str, str] = {}
    missing: dict[str, None] = {}
    for entry in asked:
        if entry.startswith("r-"):  # a conda spec: the image was solved from such; only the name is compared here
            conda = re.split(r"[\s=<>!~]", entry[2:], maxsplit=1)[0]
            name, version = folded.get(conda.lower(), conda), None
            if conda == "base":
                continue
        else:
            match = _PACKAGE.fullmatch(entry.strip())
            if match is None:
                errors.append(f"`{entry}` is not an R package's name, nor `name==version`")
                continue
            name, version = match.group(1), match.group(2)
        if name not in installed:
            missing[name] = None
            continue
        found[name] = installed[name]
        if version is not None and version != installed[name]:
            errors.append(
                f"R package `{name}` is {installed[name]} in this image, and {version} was asked for; "
                "change the image's profile, or the notebook"
            )
    return found, sorted(missing)


def _set_context(asked: Mapping[str, Any], errors: list[str]) -> dict[str, str]:
    """Set SNOWFLAKE_* for R's packages from the notebook's session and the config's `context`; return what was set.

    A configured value is also given to the session, so that the two agree. Account and user are left alone where the
    platform has set them.
    """
    wanted = {name: str(asked[name]) for name in CONTEXT if asked.get(name)}
    values = dict(wanted)
    session = _active_session()
    if session is not None:
        for name in CONTEXT:
            try:
                if name in wanted and _current(session, name) != wanted[name]:
                    getattr(session, f"use_{name}")(wanted[name])
                values[name] = _current(session, name) or values.get(name, "")
            except Exception as error:  # the session's errors are of many kinds; each says which object is meant
                errors.append(f"{name} `{wanted.get(name, '')}` cannot be used: {' '.join(str(error).split())}")
                values.pop(name, None)
        for name in ("account", "user"):
            if not os.environ.get(f"SNOWFLAKE_{name.upper()}"):
                with contextlib.suppress(Exception):  # a session that cannot say so leaves them unset
                    values[name] = _current(session, name)
    context = {f"SNOWFLAKE_{name.upper()}": value for name, value in values.items() if value}
    os.environ.update(context)
    return context


def _active_session() -> Any:
    try:
        from snowflake.snowpark.context import get_active_session

        return get_active_session()
    except Exception:  # no Snowpark, or no session: both are ordinary outside a notebook
        return None


def _current(session: Any, name: str) -> str:
    ask = getattr(session, f"get_current_{name}", None)
    value = ask() if callable(ask) else None
    text = str(value) if value else ""
    return text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def _tell(report: Mapping[str, Any], quiet: bool) -> None:
    lines = []
    if not quiet:
        if report["r_version"]:
            lines.append(f"[sfnb CRE] {report['r_version']} (magic registered={report['magic_registered']})")
        if report["packages"]:
            names = ", ".join(f"{name} {version}" for name, version in sorted(report["packages"].items()))
            lines.append(f"[sfnb CRE] R packages: {names}")
        if report["context"]:
            lines.append("[sfnb CRE] context: " + ", ".join(f"{k}={v}" for k, v in sorted(report["context"].items())))
        if report["ignored"]:
            lines.append(f"[sfnb CRE] not used on this image: {', '.join(report['ignored'])}")
    for name in report["missing"]:
        lines.append(
            f"[sfnb CRE] R package `{name}` is not in this image. Add it to the image's profile (extras.conda_r: "
            f"r-{name.lower()}, extras.cran: {name}, or tarballs) and build again; for this session only, "
            f'install.packages("{name}") in a %%R cell, where the session may reach a CRAN mirror.'
        )
    lines += [f"[sfnb CRE] {error}" for error in report["errors"]]
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in lines:
        print(line.encode(encoding, "replace").decode(encoding))
