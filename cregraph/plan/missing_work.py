"""What a build has to do, and what it says that it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cregraph.lock.pins import Artifact
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.parts import Segment, Task

__all__ = ["Event", "MissingWork"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that a build did. `seconds` it took, `size` bytes it concerns, where known."""

    what: Literal["begin", "fetched", "made", "reused", "failed"]
    subject: Literal["artifact", "segment", "task", "layer", "image"]
    name: str
    stage: str = ""
    seconds: float = 0.0
    size: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingWork:
    """What a build has to do besides reading: the keys of what the store lacks."""

    layers: tuple[LayerPlan, ...] = ()
    segments: tuple[Segment, ...] = ()
    tasks: tuple[Task, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
