"""A Docker engine that only says what a test wants, over a Unix socket or TLS."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

VERSION = {"ApiVersion": "1.45", "MinAPIVersion": "1.24", "Version": "26.1"}


@dataclass
class Answer:
    """A status and a body (JSON, or bytes as they are); `cut`: the connection breaks off before the body's end; `reads`: all that
    is sent is read first."""

    status: int = 200
    body: Any = b""
    cut: bool = False
    reads: bool = False


class SmallEngine:
    """Answers `GET /version`, and all else as `answer(method, path)` says. To be used as a context manager.

    `path`: a Unix socket; with `tls` a port of this machine.
    """

    def __init__(
        self, answer: Callable[[str, str], Answer], *, path: Path | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(handler) -> str:
                return "test"

            def log_message(handler, *_: object) -> None:
                pass

            def do_GET(handler) -> None:
                where = handler.path.partition("?")[0]
                self.asked.append(f"{handler.command} {where}")
                given = Answer(body=VERSION) if where == "/version" else answer(handler.command, where)
                if where == "/version" and (other := answer("GET", where)).body:
                    given = other
                if given.reads:
                    handler.rfile.read()
                body = given.body if isinstance(given.body, bytes) else json.dumps(given.body).encode()
                handler.send_response(given.status)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Transfer-Encoding", "chunked")
                handler.send_header("Connection", "close")
                handler.end_headers()
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if body else b"")
                handler.wfile.write(b"" if given.cut else b"0\r\n\r\n")
                handler.close_connection = True

            do_POST = do_PUT = do_DELETE = do_GET

        class Threads(socketserver.ThreadingMixIn):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that went away

        class Unix(Threads, socketserver.UnixStreamServer):
            pass

        class Tcp(Threads, socketserver.TCPServer):
            allow_reuse_address = True

        self._server: Any = Unix(str(path), Handler) if path else Tcp(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = f"unix://{path}" if path else f"tcp://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> SmallEngine:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
