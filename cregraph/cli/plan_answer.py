"""The answer of `cregraph plan`, and the same as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cregraph.image.media.registry_state import Remote
from cregraph.plan.explain import Explanation, Row, grouped
from cregraph.plan.explain.root_cause import Root, cause_text, root_text
from cregraph.plan.planner import Plan
from cregraph.session.earlier_plan import EarlierPlan
from cregraph.session.transfers import Transfers

if TYPE_CHECKING:
    from cregraph.remote_cache.cache_repository import RemoteCache
    from cregraph.remote_cache.cache_transfer import Offer

__all__ = ["SUBJECTS", "CacheOffer", "PlanAnswer", "as_object"]

#: A remote cache and what it has of the missing work.
CacheOffer = tuple["RemoteCache", "Offer"]
SUBJECTS = ("task", "segment", "layer")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanAnswer:
    """The answer of `cregraph plan`. None means not asked or not known."""

    plan: Plan
    view: Explanation
    transfers: Transfers
    earlier: EarlierPlan | None
    remote: Remote | None
    cache: CacheOffer | None


def as_object(answer: PlanAnswer) -> dict[str, Any]:
    """Return the answer for `--json`. Unknown values are null."""
    plan, view, transfers, remote = answer.plan, answer.view, answer.transfers, answer.remote
    return {
        "tag": plan.tag,
        "key": plan.key,
        "against": _against(answer.earlier),
        **{f"{subject}s": {"make": _made(view, subject), "all": view.count(subject)} for subject in SUBJECTS},
        "fetch": {
            "files": sorted(a.file or a.source for a in view.fetch),
            "bytes": sum(a.size for a in view.fetch),
            "base": {"layers": transfers.base_layers, "bytes": transfers.base},
            "build_root": {"bytes": transfers.root},
        },
        "cache": _cache(answer.cache),
        "push": asdict(transfers.push),
        "seconds": {
            "expected": None if view.time.seconds is None else round(view.time.seconds, 3),
            "alone": round(view.time.alone, 3),
            "jobs": view.time.jobs,
            "chain": list(view.time.chain),
            "unknown": view.time.unknown,
        },
        "things": [_row(row) for row in view.rows],
        "because": [
            {
                "root": _root(group.root) if group.root else None,
                "why": root_text(group.root) if group.root else group.why,
                "keys": [row.key for row in group.rows],
            }
            for group in grouped(view.rows)
        ],
        "image": [_root(root) for root in view.image],
        "gone": [_root(root) for root in view.gone],
        "remote": None if remote is None else {**asdict(remote), "place": str(remote.place), "lacking": list(remote.lacking)},
        "stages": dict(plan.stages),
    }


def _against(earlier: EarlierPlan | None) -> dict[str, str] | None:
    if earlier is None or earlier.plan is None:
        return None
    return {"what": earlier.name, "tag": earlier.plan.tag, "key": earlier.plan.key}


def _made(view: Explanation, subject: str) -> list[str]:
    found = [row.name for row in view.rows if row.subject == subject and row.what in ("fetch", "make")]
    return sorted(found) if subject == "segment" else found


def _cache(found: CacheOffer | None) -> dict[str, Any] | None:
    if found is None:
        return None
    cache, offer = found
    return {
        "cache": cache.name,
        "trusted": cache.trusted,
        "tasks": len(offer.tasks),
        "segments": len(offer.segments),
        "bytes": sum((*offer.tasks.values(), *offer.segments.values())),
        "unreachable": offer.unreachable or None,
    }


def _row(row: Row) -> dict[str, Any]:
    cause = None
    if row.cause is not None:
        cause = {"near": row.cause.near, "roots": [_root(root) for root in row.cause.roots], "words": cause_text(row.cause)}
    told = {**asdict(row), "bytes": row.size, "cause": cause, "seconds": None if row.seconds is None else round(row.seconds, 3)}
    del told["size"]
    return told


def _root(root: Root) -> dict[str, Any]:
    return {**asdict(root), "asked": list(root.asked), "words": root_text(root)}
