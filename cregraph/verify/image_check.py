"""Whether an image holds what a lock says: packages by the image's own records, files by their bytes where these are known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cregraph.image.bases.image_files import Contents, Known
from cregraph.image.model.config import compose
from cregraph.lock.base_facts import BaseFacts
from cregraph.plan.planner import Plan
from cregraph.store import Store
from cregraph.verify.expected import expected_of
from cregraph.verify.file_check import compare_files, unexpected_files, unlike_base
from cregraph.verify.package_check import PackageCheck
from cregraph.verify.verdict import Finding, Subject, Verdict

__all__ = ["is_exactly", "known_layers", "verify"]

_RANK = {"base": 0, "config": 1, "variable": 2, "label": 3, "package": 4, "directory": 5, "file": 6}
_PARTS = ("Entrypoint", "Cmd", "User", "WorkingDir", "ExposedPorts", "Volumes", "StopSignal", "Shell")


def known_layers(facts: BaseFacts) -> Known:
    """Return the layers of the base, which need not be read."""
    return Known(layers=tuple((layer.digest, layer.diff_id) for layer in facts.layers))


def is_exactly(plan: Plan, store: Store, digest: str | None) -> bool:
    """Return whether `digest` (`sha256:…`) is that of the image which this store has built from `plan`."""
    record = store.record("images", plan.key)
    return digest is not None and isinstance(record, dict) and record.get("digest") == digest


def verify(plan: Plan, facts: BaseFacts, contents: Contents, store: Store, *, recompiled: bool = False) -> Verdict:
    """Compare `contents` with the lock of `plan`. With `recompiled`, files that a task made may have other bytes."""
    expected = expected_of(plan, facts, store)
    packages = PackageCheck(plan=plan, contents=contents, expected=expected, recompiled=recompiled)
    packages.run()
    equal, findings = compare_files(contents, expected, packages.settled)
    findings += [
        *packages.findings,
        *unlike_base(contents, expected),
        *unexpected_files(contents, expected, packages.owned),
        *_config(contents.config, plan, facts),
    ]
    return Verdict(
        by="content",
        findings=tuple(sorted(set(findings), key=lambda f: (_RANK[f.subject], f.name, f.what, f.why))),
        packages=packages.equal,
        files=equal,
        unread=len(plan.segments.keys() - expected.known),
        other=packages.other,
    )


def _config(config: Mapping[str, Any], plan: Plan, facts: BaseFacts) -> Iterator[Finding]:
    """Return the differences in variables, labels and other parts. Labels that a builder added are no difference."""
    wanted = json.loads(compose(facts, (), env=plan.env, labels=plan.labels).config).get("config") or {}
    found = config.get("config")
    found = found if isinstance(found, dict) else {}
    yield from _pairs("variable", _mapping(wanted.get("Env")), _mapping(found.get("Env")))
    yield from _pairs("label", _mapping(wanted.get("Labels")), _mapping(found.get("Labels")))
    for part in _PARTS:
        if (found.get(part) or None) != (wanted.get(part) or None):
            why = f"it is {_shown(found.get(part))}, and must be {_shown(wanted.get(part))}"
            yield Finding("changed", "config", part, why)


def _pairs(subject: Subject, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Finding]:
    for key in sorted(wanted.keys() | found.keys()):
        if key not in found:
            yield Finding("missing", subject, key, f"it must be `{wanted[key]}`")
        elif key not in wanted:
            if subject == "variable":  # builders add labels of their own, and nothing acts on them
                yield Finding("extra", subject, key, f"it is `{found[key]}`")
        elif wanted[key] != found[key]:
            why = f"it is `{found[key]}`, and must be `{wanted[key]}`"
            yield Finding("changed", subject, key, why)


def _mapping(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    if isinstance(value, list):
        return {item.partition("=")[0]: item.partition("=")[2] for item in value if isinstance(item, str)}
    return {}


def _shown(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)[:200]
