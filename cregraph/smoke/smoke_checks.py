"""What `cregraph test` tries in an image: the checks that a lock asks for, as data, and what came of them. Pure.

`driver.py` carries them out inside a container; what it needs is in `files()`, what it answers is read by `read()`.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cregraph.digest import Json
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Ask, Pin, Target

__all__ = ["DRIVER", "HOME", "Check", "Outcome", "checks_of", "files", "read", "settled"]

#: The home of notebooks on Snowflake, whoever the image's user is.
HOME = "/root"
_FOLDER = "/cregraph-trial"
#: The script, inside the container.
DRIVER = f"{_FOLDER}/driver.py"

_VERSION_FILE = "/opt/sfnb/CRE_VERSION"
_HOOK_FILE = f"{HOME}/.ipython/profile_default/startup/00-sfnb-enable-r.py"
# As renv leaves a project: R would read it on start, and (on a network file system) hang.
_RENV = 'stop("the project\'s renv was activated")\n'


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check. `do` names the driver's function, `data` its arguments."""

    name: str
    do: str
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a check; `why` says what is wrong. `seconds` is for people."""

    name: str
    ok: bool
    why: str = ""
    seconds: float = 0.0


def checks_of(lock: Lock, facts: BaseFacts | None) -> tuple[Check, ...]:
    """Everything that an image of `lock` must pass, in order.

    `facts` give the versions of Python distributions that were asked for and that the base answers.
    """
    targets = [t for t in lock.targets if t.scope == "image"]
    r_base = next((p for t in targets if t.kind == "conda" for p in t.pins if p.name == "r-base"), None)
    hook = _is_written(targets, _HOOK_FILE)
    checks = [Check(name="kernel: starts", do="start")]
    if hook:
        checks.append(Check(name="hook: says that it is there", do="banner", data={"file": _HOOK_FILE, "says": "[sfnb CRE]"}))
    if _is_written(targets, _VERSION_FILE):
        data = {"file": _VERSION_FILE, "text": _text_of(targets, _VERSION_FILE) or lock.identity.label}
        checks.append(Check(name=f"mark: {_VERSION_FILE}", do="file", data=data))
    if r_base is not None and hook:
        version = {"version": r_base.version}
        checks += [
            Check(name=f"kernel: %%R is R {r_base.version}", do="r_version", data=version),
            Check(name="kernel: %%R after a restart", do="r_version", data={**version, "first": "restart"}),
            Check(name="kernel: %%R in the folder of a renv project", do="r_version", data={**version, "first": "renv"}),
        ]
    checks += [
        Check(name=f"r: {name} {version}", do="r_package", data={"package": name, "version": version})
        for name, version in sorted(_r_packages(targets).items())
    ]
    checks += [
        Check(name=f"python: {name} {version}".rstrip(), do="python_package", data={"package": name, "version": version})
        for name, version in sorted(_distributions(targets, facts).items())
    ]
    checks.append(Check(name="python: pip check", do="pip_check"))
    for stage in lock.stages:
        for number, check in enumerate(stage.checks):
            kind, code = str(check["kind"]), [str(cell) for cell in check["code"]]
            end = f" ({number + 1})" if len(stage.checks) > 1 else ""
            checks.append(
                Check(name=f"recipe {stage.name}: its {kind} check{end}", do="recipe", data={"kind": kind, "code": code})
            )
    return tuple(checks)


def files(lock: Lock, checks: Sequence[Check]) -> dict[str, bytes]:
    """What the container needs, by absolute path: the driver, the checks, and a folder as renv leaves it."""
    prefix = next((t.place for t in lock.targets for p in t.pins if t.kind == "conda" and p.name == "r-base"), None)
    hook = _is_written(lock.targets, _HOOK_FILE)
    asked = {
        "checks": [{"name": c.name, "do": c.do, "data": dict(c.data)} for c in checks],
        "renv": f"{_FOLDER}/renv-project",
        "r": None if hook or prefix is None else f"{prefix}/bin/R",
    }
    driver = importlib.resources.files("cregraph.smoke").joinpath("driver.py").read_bytes()
    return {
        DRIVER: driver,
        f"{_FOLDER}/checks.json": json.dumps(asked).encode(),
        f"{_FOLDER}/renv-project/.Rprofile": b'source("renv/activate.R")\n',
        f"{_FOLDER}/renv-project/renv/activate.R": _RENV.encode(),
        f"{_FOLDER}/renv-project/renv.lock": b'{"R": {"Version": "0.0.1"}, "Packages": {}}\n',
    }


def read(lines: Iterable[str]) -> Iterator[Outcome]:
    """The outcomes among a container's lines. Whatever else an image writes (an entry point's greeting) is passed over."""
    for line in lines:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(said, dict) or not isinstance(said.get("cregraph-check"), str):
            continue
        seconds = said.get("seconds")
        yield Outcome(
            name=said["cregraph-check"],
            ok=said.get("ok") is True,
            why=str(said.get("why") or ""),
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        )


def settled(checks: Sequence[Check], outcomes: Iterable[Outcome], *, why: str) -> tuple[Outcome, ...]:
    """An outcome for each check, in their order; one without an answer failed, because of `why`."""
    said = {outcome.name: outcome for outcome in reversed(list(outcomes))}
    return tuple(said.get(check.name) or Outcome(name=check.name, ok=False, why=why) for check in checks)


def _r_packages(targets: Sequence[Target]) -> dict[str, str]:
    """R packages that were asked for, to the version in the lock; names as written, conda's in lower case."""
    by_token: dict[str, tuple[str, str]] = {}
    for target in sorted(targets, key=lambda t: t.kind != "conda"):  # what a library has comes before what conda has
        for pin in target.pins:
            for provided in pin.provides:
                token, _, version = provided.partition(" ")
                if token.startswith("r:"):
                    by_token[token] = (pin.name if target.kind == "r" else token.removeprefix("r:"), version)
    wanted: set[str] = set()
    for target in targets:
        if target.kind == "conda":
            wanted |= {_token(p) for p in target.pins if p.asked and p.name.startswith("r-") and p.name != "r-base"}
        elif target.kind == "r":
            wanted |= {f"r:{_r_name(ask).lower()}" for ask in target.asks}
            by_token |= {f"r:{p.name.lower()}": (p.name, p.version) for p in target.pins}
    return dict(by_token[token] for token in wanted if token in by_token)


def _token(pin: Pin) -> str:
    return next((text.partition(" ")[0] for text in pin.provides if text.startswith("r:")), "")


def _r_name(ask: Ask) -> str:
    if isinstance(ask.what, Mapping):
        return str(ask.what.get("name", ""))
    return str(ask.what).partition(" ")[0]


def _distributions(targets: Sequence[Target], facts: BaseFacts | None) -> dict[str, str]:
    """Python distributions that were asked for, to the version in the lock or else of the base."""
    base = facts.python.distributions if facts and facts.python else {}
    found: dict[str, str] = {}
    for target in targets:
        if target.kind != "python":
            continue
        pins = {p.name: p.version for p in target.pins if p.data.get("role") != "build"}
        for ask in target.asks:
            match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", ask.what) if isinstance(ask.what, str) else None
            name = re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""
            version = pins.get(name) or base.get(name)
            if version:  # else its marker does not fit this Python
                found[name] = version
    return found


def _is_written(targets: Iterable[Target], path: str) -> bool:
    return any(path in _places(ask) for t in targets if t.kind == "file" for ask in t.asks)


def _text_of(targets: Iterable[Target], path: str) -> str | None:
    texts = [ask.what.get("text") for t in targets if t.kind == "file" for ask in t.asks if path in _places(ask)]
    return texts[0].strip() if texts and isinstance(texts[0], str) else None


def _places(ask: Ask) -> Sequence[str]:
    at = ask.what.get("at") if isinstance(ask.what, Mapping) else None
    return at if isinstance(at, list | tuple) else ()
