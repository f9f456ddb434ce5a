"""Packages of conda channels, in environments at fixed prefixes.

    conda: {prefix: /home/jupyter/micromamba/envs/x, specs: ["r-base =4.5.2", r-dplyr], channels: [conda-forge]}

All steps with one prefix are one environment, solved once; they must agree on `channels`. The solve is for linux-64 with the
base image's virtual packages, never the host's, and with strict channel priority.

Each pin provides `conda:<name> <version>`, and `r-<x>` also `r:<x> <version>` with the version as CRAN writes it. A Python
package of an environment provides no `py:` token, because only that environment's Python can import it.

Link scripts are not run (`conda_hints` reports them) and no bytecode is compiled. Everything belongs to uid and gid 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import Entry
from cregraph.kinds import defaults
from cregraph.kinds.base import Input, PinContext, PlaceContext
from cregraph.kinds.conda.conda_specs import normal_spec, spec_name
from cregraph.kinds.image_paths import real_path
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.plan.parts import Placement, Segment, segment
from cregraph.profile.step import Step
from cregraph.sources.protocol import Sources
from cregraph.sources.routes import Routes, join
from cregraph.text import printable, redacted_text

if TYPE_CHECKING:
    from cregraph.sources.conda import Record

__all__ = ["FIELDS", "NAME", "ask", "entries", "pin", "place", "virtual_packages"]

NAME = "conda"
ECOSYSTEM = NAME
PARTS = {"entries": "conda_files", "notes": "conda_hints", "vendor": "vendor_channel", "verify": "conda_installed"}
FIELDS: Mapping[str, tuple[str, bool]] = {"prefix": ("path", True), "specs": ("texts", True), "channels": ("texts", False)}

STANDS_ON = frozenset({"image"})
BUCKETS = 32

_DEFAULT_CHANNELS = ["conda-forge"]
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)+")
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
_PACKAGE = re.compile(r"[a-z0-9_][a-z0-9_.+-]*")
_VERSION = re.compile(r"[A-Za-z0-9_.!+-]+")
_FILE = re.compile(r"(?:linux-64|noarch)/[A-Za-z0-9_][A-Za-z0-9_.!+-]*(?:\.conda|\.tar\.bz2)")
_RECORD = {"build", "build_number", "subdir"}
#: `r-…` packages that are lists of others, or conda's own: no R package has the rest of their names.
_NOT_R = frozenset({"r-recommended", "r-essentials"})


def ask(step: Step) -> Sequence[Ask]:
    """Return one ask for each spec, in normal form. Raise CregraphError with the line of a wrong one."""
    prefix = step.fields["prefix"]
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise CregraphError(
            f"{step.place_of('prefix')}: `{prefix}` is not a prefix for a conda environment",
            hint="write an absolute path of letters, digits and . _ - +",
        )
    if defaults.scope(f"{prefix}/") == "sandbox":
        raise CregraphError(
            f"{step.place_of('prefix')}: `{prefix}` would not be in the image: only the sandbox of tasks has /cregraph",
            hint="choose another prefix, such as /opt/team",
        )
    channels = step.fields.get("channels") or _DEFAULT_CHANNELS
    for i, name in enumerate(channels):
        if not _CHANNEL.fullmatch(name) or name in channels[:i]:
            why = "is listed twice" if name in channels[:i] else "is not the name of a channel"
            raise CregraphError(
                f"{step.place_of(f'channels[{i}]')}: `{_short(name)}` {why}",
                hint="write a name such as `conda-forge`. Its address is under `conda:` in sources.yaml",
            )
    asks = []
    for i, text in enumerate(step.fields["specs"]):
        where = step.place_of(f"specs[{i}]")
        try:
            spec = normal_spec(text)
        except ValueError as error:
            raise CregraphError(
                f"{where}: `{_short(text)}` {error}", hint="write `name`, `name =1.2`, `name >=1.2,<2` or `name 1.2 build`"
            ) from None
        options = {"channels": list(channels)}
        asks.append(Ask(kind=NAME, place=prefix, stage=step.stage, what=spec, where=where, options=options))
    return asks


def _short(text: str) -> str:
    """Return a text for a message: one line, without the credentials of an address."""
    return printable(redacted_text(text), 120)


def virtual_packages(context: PinContext) -> tuple[tuple[str, str, str], ...]:
    """Return (name, version, build) of the base for the solver: glibc, a Linux kernel, x86-64, and CUDA of a GPU image.

    Raises CregraphError when the base is not known yet, or is for another processor.
    """
    if context.facts is None:
        raise CregraphError(
            "cannot choose conda packages, because the glibc of the base image is unknown",
            hint="add a stage with an `image` step to `needs` of this stage",
        )
    architecture = context.facts.config.get("architecture", "amd64")
    if architecture != "amd64":
        raise CregraphError(
            f"the base image {context.facts.digest[:19]} is for {architecture}; conda environments are made for linux-64",
            hint="choose a base image for amd64",
        )
    found = [("__archspec", "1", "x86_64"), ("__linux", "5.10", "0"), ("__unix", "0", "0")]
    if context.facts.glibc:
        found.append(("__glibc", context.facts.glibc, "0"))
    cuda = next((p.data["cuda"] for t in context.targets if t.kind == "image" for p in t.pins if p.data.get("cuda")), None)
    if cuda:
        found.append(("__cuda", str(cuda), "0"))
    return tuple(sorted(found))


def pin(target: Target, sources: Sources, context: PinContext) -> Target:
    """Return the environment's packages, sorted by name; `context.locked` is preferred. Raise what `sources.conda.solve` does."""
    from cregraph.sources.conda import Request, solve

    prefix = target.place
    records = solve(
        Request(
            about=f"conda environment {prefix}",
            channels={name: sources.routes("conda", name) for name in target.options["channels"]},
            wanted=target.asks,
            virtual=virtual_packages(context),
            # The solver cannot read a pin that a hand edit left without these fields. It chooses again.
            locked=[p for p in context.locked if p.data.keys() >= _RECORD],
            exclude_newer=_end_of(context.as_of) if context.as_of else None,
            cache=getattr(sources, "repodata", None),
            offline=sources.offline,
        )
    )
    asked: dict[str, set[str]] = {}
    for a in target.asks:
        asked.setdefault(spec_name(a.what), set()).add(f"{a.stage}: {a.what}")
    pins = tuple(_pin_of(record, sources, tuple(sorted(asked.get(record.name, ())))) for record in records)
    return replace(target, pins=pins)


def _end_of(as_of: str) -> datetime:
    """Return the end of a date's day in UTC, or a time as it is (in UTC if it has no zone)."""
    if len(as_of) == 10:
        return datetime.combine(date.fromisoformat(as_of), time(23, 59, 59, 999000), UTC)
    moment = datetime.fromisoformat(as_of)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _pin_of(record: Record, sources: Sources, asked: tuple[str, ...]) -> Pin:
    if record.sha256 is None or record.size is None:
        # Some mirrors list neither. What the channel does say of the bytes holds.
        artifact, _ = sources.take(kind=NAME, source=record.channel, file=record.file, md5=record.data.get("md5"))
        if record.sha256 not in (None, artifact.sha256) or record.size not in (None, artifact.size):
            raise CregraphError(
                f"channel {record.channel!r}: {record.file} does not match the channel's index:"
                f" it has sha256:{artifact.sha256} and {artifact.size} bytes",
                hint="lock again later, or ask the operator of the channel: its index does not match its files",
            )
    else:
        artifact = Artifact(kind=NAME, source=record.channel, file=record.file, sha256=record.sha256, size=record.size)
    provides = [f"{NAME}:{record.name} {record.version}"]
    if record.name.startswith("r-") and record.name not in _NOT_R:
        provides.append(f"r:{record.name[2:]} {record.version.replace('_', '-')}")
    needs = {f"conda:{name}" for name in map(_depends_name, record.data.get("depends", ())) if not name.startswith("__")}
    return Pin(
        name=record.name,
        version=record.version,
        artifact=artifact,
        needs=tuple(sorted(needs)),
        provides=tuple(provides),
        asked=asked,
        data=record.data,
    )


def _depends_name(text: str) -> str:
    return re.split(r"[\s=<>!~;\[]", text.strip().rpartition("::")[2].lower(), maxsplit=1)[0]


def own_tokens(pin: Pin) -> tuple[str, ...]:
    """Return `conda:<name> <version>`."""
    return (f"{NAME}:{pin.name} {pin.version}",)


def locations(artifact: Artifact, routes: Routes) -> tuple[str, ...]:
    return tuple(join(address, artifact.file) for address in routes.channel(artifact.source))


def place(target: Target, context: PlaceContext) -> Placement:
    """Return a segment for each pin, and `environment` with the file by which conda's tools recognise an environment.

    Paths run through no link of the base: the prefix is resolved, and links below it are refused. The text that is written
    into files is the prefix as the profile has it.
    """
    if not target.pins:
        return Placement()
    prefix = target.place
    resolved = real_path(f"{prefix}/.", context.facts, f"conda environment {prefix}")
    _is_free(prefix, resolved, context)
    python = _python(target.pins)
    stages = context.stage_of(target)
    segments, of = [], {}
    for item in target.pins:
        _is_sound(item, prefix)
        noarch = item.data.get("noarch")
        if noarch == "python" and python is None:
            raise CregraphError(
                f"conda environment {prefix}: {item.name} is a Python package, but the environment has no python",
                hint="add `python` to the specs: the lock was edited, or the package's dependencies are wrong",
            )
        place_ = {
            "prefix": resolved,
            "baked": prefix,
            "noarch": noarch,
            "python": python if noarch == "python" else None,
            "record": _installed(item),
        }
        made = segment(context.assembly, target, stage=stages[item.name], name=item.name, place=place_, source=item.artifact)
        segments.append(made)
        of[item.name] = made.key
    rank = {stage: i for i, stage in enumerate(context.order)}
    stage = min({a.stage for a in target.asks} or {""}, key=lambda s: (rank.get(s, len(rank)), s))
    environment = segment(
        context.assembly, target, stage=stage, name="environment", place={"prefix": resolved, "environment": True}
    )
    return Placement(segments=(*segments, environment), of=of)


def _is_free(prefix: str, resolved: str, context: PlaceContext) -> None:
    below = f"{resolved}/"
    links = sorted(path for path in context.facts.links if path.startswith(below))
    if links or f"{below}conda-meta/history" in context.facts.files:
        found = f"holds the link {links[0]} there" if links else "has a conda environment there"
        raise CregraphError(
            f"conda environment {prefix}: the base image {found}", hint="choose a prefix that the base image does not use"
        )


def _python(pins: Sequence[Pin]) -> dict[str, str] | None:
    """Return where noarch Python packages go; None without Python. Source: CEP 17 for `python_site_packages_path`."""
    found = next((p for p in pins if p.name == "python"), None)
    if found is None:
        return None
    minor = ".".join(found.version.split(".")[:2])
    return {"minor": minor, "site_packages": found.data.get("python_site_packages_path") or f"lib/python{minor}/site-packages"}


def _is_sound(item: Pin, prefix: str) -> None:
    """Raise CregraphError for a pin of a hand-edited lock whose texts are not safe as parts of paths."""
    build, depends, noarch = item.data.get("build"), item.data.get("depends"), item.data.get("noarch")
    path = item.data.get("python_site_packages_path") or "lib"
    right = {
        "version": _VERSION.fullmatch(item.version),
        "file": _FILE.fullmatch(item.artifact.file),
        "source": _CHANNEL.fullmatch(item.artifact.source),
        "data.build": isinstance(build, str) and _VERSION.fullmatch(build),
        "data.depends": isinstance(depends, list | tuple) and all(isinstance(text, str) for text in depends),
        "data.noarch": noarch in (None, "python", "generic", True, False),  # conda itself once wrote `true` for generic
        "data.python_site_packages_path": isinstance(path, str)
        and not path.startswith("/")
        and not any(part in ("", ".", "..") for part in path.split("/")),
    }
    if not _PACKAGE.fullmatch(item.name):
        raise defaults.edited(
            f"conda environment {prefix}: the lock pins {_short(item.name)!r}, which is not the name of a conda package"
        )
    defaults.check_edited(f"conda environment {prefix}: package", item.name, right)


def _installed(item: Pin) -> dict[str, Json]:
    """Return the fields of a pin in conda-meta, without its files."""
    subdir, _, file = item.artifact.file.partition("/")
    return {
        **item.data,
        "name": item.name,
        "version": item.version,
        "channel": item.artifact.source,
        "subdir": subdir,
        "fn": file,
        "sha256": item.artifact.sha256,
        "size": item.artifact.size,
    }


def entries(segment: Segment, source: Input) -> Iterator[Entry]:
    from cregraph.kinds.conda import conda_files

    return conda_files.entries(segment, source)
