"""A registry of the distribution specification in memory, on loopback, that can be told to misbehave."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.made_images import MANIFEST, Made

USER, PASSWORD, TOKEN = "who", "s3cret-passw0rd", "t0ken-of-the-test"


class SmallRegistry:
    """`fail[METHOD]` answers 500 so often; `cut` ends so many blob downloads in the middle; `break_uploads` so many PATCHes.

    `auth="scoped"` gives tokens for the scopes that are asked for, not for repositories in `closed`. Without `mounts`
    every mount is answered by an upload (202). With `stall` a long PATCH is read by half, `stalled` is set, and once `go` is set
    the connection ends there.
    """

    def __init__(self, auth: str = "") -> None:
        self.auth = auth
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.fail: Counter[str] = Counter()
        self.cut = 0
        self.break_uploads = 0
        self.ranges = True
        self.longest_patch = 1 << 40
        self.mounts = True
        self.closed: set[str] = set()
        self.stall = False
        self.stalled, self.go = threading.Event(), threading.Event()
        self.storage = ""  # a host that blobs are redirected to
        self.overruled: dict[str, bytes] = {}  # by tag: what another writer puts there right after the first PUT
        self.stated = ""  # what it says that the digest of every manifest is
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        registry = self

        class Handler(_Handler):
            owner = registry

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> SmallRegistry:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def hold(self, repository: str, tag: str, *images: Made, index: bytes | None = None) -> None:
        for image in images:
            self.blobs.update({(repository, name): data for name, data in image.blobs.items()})
            self.manifests[repository, image.digest] = image.manifest
        self.manifests[repository, tag] = index or images[0].manifest


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        pass  # a client that hangs up is what some tests are about


class _Handler(BaseHTTPRequestHandler):
    owner: SmallRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: else each answer may wait for an acknowledgement

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("length", str(len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        owner = self.owner
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        if self.command == "PATCH" and owner.break_uploads:
            owner.break_uploads -= 1
            place = parts.path.rpartition("/")[2]
            owner.uploads[place] += self.rfile.read(min(size, 3 << 20))
            self.close_connection = True
            self.connection.close()
            return None
        if self.command == "PATCH" and owner.stall and size > 4 << 20:
            owner.stall = False
            owner.uploads[parts.path.rpartition("/")[2]] += self.rfile.read(size // 2)
            owner.stalled.set()
            owner.go.wait(60)
            self.close_connection = True
            self.connection.close()
            return None
        body = self.rfile.read(size)
        if len(body) < size:  # the client was killed while it sent
            self.close_connection = True
            return None
        owner.asked.append(f"{self.command} {self.path}")
        owner.headers.append(dict(self.headers))
        if owner.fail[self.command]:
            owner.fail[self.command] -= 1
            return self.answer(500)
        if parts.path == "/token":
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {pair}":
                return self.answer(401)
            if owner.auth == "scoped":
                asked = [scope for scope in parse_qs(parts.query).get("scope", []) if scope.split(":")[1] not in owner.closed]
                token = base64.urlsafe_b64encode(" ".join(["granted", *asked]).encode()).decode()
                return self.answer(200, b'{"token": "%s"}' % token.encode())
            return self.answer(200, b'{"token": "%s"}' % TOKEN.encode())
        if not self.allowed():
            return None
        if parts.path == "/v2/":
            return self.answer(200)
        repository, what, name = self.parse(parts.path)
        if owner.auth == "scoped" and not self.may(repository, "pull" if self.command in ("GET", "HEAD") else "push"):
            realm = f'Bearer realm="http://{owner.host}/token",service="small",scope="repository:{repository}:pull"'
            return self.answer(401, WWW_Authenticate=realm)
        if what == "manifests":
            return self.manifest(repository, name, body)
        if what == "uploads":
            return self.upload(repository, name, query, body)
        return self.blob(repository, name)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any

    def allowed(self) -> bool:
        sent = self.headers.get("Authorization", "")
        if self.owner.auth == "bearer" and sent != f"Bearer {TOKEN}":
            realm = f'Bearer realm="http://{self.owner.host}/token",service="small",scope="x"'
            self.answer(401, WWW_Authenticate=realm)
            return False
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.owner.auth == "basic" and sent != f"Basic {pair}":
            self.answer(401, WWW_Authenticate='Basic realm="small"')
            return False
        return True

    def may(self, repository: str, what: str) -> bool:
        """Whether the token of this request holds that right."""
        try:
            scopes = base64.urlsafe_b64decode(self.headers.get("Authorization", "").removeprefix("Bearer ")).decode().split()
        except ValueError:
            return False
        rights = [scope.rpartition(":")[2].split(",") for scope in scopes if scope.startswith(f"repository:{repository}:")]
        return any(what in granted for granted in rights)

    def parse(self, path: str) -> tuple[str, str, str]:
        rest = path.removeprefix("/v2/")
        for what in ("/manifests/", "/blobs/uploads/", "/blobs/"):
            if what in rest:
                repository, _, name = rest.partition(what)
                return repository, what.strip("/").rpartition("/")[2], name
        return rest, "", ""

    def manifest(self, repository: str, name: str, body: bytes) -> None:
        if self.command == "PUT":
            stated = "sha256:" + hashlib.sha256(body).hexdigest()
            self.owner.manifests[repository, name] = self.owner.manifests[repository, stated] = body
            if other := self.owner.overruled.pop(name, None):
                self.owner.manifests[repository, name] = other
            return self.answer(201, Docker_Content_Digest=stated)
        data = self.owner.manifests.get((repository, name))
        if data is None:
            return self.answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
        stated = self.owner.stated or "sha256:" + hashlib.sha256(data).hexdigest()
        return self.answer(200, data, Content_Type=MANIFEST, Docker_Content_Digest=stated)

    def blob(self, repository: str, name: str) -> None:
        data = self.owner.blobs.get((repository, name))
        if data is None:
            return self.answer(404)
        if self.owner.storage:
            return self.answer(307, Location=f"http://{self.owner.storage}{self.path}")
        start = 0
        asked = self.headers.get("Range")
        if asked and self.owner.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if self.command == "GET" and self.owner.cut:
            self.owner.cut -= 1
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.close_connection = True
            return None
        if start:
            return self.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        return self.answer(200, data)

    def upload(self, repository: str, place: str, query: dict[str, str], body: bytes) -> None:
        owner = self.owner
        if self.command == "POST":
            may = owner.mounts and "mount" in query and (owner.auth != "scoped" or self.may(query["from"], "pull"))
            if may and (query["from"], query["mount"]) in owner.blobs:
                owner.blobs[repository, query["mount"]] = owner.blobs[query["from"], query["mount"]]
                return self.answer(201)
            place = secrets.token_hex(8)
            owner.uploads[place] = bytearray()
            return self.answer(202, Location=f"/v2/{repository}/blobs/uploads/{place}")
        here = f"/v2/{repository}/blobs/uploads/{place}"
        if self.command == "GET":
            if place not in owner.uploads:
                return self.answer(404)
            return self.answer(204, Location=here, Range=f"0-{max(0, len(owner.uploads[place]) - 1)}")
        if self.command == "DELETE":
            del owner.uploads[place]
            return self.answer(204)
        if self.command == "PATCH":
            if len(body) > owner.longest_patch:
                return self.answer(413)
            stated = self.headers.get("Content-Range")
            if stated and int(stated.partition("-")[0]) != len(owner.uploads[place]):
                return self.answer(416)
            owner.uploads[place] += body
            return self.answer(202, Location=here)
        whole = bytes(owner.uploads.pop(place)) + body
        if "sha256:" + hashlib.sha256(whole).hexdigest() != query["digest"]:
            return self.answer(400, b'{"errors": [{"code": "DIGEST_INVALID"}]}')
        owner.blobs[repository, query["digest"]] = whole
        return self.answer(201)
