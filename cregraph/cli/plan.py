"""`cregraph plan`."""

from __future__ import annotations

from cregraph.build import pending
from cregraph.cli.lock import fresh_lock
from cregraph.cli.say import as_json, megabytes, result
from cregraph.planning import make_plan
from cregraph.project import Project


def run(profile: str | None, *, json: bool) -> None:
    """Say what a build would do."""
    project = Project.of(profile)
    lock = fresh_lock(project)
    plan = make_plan(lock, project.facts(lock.base))
    work = pending(plan, project.store())
    size = sum(a.size for a in work.artifacts)
    if json:
        as_json(
            {
                "tag": plan.tag,
                "key": plan.key,
                "layers": {"make": [layer.name for layer in work.layers], "all": len(plan.layers)},
                "segments": {"make": sorted(s.name for s in work.segments), "all": len(plan.segments)},
                "tasks": {"make": [task.name for task in work.tasks], "all": len(plan.tasks)},
                "fetch": {"files": sorted(a.file or a.source for a in work.artifacts), "bytes": size},
                "stages": dict(plan.stages),
            }
        )
        return
    result(f"{lock.identity.image}:{plan.tag}")
    result(f"  layers    {len(work.layers)} to make of {len(plan.layers)}")
    result(f"  segments  {len(work.segments)} to make of {len(plan.segments) + len(plan.hidden)}")
    result(f"  tasks     {len(work.tasks)} to run of {len(plan.tasks)}" + _names([t.name for t in work.tasks]))
    files = len(work.artifacts)
    result(f"  fetch     {files} {'file' if files == 1 else 'files'}, {megabytes(size)}")


def _names(names: list[str]) -> str:
    if not names:
        return ""
    return ": " + ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
