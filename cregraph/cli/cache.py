"""`cregraph cache`: show, check and clear the store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.options import AsJson
from cregraph.cli.store_use import unsettled
from cregraph.cli.terminal_output import as_json, counted, megabytes, result, talk, working
from cregraph.errors import CregraphError
from cregraph.session.project import Project
from cregraph.store import Store
from cregraph.store.gc import fsck as damage
from cregraph.store.gc.collect import collect
from cregraph.store.gc.inventory import Usage, inventory
from cregraph.store.gc.roots import Roots, lock_path, reach, roots
from cregraph.store.users import User, gc_lock

cache = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_PATIENCE = 60.0  # seconds that gc waits for a command whose locks are not known yet
_DAY = 86400.0


@cache.command("path")
def _path() -> None:
    """Print where the store is."""
    result(str(_store().root))


@cache.command("ls")
def _ls(json: AsJson = False) -> None:
    """What is in the store, and how much of it known locks reach."""
    store = _store()
    found = roots(store, named=_here())
    kinds = inventory(store, None if found.unreadable else reach(found, store))
    if json:
        as_json({"store": str(store.root), "roots": _names(found), "kinds": [_json(kind, found) for kind in kinds]})
        return
    result(f"{'':18}{'number':>8}{'size':>11}{'of locks':>10}{'size':>11}  unused for")
    for kind in kinds:
        reached = ("?", "?") if found.unreadable else (str(kind.reached), megabytes(kind.reached_size))
        result(f"{kind.name:18}{kind.count:>8}{megabytes(kind.size):>11}{reached[0]:>10}{reached[1]:>11}  {_unused(kind, store)}")
    _say(found)


@cache.command("gc")
def _gc(
    locks: Annotated[
        list[str] | None, typer.Argument(metavar="LOCK", help="Locks (or their profiles) to keep besides those known.")
    ] = None,
    older: Annotated[float, typer.Option("--older", metavar="DAYS", help="Only what nobody touched for so many days.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    keep_built: Annotated[
        bool, typer.Option("--keep-built", help="Keep what was last built of lock files that are gone.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Remove what no known lock and no running build needs."""
    if not (0 <= older < math.inf):
        raise CregraphError(f"`--older {older}`: a number of days is wanted")
    store = _store()
    if not store.root.is_dir():
        talk(f"there is no store at {store.root}: nothing to remove")
        found, removed, freed = Roots(), {}, 0
    else:
        with gc_lock(store, patience=_PATIENCE, waiting=_waiting) as users:
            found = roots(store, users, [*(lock_path(Path(name)) for name in locks or []), *_here()], keep_built=keep_built)
            if found.unreadable:
                raise CregraphError(
                    "nothing is removed: what these locks need is not known\n  " + "\n  ".join(found.unreadable),
                    hint="mend each lock or bring its bases/ back (`git checkout`), or remove a lock file that nobody wants",
                )
            done = collect(store, reach(found, store), users, older=older * _DAY, dry=dry_run)
            removed, freed = dict(done.removed), done.freed
    if json:
        as_json(
            {
                "store": str(store.root),
                "roots": _names(found),
                "gone": [str(gone) for gone in found.gone],
                "removed": removed,
                "freed": freed,
                "dry_run": dry_run,
            }
        )
        return
    _say(found)
    what = ", ".join(_counted(section, number) for section, number in removed.items() if number)
    result(f"{megabytes(freed)} {'would be freed' if dry_run else 'freed'} in {store.root}: {what or 'nothing to remove'}")


@cache.command("verify")
def _verify(json: AsJson = False) -> None:
    """Hash everything; what is damaged is set aside and made anew next time. Exit 1 when something was."""
    store = _store()
    with unsettled(store, "cache verify"), working("checking the store"):
        found = damage.inspect(store, damage.names(roots(store).roots))
    if json:
        as_json(
            {
                "store": str(store.root),
                "ok": not found,
                "damaged": [
                    {"what": one.what, "name": one.name, "why": one.why, "done": one.done, "of": list(one.of)} for one in found
                ],
            }
        )
    else:
        for one in found:
            result(f"{one.what} {one.name}: {one.why}; {one.done}" + (f" ({', '.join(one.of)})" if one.of else ""))
        many = f"{counted(len(found), 'thing')} damaged; the next build makes or fetches anew what it needs"
        result(many if found else "the store is whole")
    if found:
        raise SystemExit(1)


_CALLED = {
    "sha256": "object",
    "segments": "segment",
    "layers": "layer",
    "tasks": "task result",
    "images": "image record",
    "projects": "lock forgotten",
    "logs": "log",
    "partial": "partial download",
    "roots": "build root",
    "environments": "environment",
    "segment-trees": "unpacked segment",
    "result-trees": "unpacked result",
}


def _counted(section: str, number: int) -> str:
    called = _CALLED.get(section)
    return counted(number, called) if called else f"{number} of {section}"


def _names(found: Roots) -> list[str]:
    return [root.name.replace("`", "") for root in found.roots]


def _store() -> Store:
    return Project(profile=Path("cregraph.yaml")).store()


def _here() -> list[Path]:
    """Return the locks in the current folder. After a move, the store knows them under another path."""
    try:
        return sorted(path for path in Path("locks").iterdir() if path.name.endswith(".lock.json"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CregraphError(f"`locks` cannot be read: {error.strerror or error}", hint="it says what is needed here") from None


def _waiting(user: User) -> None:
    talk(f"waiting for `cregraph {user.command}` (process {user.pid})")


def _say(found: Roots) -> None:
    for gone in found.gone:
        talk(f"`{gone}` is not there any more: " + ("what was built of it is kept" if _kept(gone, found) else "it keeps nothing"))
    for why in found.unreadable:
        talk(f"not known what it needs: {why}")


def _kept(path: Path, found: Roots) -> bool:
    return any(one.lock == path for one in found.keep)


def _unused(kind: Usage, store: Store) -> str:
    if kind.oldest is None:
        return ""
    import time

    return f"{max(0, int((time.time() - kind.oldest) // _DAY))} days"


def _json(kind: Usage, found: Roots) -> dict[str, object]:
    known = not found.unreadable
    return {
        "name": kind.name,
        "count": kind.count,
        "bytes": kind.size,
        "reached": kind.reached if known else None,
        "reached_bytes": kind.reached_size if known else None,
        "oldest_use": kind.oldest,
    }
