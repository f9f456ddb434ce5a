"""The causes in what `cregraph plan` prints: why things are made, and the line of each thing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cregraph.cli.plan_answer import SUBJECTS, PlanAnswer
from cregraph.cli.terminal_output import counted, seconds
from cregraph.plan.explain import Group, Row, grouped
from cregraph.plan.explain.root_cause import cause_text, root_text
from cregraph.text import few, printable

__all__ = ["causes", "row_line"]

_GROUPS = 12  # causes that the short answer shows
_NAMES = 4  # names of tasks that a cause shows


def causes(answer: PlanAnswer) -> Iterator[str]:
    """Yield a line for each cause of work, with the numbers of things that it reaches."""
    view, earlier = answer.view, answer.earlier
    groups = grouped(view.rows)
    if not groups and not view.image and not view.gone:
        return
    if earlier is None or earlier.plan is None:
        yield f"  because {'the last build is not known' if earlier else 'this store has no earlier build of this lock file'}"
        return
    tag = f", {earlier.plan.tag}" if earlier.plan.key != answer.plan.key else ""
    yield f"  because of changes since {earlier.name}{tag}:"
    yield from _causes(groups)
    shown = {group.root for group in groups}
    for root in (*view.image, *view.gone):
        if root not in shown:
            yield printable(f"    {root_text(root)}" + (": the image's config" if root.what in ("variable", "label") else ""))


def _causes(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups[:_GROUPS]:
        yield printable(f"    {root_text(group.root) if group.root else group.why}: {_things(group)}")
    if len(groups) > _GROUPS:
        yield f"    and {len(groups) - _GROUPS} more causes, which --full shows"


def _things(group: Group) -> str:
    """Return text such as `2 tasks (rlang, dplyr), 2 segments, 1 layer`."""
    parts = []
    for subject in SUBJECTS:
        rows = [row for row in group.rows if row.subject == subject]
        names = f" ({few((row.name for row in rows), _NAMES)})" if subject == "task" else ""
        kept = sum(row.what in ("reuse", "cache") for row in rows)
        if rows:
            parts.append(counted(len(rows), subject) + names + (f", {kept} of them here already" if kept else ""))
    return ", ".join(parts)


def row_line(row: Row) -> str:
    """Return the line of one task, segment or layer."""
    name = " ".join(filter(None, (row.kind if row.subject != "layer" else "", row.name, row.version)))
    why = cause_text(row.cause) if row.cause else row.why
    took = f"  {seconds(row.seconds)}" if row.seconds is not None and row.seconds >= 0.05 else ""
    return printable(f"{row.what:<5}  {row.subject:<7}  {name:<32}  {why}{took}".rstrip())
