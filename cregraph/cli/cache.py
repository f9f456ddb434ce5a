"""`cregraph cache`: show, check and clear the store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from cregraph.cli.cache_text import listing, removed_text, root_names, tell_roots, usage_object
from cregraph.cli.options import AsJson
from cregraph.cli.store_use import unsettled
from cregraph.cli.terminal_output import as_json, megabytes, result, talk, working
from cregraph.errors import CregraphError
from cregraph.session.project import Project
from cregraph.store import Store
from cregraph.store.gc import fsck as damage
from cregraph.store.gc.collect import collect
from cregraph.store.gc.inventory import inventory
from cregraph.store.gc.roots import Roots, lock_path, reach, roots
from cregraph.store.users import gc_lock

cache = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_PATIENCE = 60.0  # seconds that gc waits for a command whose locks are not known yet
_DAY = 86400.0


@cache.command("path")
def _path() -> None:
    """Print the path of the store."""
    result(str(_store().root))


@cache.command("ls")
def _ls(json: AsJson = False) -> None:
    """List what the store holds and what known locks need."""
    store = _store()
    found = roots(store, named=_here())
    kinds = inventory(store, None if found.unreadable else reach(found, store))
    if json:
        usage = [usage_object(kind, found) for kind in kinds]
        as_json({"store": str(store.root), "roots": root_names(found), "kinds": usage})
        return
    for line in listing(kinds, found):
        result(line)
    tell_roots(found)


@cache.command("gc")
def _gc(
    locks: Annotated[
        list[str] | None, typer.Argument(metavar="LOCK", help="Also keep what this lock or profile needs. Repeatable.")
    ] = None,
    older: Annotated[float, typer.Option("--older", metavar="DAYS", help="Delete only what no command used for DAYS days.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be deleted. Delete nothing.")] = False,
    keep_built: Annotated[
        bool, typer.Option("--keep-built", help="Keep the last build of lock files that no longer exist.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Delete what no known lock and no running build needs."""
    if not (0 <= older < math.inf):
        raise CregraphError(f"`--older {older}` is not a number of days (expected 0 or more)")
    store = _store()
    if not store.root.is_dir():
        talk(f"{store.root}: the store does not exist. Nothing to delete")
        found, removed, freed = Roots(), {}, 0
    else:
        text = "waiting for `cregraph {0.command}` (process {0.pid})"
        with gc_lock(store, patience=_PATIENCE, waiting=lambda user: talk(text.format(user))) as users:
            found = roots(store, users, [*(lock_path(Path(name)) for name in locks or []), *_here()], keep_built=keep_built)
            if found.unreadable:
                raise CregraphError(
                    "cregraph deletes nothing, because it cannot read what these locks need\n  " + "\n  ".join(found.unreadable),
                    hint="repair each lock or restore its bases/ (`git checkout`), or delete lock files that nobody needs",
                )
            done = collect(store, reach(found, store), users, older=older * _DAY, dry=dry_run)
            removed, freed = dict(done.removed), done.freed
    if json:
        answer = {"store": str(store.root), "roots": root_names(found), "gone": [str(gone) for gone in found.gone]}
        as_json({**answer, "removed": removed, "freed": freed, "dry_run": dry_run})
        return
    tell_roots(found)
    result(f"{megabytes(freed)} {'would be freed' if dry_run else 'freed'} in {store.root}: {removed_text(removed)}")


@cache.command("verify")
def _verify(json: AsJson = False) -> None:
    """Check every object and record of the store."""
    store = _store()
    with unsettled(store, "cache verify"), working("checking the store"):
        found = damage.inspect(store, damage.names(roots(store).roots))
    if json:
        listed = [{"what": one.what, "name": one.name, "why": one.why, "done": one.done, "of": list(one.of)} for one in found]
        as_json({"store": str(store.root), "ok": not found, "damaged": listed})
    else:
        for one in found:
            result(f"{one.what} {one.name}: {one.why}; {one.done}" + (f" ({', '.join(one.of)})" if one.of else ""))
        many = f"{len(found)} damaged; the next build downloads or rebuilds what it needs"
        result(many if found else "the store is complete")
    if found:
        raise SystemExit(1)


def _store() -> Store:
    return Project(profile=Path("cregraph.yaml")).store()


def _here() -> list[Path]:
    """Return the locks in the current folder. After a move, the store knows them under another path."""
    try:
        return sorted(path for path in Path("locks").iterdir() if path.name.endswith(".lock.json"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CregraphError(
            f"`locks` cannot be read: {error.strerror or error}",
            hint="change its permissions, because cregraph keeps what its locks need",
        ) from None
