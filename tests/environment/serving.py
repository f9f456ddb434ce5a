"""The environment over HTTP on loopback, as mirrors serve it, with a log of what was asked and faults on request.

HTTP/1.1 with kept connections and a long queue: the clients open many at once, and some misread an answer "not modified"
that has no ETag.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

_TYPES = {".json": "application/json", ".html": "text/html", ".gz": "application/gzip", ".zst": "application/zstd"}
_SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
FAULTS = ("500", "404", "truncate", "flip", "slow")


class Asked(NamedTuple):
    """One answered request."""

    method: str
    path: str
    status: int


@dataclass(slots=True)
class _Fault:
    pattern: str
    kind: str
    left: int


@dataclass(slots=True, kw_only=True)
class Server:
    """A running server: its address, what it was asked, and the faults it still has to make."""

    address: str
    log: list[Asked] = field(default_factory=list)
    seconds: float = 1.0  # how long a "slow" answer takes
    _faults: list[_Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, pattern: str, kind: str, times: int = 1) -> None:
        """Answer the next `times` requests whose path matches the glob `pattern` wrongly.

        `500` and `404` are that status; `truncate` promises the whole and closes half-way; `flip` changes one byte in
        the middle; `slow` waits `seconds` in the middle of the body. HEAD requests count for the statuses alone.
        """
        if kind not in FAULTS:
            raise ValueError(f"no fault `{kind}`; there are {', '.join(FAULTS)}")
        with self._lock:
            self._faults.append(_Fault(pattern, kind, times))

    def clear(self) -> None:
        """Forget the log and the faults still to come."""
        with self._lock:
            self.log.clear()
            self._faults.clear()

    def paths(self, pattern: str = "*") -> list[str]:
        """Paths of what was asked, in order, that match a glob."""
        with self._lock:
            return [asked.path for asked in self.log if fnmatch.fnmatchcase(asked.path, pattern)]

    def _take(self, path: str, head: bool) -> str | None:
        with self._lock:
            for fault in self._faults:
                if fault.left and fnmatch.fnmatchcase(path, fault.pattern) and (not head or fault.kind in ("500", "404")):
                    fault.left -= 1
                    return fault.kind
        return None

    def _note(self, asked: Asked) -> None:
        with self._lock:
            self.log.append(asked)


@contextmanager
def serve(root: Path) -> Iterator[Server]:
    """Serve the files under `root` on a free port of 127.0.0.1 until the context ends."""

    class Listener(ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True
        block_on_close = False

    class Handler(_Handler):
        folder = root.resolve()

    http = Listener(("127.0.0.1", 0), Handler)
    Handler.server_ = server = Server(address=f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    folder: Path
    server_: Server
    _tags: dict[tuple[Path, int, int], str] = {}

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the log is kept, not printed."""

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        asked = unquote(urlsplit(self.path).path)
        fault = self.server_._take(asked, not body)
        if fault in ("500", "404"):
            self._status(asked, int(fault))
            return
        self._file(asked, fault, body=body)

    def _file(self, asked: str, fault: str | None, *, body: bool) -> None:
        path = (self.folder / asked.lstrip("/")).resolve()
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        if not path.is_relative_to(self.folder):
            self._status(asked, 404)
            return
        if path.is_dir():
            if not asked.endswith("/"):
                self._status(asked, 301, {"Location": asked + "/"})
                return
            wants_json = _SIMPLE_JSON in self.headers.get("Accept", "")
            path, kind = (path / "index.json", _SIMPLE_JSON) if wants_json else (path / "index.html", "text/html")
        if not path.is_file():
            self._status(asked, 404)
            return
        data = path.read_bytes()
        headers = {
            "Content-Type": kind,
            "ETag": self._tag(path, data),
            "Last-Modified": formatdate(int(path.stat().st_mtime), usegmt=True),
            "Accept-Ranges": "bytes",
            "Vary": "Accept",
        }
        if self._not_modified(headers):
            self._status(asked, 304, {key: headers[key] for key in ("ETag", "Last-Modified", "Vary")})
            return
        status, part = 200, data
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.headers.get("If-Range", headers["ETag"]) == headers["ETag"] and wanted[0] != "bytes=-":
            first, last = _range(wanted[1], wanted[2], len(data))
            if first > last:
                self._status(asked, 416, {"Content-Range": f"bytes */{len(data)}"})
                return
            status, part = 206, data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send(asked, status, headers, part, fault if body else None, body=body)

    def _send(self, asked: str, status: int, headers: dict[str, str], data: bytes, fault: str | None, *, body: bool) -> None:
        self.server_._note(Asked(self.command, asked, status))
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        half = len(data) // 2
        if fault == "flip" and data:
            data = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        try:
            self.wfile.write(data[:half])
            if fault == "truncate":
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault == "slow":
                time.sleep(self.server_.seconds)
            self.wfile.write(data[half:])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _status(self, asked: str, status: int, headers: dict[str, str] | None = None) -> None:
        self.server_._note(Asked(self.command, asked, status))
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if status != 304:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def _tag(self, path: Path, data: bytes) -> str:
        info = path.stat()
        key = (path, info.st_mtime_ns, info.st_size)
        if key not in self._tags:
            self._tags[key] = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        return self._tags[key]

    def _not_modified(self, headers: dict[str, str]) -> bool:
        if tags := self.headers.get("If-None-Match"):
            return headers["ETag"] in re.split(r"\s*,\s*", tags.replace("W/", "")) or tags.strip() == "*"
        if since := self.headers.get("If-Modified-Since"):
            try:
                return parsedate_to_datetime(headers["Last-Modified"]) <= parsedate_to_datetime(since)
            except ValueError:
                return False
        return False


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last) if last else size - 1, size - 1)
