"""Resolver of Python requirements with uv.

uv runs as a program (`uv pip compile`) for the interpreter and the glibc of the base, not for those of this machine. It gets
no settings that choose versions. Package locations come from sources.yaml, else from pip_settings.py.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from cregraph.errors import CregraphError
from cregraph.sources.pip_settings import PYPI, ordinary
from cregraph.sources.protocol import Sources
from cregraph.sources.python_index import Found, read_pylock
from cregraph.text import redacted_text

__all__ = ["Question", "Unanswered", "resolve"]

#: Variables that uv may see: credentials, timeouts. `_where` sets package locations. No variable may choose versions.
_LET_THROUGH = re.compile(
    r"UV_(CACHE_DIR|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|KEYRING_PROVIDER|HTTP_[A-Z_]+|REQUEST_TIMEOUT|CONCURRENT_[A-Z_]+"
    r"|CREDENTIALS_DIR|OFFLINE)"
)
#: A folder without Python. An interpreter with this PYTHONHOME exits before it runs a line, except with -I, which uv uses
#: to query it. So uv builds nothing: no package's code runs while locking.
_NO_HOME = "/nonexistent/cregraph-builds-nothing-while-locking"
_BUILDS = re.compile(r"[Ff]ailed to (?:download and )?build `([^`=@ ]+)(?:==| @ |@)?([^`]*)`")
_NO_ANSWER = re.compile(
    r"[Ff]ailed to fetch|Request failed|error sending request|timed out|dns error|[Cc]onnection (?:refused|reset|closed)"
    r"|HTTP status|--find-links` directory"
)
_DENIED = re.compile(r"\b(401 Unauthorized|403 Forbidden)\b")
#: Minor versions of glibc 2.x that uv knows as platforms.
_GLIBC = (17, 28, *range(31, 41))
_NO_SUCH_EXTRA = re.compile(r"The package `([A-Za-z0-9._-]+)==[^`]*` does not have an extra named")
_PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==(\S+)[^#]*(?:#\s*via\s+(.*))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question to uv, with `python` such as `3.11.2` and `glibc` such as `2.36`.

    `base` are installed distributions, which cannot change; `keep` are versions to prefer. Both map normal names to versions.
    `as_of` is an ISO date and includes that day (UTC). `wheels_only` excludes versions without a wheel.
    """

    requirements: tuple[str, ...]
    python: str
    glibc: str | None
    base: Mapping[str, str]
    keep: Mapping[str, str]
    as_of: str | None = None
    wheels_only: bool = False


def resolve(sources: Sources, question: Question) -> tuple[Found, ...]:
    """Return the distributions that answer `question`, sorted by name, without those of the base.

    Raises Unanswered with uv's explanation. Raises CregraphError if an index cannot be reached, or if an sdist must run
    code to state its requirements (docs/adr/0009-no-package-code-while-locking.md).
    """
    stand_ins = dict(question.base)
    while True:
        with tempfile.TemporaryDirectory(prefix="cregraph-uv-") as name:
            run = _Run(sources, question, stand_ins, Path(name))
            talk = run.compile("pylock.toml", "pylock.toml")
            bare = {canonicalize_name(found) for found in _NO_SUCH_EXTRA.findall(talk)} & set(stand_ins)
            if bare:
                for found in bare:  # the index knows its extras, so it must have that version
                    del stand_ins[found]
                continue
            found_all = read_pylock(Path(name) / "pylock.toml")
            via = run.edges(found_all)
        return tuple(
            Found(name=f.name, version=f.version, wheels=f.wheels, sdist=f.sdist, via=via.get(f.name, ()))
            for f in sorted(found_all, key=lambda f: f.name)
            if f.name not in question.base
        )


class Unanswered(CregraphError):
    """Error: uv has no answer. The message is uv's, indented."""


class _Run:
    """Runs of uv for one question in one folder."""

    def __init__(self, sources: Sources, question: Question, stand_ins: Mapping[str, str], folder: Path) -> None:
        import uv

        self._folder = folder
        self._question = question
        self._program = uv.find_uv_bin()
        routes = sources.routes("pypi", "pypi")
        _folders_are_there(routes)
        self._environ, self._flags = _where(sources, folder)
        cache = getattr(sources, "uv_cache", None)
        if cache is not None:
            self._flags += ["--cache-dir", str(cache)]
        if sources.offline and not (routes and all(urlsplit(address).scheme == "file" for address in routes)):
            self._flags.append("--offline")
        (folder / "asked.in").write_text("".join(f"{r}\n" for r in question.requirements))
        (folder / "base.txt").write_text("".join(f"{n}=={v}\n" for n, v in sorted(question.base.items())))
        (folder / "base").mkdir()
        for name, version in stand_ins.items():
            _stand_in(folder / "base", name, version)
        kept = [f'[[packages]]\nname = "{n}"\nversion = "{v}"\n' for n, v in sorted(question.keep.items())]
        if kept:
            (folder / "pylock.toml").write_text('lock-version = "1.0"\ncreated-by = "cregraph"\n\n' + "\n".join(kept))

    def compile(self, form: str, out: str, *more: str) -> str:
        """Run uv and return its stderr. uv writes the answer to `out`."""
        q = self._question
        command = [self._program, "pip", "compile", "--format", form, "--output-file", out, "--no-header", "--color", "never"]
        command += ["--no-progress", "--no-python-downloads", "--python", sys.executable, "--python-version", q.python]
        command += ["--python-platform", _platform(q.glibc), "--resolution", "highest"]
        command += ["--prerelease", "if-necessary-or-explicit", "--constraints", "base.txt", "--find-links", "base"]
        if q.as_of:
            command += ["--exclude-newer", f"{q.as_of[:10]}T23:59:59Z"]
        if q.wheels_only:
            command += ["--only-binary", ":all:"]
        done = subprocess.run(
            [*command, *self._flags, *more, "asked.in"], cwd=self._folder, env=self._environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False
        )  # fmt: skip
        if done.returncode != 0:
            raise _refusal(done.stderr)
        return done.stderr

    def edges(self, found: Sequence[Found]) -> dict[str, tuple[str, ...]]:
        """Return for each name the names that need it, by uv's annotations. Tries offline first: uv's cache has all files now."""
        exact = "".join(f"{f.name}=={f.version}\n" for f in found)
        (self._folder / "exact.txt").write_text(exact)
        flags = ("--annotation-style", "line", "--constraints", "exact.txt")
        try:
            self.compile("requirements.txt", "via.txt", *flags, "--offline")
        except CregraphError:
            self.compile("requirements.txt", "via.txt", *flags)
        needed: dict[str, tuple[str, ...]] = {}
        for line in (self._folder / "via.txt").read_text().splitlines():
            match = _PINNED.match(line)
            if match:
                by = [text.strip() for text in (match.group(3) or "").split(",")]
                needed[canonicalize_name(match.group(1))] = tuple(
                    sorted(canonicalize_name(text.partition("[")[0]) for text in by if text[:1] not in ("-", ""))
                )
        return needed


def _where(sources: Sources, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return environment and flags with package locations. Addresses may hold a password, so they are in the environment.

    uv does not read its own configuration: pip_settings reads the locations in it.
    """
    kept = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(kept) or _LET_THROUGH.fullmatch(k)}
    environ["PYTHONHOME"] = _NO_HOME
    routes = sources.routes("pypi", "pypi")
    flags = ["--no-config", *([] if routes else _ordinary(environ))]
    if routes:
        environ["UV_DEFAULT_INDEX"] = routes[-1]
        if routes[:-1]:
            environ["UV_INDEX"] = " ".join(routes[:-1])
    _lend_keyring(folder, environ)
    return environ, flags


def _ordinary(environ: dict[str, str]) -> list[str]:
    """Add the settings of pip and uv to `environ`, and return those that are flags."""
    told = ordinary(os.environ, Path.home())
    environ["UV_DEFAULT_INDEX"] = told.default or PYPI
    if told.extra:
        environ["UV_INDEX"] = " ".join(told.extra)
        if told.equal:
            environ["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if told.cert and Path(told.cert).exists():
        environ["SSL_CERT_FILE"] = told.cert
    if told.system_certs:
        environ["UV_SYSTEM_CERTS"] = "true"
    if told.keyring:
        environ["UV_KEYRING_PROVIDER"] = told.keyring
    flags = [flag for link in told.find_links for flag in ("--find-links", link)]
    flags += [flag for host in told.trusted_hosts for flag in ("--allow-insecure-host", host)]
    return flags + (["--no-index"] if told.no_index else [])


def _lend_keyring(folder: Path, environ: dict[str, str]) -> None:
    """Put a wrapper of the user's `keyring` program on PATH that unsets PYTHONHOME. uv asks it for credentials."""
    program = shutil.which("keyring") if environ.get("UV_KEYRING_PROVIDER") == "subprocess" else None
    if program is None:
        return
    (folder / "bin").mkdir()
    (folder / "bin/keyring").write_text(f'#!/bin/sh\nunset PYTHONHOME\nexec {shlex.quote(program)} "$@"\n')
    (folder / "bin/keyring").chmod(0o755)
    environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"


def _folders_are_there(routes: Sequence[str]) -> None:
    """Raise CregraphError for a missing folder. uv would report each of its packages as not found."""
    for address in routes:
        url = urlsplit(address)
        if url.scheme == "file" and not Path(unquote(url.path)).is_dir():
            raise _unreachable(f"  {address}: there is no such folder", "check the address: sources.yaml, `pypi`")


def _unreachable(reason: str, hint: str) -> CregraphError:
    return CregraphError(f"the package index of Python cannot be reached\n{reason}", hint=hint)


def _refusal(talk: str) -> CregraphError:
    """Return the error: an index failed, a package's code would have to run, or uv has no answer."""
    text = _explained(talk)
    built = _BUILDS.search(talk)
    if built:
        what = " ".join(part for part in built.groups() if part)
        return CregraphError(
            f"Python package {what} states its requirements only if its code runs, and locking runs no package code",
            hint=f"ask for a version of {built[1]} that has a wheel, or whose sdist states its needs (PEP 643). Or build a wheel "
            "and put it into your own index",
        )
    if "network was disabled" in talk:
        return _unreachable(text, "lock without --offline: this machine has no copy of the required files")
    if _NO_ANSWER.search(talk) and "No solution found" not in talk:
        return _unreachable(
            text, "check the network, and the address of the index in sources.yaml (`pypi`) or in the settings of pip and uv"
        )
    if _DENIED.search(talk) and "not found in the package registry" in talk:
        return _unreachable(text, "store its credentials where pip and uv keep them: ~/.netrc, the keyring or UV_INDEX_…")
    return Unanswered(text)


def _platform(glibc: str | None) -> str:
    """Return uv's name of the newest platform that `glibc` supports. Raises CregraphError if `glibc` is not 2.x."""
    match = re.fullmatch(r"2\.(\d+)(?:\..*)?", glibc or "")
    if match is None:
        raise CregraphError(
            f"the base has {'glibc ' + glibc if glibc else 'no glibc'}; Python packages are locked for glibc 2.17 or newer"
        )
    fitting = [minor for minor in _GLIBC if minor <= int(match.group(1))]
    return f"x86_64-manylinux_2_{max(fitting, default=17)}"


def _stand_in(folder: Path, name: str, version: str) -> None:
    """Write a wheel that represents a distribution of the base. It has no requirements, and no index must list it."""
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        info = f"{stem}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def _explained(talk: str) -> str:
    """Return uv's message without warnings, prefixes and temporary file names."""
    lines = [line for line in talk.splitlines() if line.strip() and not line.startswith("warning:")]
    text = "\n".join(f"  {line}" for line in lines)
    text = redacted_text(text)
    for ours, said in (("-c base.txt", "the base"), ("-r asked.in", "the profile"), ("error: ", ""), ("cause: ", "")):
        text = text.replace(ours, said)
    return text or "  uv printed nothing"
