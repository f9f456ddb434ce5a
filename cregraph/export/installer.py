"""The program that installs a stage inside another builder: downloads by digest, then cregraph's own rules for every file.

    python3 -I -B install.pyz STAGE.json

Goes into the build context as one file, together with the modules that it imports, and runs on the base's own Python (3.10 or
later) with nothing but the standard library. It reads what `cregraph.export.builder` wrote, a list of segments: the same kinds,
places and artifacts as in the plan, with the addresses to fetch from. What it writes is what cregraph's own layers hold: the same
bytes, modes, owners and times. It is root, chooses nothing, and ends by removing what was copied in for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import html.parser
import http.client
import json
import os
import posixpath
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import Entry, from_bytes
from cregraph.kinds import archive
from cregraph.kinds.conda.conda_archive import open_package
from cregraph.kinds.conda.conda_files import files_at
from cregraph.kinds.python.wheel_files import Places, wheel_entries
from cregraph.kinds.r import r_files
from cregraph.lock.pins import Artifact
from cregraph.plan.parts import Segment

__all__ = ["install", "main"]

_MTIME = 315532800  # as cregraph.image.model.tar_writer.MTIME
_BLOCK = 1 << 20
_AHEAD = 8  # downloads at a time, and how many wait to be installed
_PAUSES = (1, 4, 15)
_TIMEOUT = 60
_PAGE = 64 << 20
_SIMPLE = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


def main() -> None:
    """Install what the manifest named on the command line says; exit 1 with a reason when it cannot."""
    manifest = Path(sys.argv[1])
    try:
        os.umask(0o022)
        done = install(json.loads(manifest.read_text(encoding="utf-8")), manifest.parent)
        shutil.rmtree(manifest.parent)
        with contextlib.suppress(OSError):  # it may hold what else was made for tasks
            manifest.parent.parent.rmdir()
        sys.stdout.write(f"{done}\n")
    except CregraphError as error:
        sys.exit(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))


def install(manifest: Mapping[str, Any], folder: Path, root: Path = Path("/")) -> str:
    """Install what `manifest` says below `root`; `folder` holds the files that came with it. Returns what was done, in words."""
    segments = manifest["segments"]
    inputs = manifest.get("inputs", [])
    with tempfile.TemporaryDirectory(dir=folder) as scratch, _Fetcher(Path(scratch), folder) as fetcher:
        tree = _Writer(manifest.get("owners", {}), root)
        for wanted, file in fetcher.files([*segments, *inputs]):
            if "to" in wanted:  # what a task is given; it sees a file of a fixed time
                assert file is not None
                to = Path(wanted["to"])
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)
                to.chmod(0o444)
                os.utime(to, (_MTIME, _MTIME))
                continue
            try:
                for entry in _entries(wanted, file, Path(scratch)):
                    tree.write(entry)
            except CregraphError as error:
                said = error.message if wanted["name"] in error.message else f"{wanted['name']}: {error.message}"
                raise CregraphError(said, error.hint) from None
        tree.finish()
        for parent in {Path(item["to"]).parent for item in inputs}:
            os.utime(parent, (_MTIME, _MTIME))
        return f"{len(segments)} installed, {tree.files} files, {fetcher.fetched} bytes fetched"


# -- fetching ------------------------------------------------------------------------------------------------------------------


class _Fetcher:
    """Downloads ahead of what is being installed, a few at a time, so that they need little room."""

    def __init__(self, scratch: Path, folder: Path) -> None:
        self._scratch = scratch
        self._folder = folder
        self._room = threading.Semaphore(2 * _AHEAD)
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(_AHEAD)
        self.fetched = 0

    def __enter__(self) -> _Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for _each in range(2 * _AHEAD):
            self._room.release()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def files(self, items: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Path | None]]:
        """Each item with the verified file of its artifact, in order; a downloaded file is gone once the next is asked for."""
        futures = [
            self._pool.submit(self._one, item["artifact"], number) for number, item in enumerate(items) if item.get("artifact")
        ]
        waiting = iter(futures)
        for item in items:
            if item.get("made"):
                yield item, self._made(item["made"])
                continue
            if not item.get("artifact"):
                yield item, None
                continue
            file = next(waiting).result()
            try:
                yield item, file
            finally:
                if file.parent == self._scratch:
                    file.unlink()
                    self._room.release()

    def _made(self, folder: str) -> Path:
        """The one wheel that a task left."""
        found = sorted((self._folder / folder).rglob("*.whl"))
        if len(found) != 1:
            raise CregraphError(f"the build of a wheel left {len(found)} wheels in {folder}")
        return found[0]

    def _one(self, artifact: Mapping[str, Any], number: int) -> Path:
        if "file" in artifact:
            path = self._folder / str(artifact["file"])
            with path.open("rb") as file:
                _same(_digest(file), path.stat().st_size, artifact, artifact["file"])
            return path
        self._room.acquire()
        if self._stopped.is_set():
            raise CregraphError("stopped")
        failures: list[str] = []
        for pause in (0, *_PAUSES):
            if pause and self._stopped.wait(pause):
                break
            failures = []
            for url in artifact["urls"]:
                path = self._scratch / f"{number}"
                try:
                    if artifact.get("index"):
                        url = _in_index(url, artifact["name"])
                    self.fetched += _download(url, path, artifact)
                    return path
                except (OSError, ValueError, http.client.HTTPException, CregraphError) as error:
                    failures.append(f"{_plain(url)}: {_plain(str(error))}")
        raise CregraphError(
            f"{artifact['name']} cannot be fetched\n  " + "\n  ".join(failures),
            hint="may this builder reach these hosts? their names, and those that they redirect to, must be allowed",
        )


def _download(url: str, path: Path, artifact: Mapping[str, Any]) -> int:
    hasher = hashlib.sha256()
    size = 0
    with _asked(url, {"Accept-Encoding": "identity"}) as answer, path.open("wb") as out:
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > artifact["size"]:
                break
            hasher.update(block)
            out.write(block)
    _same(hasher.hexdigest(), size, artifact, "it")
    return size


def _asked(url: str, headers: Mapping[str, str]) -> Any:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("only http and https are read")
    request = urllib.request.Request(url, headers={"User-Agent": "cregraph", **headers})  # noqa: S310
    return urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310


def _same(digest: str, size: int, artifact: Mapping[str, Any], what: str) -> None:
    if size != artifact["size"]:
        raise CregraphError(
            f"{what} has {'more' if size > artifact['size'] else 'fewer'} than the {artifact['size']} bytes of the lock"
        )
    if digest != artifact["sha256"]:
        raise CregraphError(f"{what} has sha256:{digest}, and the lock pins sha256:{artifact['sha256']}")


def _digest(file: IO[bytes]) -> str:
    hasher = hashlib.sha256()
    while block := file.read(_BLOCK):
        hasher.update(block)
    return hasher.hexdigest()


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def _in_index(page: str, name: str) -> str:
    """The address of the file `name` on a project's page of a package index (PEP 503 and 691)."""
    try:
        data, at = _page(page, _SIMPLE)
    except urllib.error.HTTPError as error:
        if error.code not in (404, 406):  # an index that knows HTML alone may say so of the other form
            raise
        data, at = _page(page, "text/html")
    if data.lstrip()[:1] == b"{":
        links: list[str] = [str(file.get("url")) for file in json.loads(data).get("files", []) if isinstance(file, dict)]
    else:
        parser = _Links()
        parser.feed(data.decode("utf-8", "replace"))
        links = parser.found
    for link in links:
        address = urllib.parse.urljoin(at, link).partition("#")[0]
        last = posixpath.basename(urllib.parse.urlsplit(address).path)
        if urllib.parse.unquote(last) == name and urllib.parse.urlsplit(address).scheme in ("http", "https"):
            return address
    raise CregraphError("the page lists no such file")


def _page(address: str, form: str) -> tuple[bytes, str]:
    with _asked(address, {"Accept": form}) as answer:
        return answer.read(_PAGE), str(answer.url)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:400]


# -- files ---------------------------------------------------------------------------------------------------------------------


def _entries(item: Mapping[str, Any], file: Path | None, scratch: Path) -> Iterator[Entry]:
    """What a segment becomes, by the rules of its kind."""
    kind, place = item["kind"], item["place"]

    def room() -> IO[bytes]:
        return tempfile.TemporaryFile(dir=scratch)

    if kind == "conda":
        if place.get("environment"):
            yield from_bytes(f"{place['prefix'].strip('/')}/conda-meta/history", b"")
            return
        assert file is not None
        yield from files_at(open_package(file, room, item["name"]), place)
    elif kind == "python":
        assert file is not None
        name = file.name if item.get("made") else item["artifact"]["name"]
        yield from wheel_entries(file, name=name, places=Places(**{field: place[field] for field in Places.__slots__}))
    elif kind == "r":
        assert file is not None
        yield from r_files.built(item["name"], file, place["at"].strip("/"), room())
    elif kind == "archive":
        yield from archive.entries(_segment(item), _Input(file, room))
    elif kind == "file":
        path, uid, gid = place["at"].lstrip("/"), place["uid"], place["gid"]
        if "link" in place:
            yield Entry(path=path, type="symlink", mode=0o777, uid=uid, gid=gid, link=place["link"])
            return
        data = place["text"].encode() if "text" in place else file.read_bytes() if file else b""
        yield from_bytes(path, data, mode=place.get("mode", 0o644), uid=uid, gid=gid)
    else:
        raise CregraphError(f"the manifest holds the kind `{kind}`, which this installer does not know")


def _segment(item: Mapping[str, Any]) -> Segment:
    told = item["artifact"]
    artifact = Artifact(kind="url", source=item["name"], file="", sha256=told["sha256"], size=told["size"])
    return Segment(key="", kind=item["kind"], stage="", name=item["name"], group="", place=item["place"], artifact=artifact)


class _Input:
    def __init__(self, file: Path | None, room: Callable[[], IO[bytes]]) -> None:
        self._file = file
        self.scratch = room

    def path(self) -> Path:
        assert self._file is not None
        return self._file


class _Writer:
    """Writes entries at their places. A path that is there already is left alone when it is equal, and refused when not."""

    def __init__(self, owners: Mapping[str, Sequence[int]], root: Path) -> None:
        self._owners = owners
        self._root = root
        self._times: dict[Path, int] = {}  # of directories that were there, in nanoseconds
        self._made: dict[Path, None] = {}
        self._known: set[Path] = {root}
        self._links: list[tuple[Path, Path]] = []
        self.files = 0

    def write(self, entry: Entry) -> None:
        path = self._root / entry.path
        self._folder(path.parent)
        self.files += 1
        if entry.type == "hardlink":
            self._links.append((path, self._root / entry.link))  # what it leads to may come later
            return
        if os.path.lexists(path):
            self._equal(path, entry)
            return
        if path.parent not in self._made:
            self._times.setdefault(path.parent, path.parent.stat().st_mtime_ns)
        if entry.type == "symlink":
            path.symlink_to(entry.link)
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                size = 0
                for chunk in entry.chunks() if entry.chunks else ():
                    size += len(chunk)
                    out.write(chunk)
                if size != entry.size:
                    raise CregraphError(f"`{path}` was said to hold {entry.size} bytes and holds {size}")
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if entry.type == "file":
            path.chmod(entry.mode)
        os.utime(path, (_MTIME, _MTIME), follow_symlinks=False)

    def finish(self) -> None:
        """Hard links, then the times of directories, which writing has changed."""
        for path, target in self._links:
            if os.path.lexists(path):
                if path.is_symlink() or not path.samefile(target):
                    raise CregraphError(f"`{path}` is there already, and is another file")
            else:
                if path.parent not in self._made:
                    self._times.setdefault(path.parent, path.parent.stat().st_mtime_ns)
                path.hardlink_to(target)
        for path in reversed(self._made):
            os.utime(path, (_MTIME, _MTIME))
        for path, at in self._times.items():
            os.utime(path, ns=(at, at))

    def _folder(self, path: Path) -> None:
        if path in self._known:
            return
        self._folder(path.parent)
        if path.is_symlink():
            raise CregraphError(f"`{path}` is a symbolic link; what is installed runs through none")
        if not path.is_dir():
            if path.parent not in self._made:
                self._times.setdefault(path.parent, path.parent.stat().st_mtime_ns)
            path.mkdir(mode=0o755)
            os.chown(path, *self._owner(path))
            self._made[path] = None
        self._known.add(path)

    def _owner(self, path: Path) -> tuple[int, int]:
        inside = Path("/") / path.relative_to(self._root)
        for place in (inside, *inside.parents):
            if str(place) in self._owners:
                uid, gid = self._owners[str(place)]
                return uid, gid
        return 0, 0

    def _equal(self, path: Path, entry: Entry) -> None:
        if entry.type == "symlink":
            same = path.is_symlink() and str(path.readlink()) == entry.link
        else:
            same = path.is_file() and not path.is_symlink() and path.stat().st_size == entry.size
            if same:
                with path.open("rb") as file:
                    same = all(file.read(len(chunk)) == chunk for chunk in (entry.chunks() if entry.chunks else ()))
        if not same:
            raise CregraphError(
                f"`{path}` is there already, and is something else",
                hint="nothing of the base is replaced, and no path has two owners: choose another destination",
            )
