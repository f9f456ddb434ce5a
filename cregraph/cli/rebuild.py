"""`cregraph build --rebuild`: everything made again under other circumstances, and compared.

The second build is a process of its own, with another store in another folder, another time zone, locale, umask, user name,
hash seed and temporary folder, another number of jobs and processors, and as another user where namespaces allow. The clock
runs on, but is not set: what states the day only is not noticed on the same day.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cregraph.build.image_build import Built
from cregraph.build.rebuild_comparison import Compared, Difference, compare, seed
from cregraph.cli.say import counted, result, talk
from cregraph.errors import CregraphError
from cregraph.image.bases.base_image import BaseImage
from cregraph.session.project import Project
from cregraph.store import Store

__all__ = ["again", "answer", "say"]

_SHOWN = 12  # findings of one difference that are listed


def again(
    project: Project,
    built: Built,
    bases: tuple[BaseImage, BaseImage],
    *,
    engine: str,
    builder: str | None,
    context: str | None,
    jobs: int,
    sources: str | None,
    recorded: dict[str, str],
) -> tuple[Compared, dict[str, str]]:
    """Build what was just built once more, elsewhere; what differs, and the circumstances of the second build.

    Raises CregraphError when the second build fails.
    """
    store = project.store()
    plan = built.plan
    with store.scratch_folder() as folder:
        other = Store(folder / "another store, by another name")
        segments = (*plan.segments.values(), *plan.hidden.values())
        objects = {segment.artifact.sha256 for segment in segments if segment.artifact}
        objects |= {artifact.sha256 for task in plan.tasks for artifact in task.artifacts}
        for base in bases:
            manifest = base.manifest
            objects |= {manifest.digest.removeprefix("sha256:"), manifest.config.hex, *(each.hex for each in manifest.layers)}
        seed(store, other, sorted(objects))
        circumstances, prefix, env, processors = _circumstances(folder, other, native=engine in ("auto", "native"))
        asked = {
            "profile": str(project.profile),
            "sources": sources,
            "engine": engine,
            "builder": builder,
            "context": context,
            "jobs": 1 if jobs > 1 else 2,
            "processors": processors,
        }
        circumstances["jobs"] = str(asked["jobs"])
        talk("making everything again: " + ", ".join(f"{name} {value}" for name, value in circumstances.items()))
        command = [*prefix, sys.executable, "-m", "cregraph.cli.remake"]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, env=env, umask=0o077)
        try:
            started.communicate(json.dumps(asked).encode())
        except BaseException:
            started.terminate()
            started.wait()
            raise
        if started.returncode == 130:
            raise KeyboardInterrupt
        if started.returncode:
            raise CregraphError(
                "what was built once cannot be built again under other circumstances; the reason stands above",
                hint="`cregraph shell TASK` opens a task's sandbox",
            )
        return compare(plan, store, other, recorded, keep=store.root / "differences"), circumstances


def _circumstances(folder: Path, store: Store, *, native: bool) -> tuple[dict[str, str], list[str], dict[str, str], list[int]]:
    """What is other than in this process: in words, words before the command, the environment, and the processors."""
    temporary = folder / "another folder for temporary files"
    temporary.mkdir()
    zone = "UTC" if os.environ.get("TZ") == "Asia/Kolkata" else "Asia/Kolkata"
    env = {
        **os.environ,
        "CREGRAPH_CACHE": str(store.root),
        "TZ": zone,
        "LC_ALL": "C",
        "LANG": "tr_TR.UTF-8",
        "TMPDIR": str(temporary),
        "USER": "somebody",
        "LOGNAME": "somebody",
        "PYTHONHASHSEED": "77",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))),
    }
    said = {"time zone": zone, "locale": "C", "umask": "077", "hash seed": "77"}
    processors: list[int] = []
    if hasattr(os, "sched_getaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        processors = mine[-1:] if len(mine) > 1 else []
        said["processors"] = f"{len(processors) or len(mine)} of {len(mine)}"
    prefix: list[str] = []
    unshare = shutil.which("unshare") if native and sys.platform == "linux" else None
    if unshare:
        user = ["--map-user=4242", "--map-group=4242"] if os.geteuid() == 0 else ["--map-root-user"]
        words = [unshare, "--user", *user]
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            prefix = words
            said["user"] = "4242, in a namespace" if os.geteuid() == 0 else "0, in a namespace"
    return said, prefix, env, processors


def say(compared: Compared) -> None:
    """The answer in words: on stdout what differs, else one line of talk."""
    counts = compared.counts
    what = (
        f"{counted(counts['tasks'], 'task')}, {counted(counts['segments'], 'segment')}, {counted(counts['layers'], 'layer')} "
        "and the image"
    )
    if not compared.differences:
        talk(f"made again and equal to the byte: {what}")
        return
    for difference in compared.differences:
        for line in _lines(difference):
            result(line)


def _lines(difference: Difference) -> Iterator[str]:
    where = f" (stage {difference.stage})" if difference.stage else ""
    one, two = (text if ":" in text else f"sha256:{text}" for text in (difference.one, difference.two))
    if difference.what == "recorded":
        yield f"task {difference.name}{where}: the outputs beside the lock record {one}, and this store holds {two}"
    else:
        yield f"{difference.what} {difference.name}{where}: {one} first, {two} when made again"
    if difference.because:
        yield f"  because of what else differs: {', '.join(difference.because)}"
    cured = set()
    for finding in difference.findings[:_SHOWN]:
        yield f"  {finding.path}{': ' + finding.inside if finding.inside else ''}"
        yield f"    {finding.cause}: {finding.one or '(nothing)'} and {finding.two or '(nothing)'}"
        if finding.cause not in cured:
            yield f"    {finding.cure}"
            cured.add(finding.cause)
    if len(difference.findings) > _SHOWN:
        yield f"  and {len(difference.findings) - _SHOWN} more"
    if difference.what in ("segment", "layer"):
        yield "  no task is behind it: this is a fault of cregraph; please report it with these lines"
    if difference.kept:
        yield f"  both results: {difference.kept}"


def answer(compared: Compared, circumstances: dict[str, str]) -> dict[str, Any]:
    """The answer for a program."""
    return {
        "equal": not compared.differences,
        "circumstances": circumstances,
        "compared": compared.counts,
        "differences": [
            {
                "what": each.what,
                "name": each.name,
                "key": each.key,
                "stage": each.stage or None,
                "first": each.one,
                "again": each.two,
                "because": list(each.because),
                "kept": str(each.kept) if each.kept else None,
                "findings": [
                    {
                        "file": finding.path,
                        "inside": finding.inside or None,
                        "cause": finding.cause,
                        "first": finding.one,
                        "again": finding.two,
                        "cure": finding.cure,
                    }
                    for finding in each.findings
                ],
            }
            for each in compared.differences
        ],
    }
