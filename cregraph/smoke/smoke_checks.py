"""The checks of `cregraph test`: the checks of a lock, as data, and their outcomes.

`driver.py` runs them inside a container. `files` returns its input files, and `read` reads its answers.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cregraph.digest import Json
from cregraph.kinds import parts
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import BASE, Ask, Target

__all__ = ["DRIVER", "Check", "Outcome", "checks_of", "files", "home_of", "read", "settled"]

_FOLDER = "/cregraph-smoke"
#: The script, inside the container.
DRIVER = f"{_FOLDER}/driver.py"

_VERSION_FILE = "/opt/sfnb/CRE_VERSION"
_HOOK_FILE = ".ipython/profile_default/startup/00-sfnb-enable-r.py"
#: The home folder of notebooks on Snowflake, for any user of the image.
_SNOWFLAKES_HOME = "/root"
# Imitates a project with renv: R would read it on start and hang on a network file system.
_RENV = 'stop("the project\'s renv was activated")\n'


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check. `do` names the driver's function, `data` its arguments."""

    name: str
    do: str
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of a check. `why` is the problem; `seconds` is its duration."""

    name: str
    ok: bool
    why: str = ""
    seconds: float = 0.0


def home_of(lock: Lock) -> str:
    """Return the home folder of sessions: the one that the stage with the base image states, else Snowflake's."""
    stated = next((target.options.get("home") for target in lock.targets if target.place == BASE), None)
    return stated if isinstance(stated, str) else _SNOWFLAKES_HOME


def checks_of(lock: Lock, facts: BaseFacts | None) -> tuple[Check, ...]:
    """Return all checks that an image of `lock` must pass, in order. `facts` are those of its base."""
    targets = [t for t in lock.targets if t.scope == "image"]
    hook_file = f"{home_of(lock)}/{_HOOK_FILE}"
    hook = _is_written(targets, hook_file)
    checks = [Check(name="kernel: starts", do="start")]
    if hook:
        checks.append(Check(name="hook: says that it is there", do="banner", data={"file": hook_file, "says": "[sfnb CRE]"}))
    if _is_written(targets, _VERSION_FILE):
        data = {"file": _VERSION_FILE, "text": _text_of(targets, _VERSION_FILE) or lock.identity.label}
        checks.append(Check(name=f"mark: {_VERSION_FILE}", do="file", data=data))
    for rules in parts("smoke").values():
        checks += [Check(name=name, do=do, data=data) for name, do, data in rules.checks(targets, facts, magic=hook)]
    for stage in lock.stages:
        for number, check in enumerate(stage.checks):
            language, code = str(check["kind"]), [str(cell) for cell in check["code"]]
            end = f" ({number + 1})" if len(stage.checks) > 1 else ""
            name = f"recipe {stage.name}: its {language} check{end}"
            checks.append(Check(name=name, do="recipe", data={"language": language, "code": code}))
    return tuple(checks)


def files(lock: Lock, checks: Sequence[Check]) -> dict[str, bytes]:
    """Return the container's files by absolute path: the driver, the checks, and a folder that imitates renv."""
    hook = _is_written(lock.targets, f"{home_of(lock)}/{_HOOK_FILE}")
    programs = {name: rules.program(lock.targets) for name, rules in parts("smoke").items() if hasattr(rules, "program")}
    asked = {
        "checks": [{"name": c.name, "do": c.do, "data": dict(c.data)} for c in checks],
        "renv": f"{_FOLDER}/renv-project",
        "programs": {} if hook else programs,
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
    """Yield the outcomes among the lines of a container. Ignores other lines, such as a greeting of the image."""
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
    """Return an outcome for each check, in their order. A check without an answer failed because of `why`."""
    said = {outcome.name: outcome for outcome in reversed(list(outcomes))}
    return tuple(said.get(check.name) or Outcome(name=check.name, ok=False, why=why) for check in checks)


def _is_written(targets: Iterable[Target], path: str) -> bool:
    return any(path in _places(ask) for t in targets for ask in t.asks)


def _text_of(targets: Iterable[Target], path: str) -> str | None:
    texts = [ask.what.get("text") for t in targets for ask in t.asks if path in _places(ask)]
    return texts[0].strip() if texts and isinstance(texts[0], str) else None


def _places(ask: Ask) -> Sequence[str]:
    at = ask.what.get("at") if isinstance(ask.what, Mapping) else None
    return at if isinstance(at, list | tuple) else ()
