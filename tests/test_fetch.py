"""Bytes from addresses, and where the names of sources lead: cregraph/sources/{fetch,routes,local,sources}.py."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.lock.pins import Artifact
from cregraph.sources.configured import ConfiguredSources
from cregraph.sources.downloads import Fetcher, NotThere
from cregraph.sources.project_files import Local
from cregraph.sources.routes import Registry, Routes, is_web_address, join, read_routes
from cregraph.store import Store
from tests.environment.serving import Server, serve

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tries follow at once; no proxy and no ~/.netrc of the machine."""
    monkeypatch.setattr("cregraph.http.PAUSES", (0, 0, 0, 0))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served" / "a").mkdir(parents=True)
    (tmp_path / "served" / "a" / "file.tar.gz").write_bytes(DATA)
    with serve(tmp_path / "served") as running:
        yield running


def fetched(fetcher: Fetcher, *addresses: str, size: int = len(DATA), sha256: str = SHA) -> Path:
    return fetcher.fetch(addresses, sha256=sha256, size=size, what="file.tar.gz")


def refusal(call: Callable[[], object]) -> CregraphError:
    with pytest.raises(CregraphError) as caught:
        call()
    return caught.value


def left(store: Store) -> list[str]:
    """What lies in the store besides locks."""
    return sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file() and "locks" not in p.parts)


# -- fetching ------------------------------------------------------------------------------------------------------------------


def test_a_download_is_an_object_and_counted(store: Store, server: Server) -> None:
    arrived: list[int] = []
    path = fetched(Fetcher(store, on_bytes=arrived.append), f"{server.address}/a/file.tar.gz")
    assert path.read_bytes() == DATA
    assert left(store) == [f"sha256/{SHA[:2]}/{SHA}"]
    assert sum(arrived) == len(DATA)
    assert fetched(Fetcher(store)) == path, "what the store has needs no address"


def test_a_download_that_was_cut_goes_on_where_it_was_also_in_a_later_run(store: Store, server: Server) -> None:
    address = f"{server.address}/a/file.tar.gz"
    server.fault("*", "truncate", times=5)
    error = refusal(lambda: fetched(Fetcher(store), address))
    assert error.message.startswith(f"file.tar.gz cannot be fetched\n  {address}: ")
    assert error.hint == "check the network and sources.yaml; the next run continues the download"
    assert left(store) == [f"partial/{SHA}"]
    arrived: list[int] = []
    fetched(Fetcher(store, on_bytes=arrived.append), address)
    assert [asked.status for asked in server.log] == [200, 206, 206, 206, 206, 206]
    assert sum(arrived) < len(DATA) / 20
    assert left(store) == [f"sha256/{SHA[:2]}/{SHA}"]


@pytest.mark.parametrize(
    "kept", [b"x" * 100, b"x" * len(DATA), b"x" * (len(DATA) + 1), DATA], ids=["part", "whole", "more", "good"]
)
def test_what_an_earlier_run_left_wrong_is_not_blamed_on_the_source(store: Store, server: Server, kept: bytes) -> None:
    (store.root / "partial").mkdir(parents=True)
    (store.root / "partial" / SHA).write_bytes(kept)
    assert fetched(Fetcher(store), f"{server.address}/a/file.tar.gz").read_bytes() == DATA


def test_addresses_are_asked_in_order_and_the_next_one_helps(store: Store, server: Server, tmp_path: Path) -> None:
    (tmp_path / "served" / "b").mkdir()
    (tmp_path / "served" / "b" / "file.tar.gz").write_bytes(b"other")
    missing, other, good = (f"{server.address}/{name}/file.tar.gz" for name in ("none", "b", "a"))
    assert fetched(Fetcher(store), missing, other, good).read_bytes() == DATA
    assert server.paths() == ["/none/file.tar.gz", "/b/file.tar.gz", "/a/file.tar.gz"]


def test_a_server_that_fails_is_asked_again_and_a_busy_one_too(store: Store, server: Server) -> None:
    server.fault("*", "500", times=4)
    fetched(Fetcher(store), f"{server.address}/a/file.tar.gz")
    assert [asked.status for asked in server.log] == [500] * 4 + [200]


def test_what_no_address_has_is_not_there(store: Store, server: Server, tmp_path: Path) -> None:
    gone = (tmp_path / "gone").as_uri()
    folder = tmp_path.as_uri()
    error = refusal(lambda: fetched(Fetcher(store), f"{server.address}/x", gone, folder))
    assert isinstance(error, NotThere)
    assert error.message == (
        f"file.tar.gz does not exist\n  {server.address}/x: HTTP 404\n  {gone}: no such file\n  {folder}: is a folder"
    )
    assert error.hint == "check the name, or the address in sources.yaml"


def test_one_address_that_cannot_be_reached_is_not_an_absence(store: Store, server: Server) -> None:
    error = refusal(lambda: fetched(Fetcher(store), f"{server.address}/x", "http://127.0.0.1:9/x"))
    assert not isinstance(error, NotThere)
    assert (
        error.message == f"file.tar.gz cannot be fetched\n  {server.address}/x: HTTP 404\n  http://127.0.0.1:9/x: no connection"
    )


def test_bytes_that_differ_are_refused_with_both_digests_and_kept_nowhere(store: Store, server: Server) -> None:
    address = f"{server.address}/a/file.tar.gz"
    wanted = hashlib.sha256(b"wanted").hexdigest()
    error = refusal(lambda: fetched(Fetcher(store), address, f"{server.address}/none", sha256=wanted))
    assert error.message == (
        f"file.tar.gz has sha256:{SHA}, but the lock pins sha256:{wanted} ({len(DATA)} bytes)\n  from {address}"
    )
    assert left(store) == []


@pytest.mark.parametrize("size", [0, 10, len(DATA) - 1])
def test_more_bytes_than_the_lock_pins_are_not_even_taken(store: Store, server: Server, size: int, tmp_path: Path) -> None:
    address = f"{server.address}/a/file.tar.gz"
    arrived: list[int] = []
    error = refusal(lambda: fetched(Fetcher(store, on_bytes=arrived.append), address, size=size))
    assert error.message == (
        f"file.tar.gz has {len(DATA)} bytes, but the lock pins sha256:{SHA} ({size} bytes)\n  from {address}"
    )
    assert arrived == []
    local = (tmp_path / "served" / "a" / "file.tar.gz").as_uri()
    error = refusal(lambda: fetched(Fetcher(store), local, size=size))
    assert error.message == (
        f"file.tar.gz has more than {size} bytes, but the lock pins sha256:{SHA} ({size} bytes)\n  from {local}"
    )
    assert left(store) == []


def test_bytes_not_known_yet_are_never_put_together_from_parts(store: Store, server: Server, tmp_path: Path) -> None:
    """The file changes after half of it arrived."""
    server.fault("*", "truncate")

    def changed(_size: int) -> None:
        (tmp_path / "served" / "a" / "file.tar.gz").write_bytes(b"y" * len(DATA))

    digest, size, path = Fetcher(store, on_bytes=changed).take([f"{server.address}/a/file.tar.gz"], what="file")
    assert path.read_bytes() == b"y" * len(DATA)
    assert (digest, size) == (hashlib.sha256(path.read_bytes()).hexdigest(), len(DATA))
    assert [asked.status for asked in server.log] == [200, 200]


def test_an_md5_that_is_not_the_index_s_is_refused_and_the_next_mirror_asked(
    store: Store, server: Server, tmp_path: Path
) -> None:
    md5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    (tmp_path / "bad").write_bytes(b"bad")
    bad, good = (tmp_path / "bad").as_uri(), f"{server.address}/a/file.tar.gz"
    assert Fetcher(store).take([bad, good], what="file", md5=md5.upper())[0] == SHA
    error = refusal(lambda: Fetcher(store).take([bad], what="file", md5=md5))
    found = hashlib.md5(b"bad", usedforsecurity=False).hexdigest()
    assert error.message == f"file has md5 {found}, but its index says {md5}\n  from {bad}"
    assert error.hint == "try again later, or name another mirror in sources.yaml: this one does not match its index"
    assert left(store) == [f"sha256/{SHA[:2]}/{SHA}"]


def test_an_index_is_asked_anew_each_time_and_has_a_bound(store: Store, server: Server) -> None:
    address = f"{server.address}/a/file.tar.gz"
    for _ in range(2):
        assert Fetcher(store).read([address], what="the index", limit=len(DATA)) == DATA
    assert len(server.log) == 2
    error = refusal(lambda: Fetcher(store).read([address], what="the index", limit=10))
    assert error.message == f"the index cannot be fetched\n  {address}: has {len(DATA)} bytes"
    assert left(store) == []


def test_offline_opens_no_connection_but_reads_files(store: Store, server: Server, tmp_path: Path) -> None:
    offline = Fetcher(store, offline=True)
    address = f"{server.address}/a/file.tar.gz"
    error = refusal(lambda: fetched(offline, address))
    assert error.message == f"file.tar.gz cannot be fetched\n  {address}: needs the network, but --offline is set"
    assert error.hint == "run once without --offline"
    assert server.log == []
    assert fetched(offline, (tmp_path / "served" / "a" / "file.tar.gz").as_uri()).read_bytes() == DATA


@pytest.mark.parametrize("address", ["http://[::1", "http://host:port/x", "http:///x", "ftp://host/x", "text", "", "http://a b/"])
def test_what_is_no_address_is_said_to_be_none(store: Store, address: str) -> None:
    error = refusal(lambda: fetched(Fetcher(store), address))
    assert error.message == f"file.tar.gz cannot be fetched\n  {address}: is not an address"


def test_a_file_that_is_none_is_not_waited_for(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    error = refusal(lambda: fetched(Fetcher(store), (tmp_path / "pipe").as_uri()))
    assert error.message == f"file.tar.gz does not exist\n  {(tmp_path / 'pipe').as_uri()}: is not a regular file"


def test_two_that_want_one_file_download_it_once(store: Store, server: Server) -> None:
    server.seconds = 0.3
    server.fault("*", "slow", times=2)
    threads = [
        threading.Thread(target=fetched, args=(Fetcher(Store(store.root)), f"{server.address}/a/file.tar.gz")) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.log) == 1


# -- credentials ---------------------------------------------------------------------------------------------------------------


@contextmanager
def asking(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server of its own mind; its address without the scheme."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("before", "netrc", "expected"),
    [
        ("", "", None),
        ("", "machine 127.0.0.1 login netrc-user password s%41cret", basic("netrc-user", "s%41cret")),
        ("us%40er:s%2Fecret@", "machine 127.0.0.1 login other password other", basic("us@er", "s/ecret")),
        ("", "machine elsewhere login other password other", None),
        ("", "this is no netrc", None),
        ("", "\xff\xfe", None),
    ],
)
def test_credentials_come_from_the_address_or_from_netrc(
    store: Store, tmp_path: Path, before: str, netrc: str, expected: str | None
) -> None:
    (tmp_path / "netrc").write_bytes(netrc.encode("latin-1"))
    got: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        got.append(handler.headers.get("Authorization"))
        send(handler, 200, DATA)

    with asking(answer) as host:
        fetched(Fetcher(store), f"http://{before}{host}/file")
    assert got == [expected]


@pytest.mark.parametrize("status", [401, 403, 404, 418, 500])
def test_no_message_holds_a_credential(store: Store, status: int) -> None:
    with asking(lambda handler: send(handler, status)) as host:
        error = refusal(lambda: fetched(Fetcher(store), f"http://user:secret@{host}/file?token=secret#secret"))
    assert f"http://…@{host}/file: HTTP {status}" in error.message
    assert "secret" not in f"{error.message}{error.hint}"
    assert "user" not in error.message
    if status in (401, 403):
        assert error.message.endswith(f"HTTP {status}: credentials are missing or wrong (they are read from ~/.netrc)")


def test_a_redirect_carries_credentials_to_no_other_host(store: Store) -> None:
    got: list[tuple[str, str | None]] = []

    def there(handler: BaseHTTPRequestHandler) -> None:
        got.append(("there", handler.headers.get("Authorization")))
        send(handler, 200, DATA)

    with asking(there) as other:

        def here(handler: BaseHTTPRequestHandler) -> None:
            got.append(("here", handler.headers.get("Authorization")))
            location = "/second" if handler.path == "/first" else f"http://{other}/file"
            send(handler, 302, Location=location)

        with asking(here) as host:
            fetched(Fetcher(store), f"http://user:secret@{host}/first")
    secret = basic("user", "secret")
    assert got == [("here", secret), ("here", secret), ("there", None)]


def test_redirects_end(store: Store) -> None:
    with asking(lambda handler: send(handler, 302, Location="/again")) as host:
        error = refusal(lambda: fetched(Fetcher(store), f"http://{host}/file"))
    assert error.message == f"file.tar.gz cannot be fetched\n  http://{host}/file: too many redirects"


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1", "1e3", ""])
def test_a_length_that_is_no_number_breaks_nothing(store: Store, length: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: " + length.encode("latin-1") + b"\r\n\r\n" + DATA)

    with asking(answer) as host:
        assert fetched(Fetcher(store), f"http://{host}/file").read_bytes() == DATA


@pytest.mark.parametrize(
    ("status", "headers"),
    [(206, {"Content_Range": "bytes 7-99/100"}), (206, {}), (206, {"Content_Range": "bytes \xb2-"}), (416, {}), (200, {})],
)
def test_a_server_that_resumes_wrongly_is_asked_for_the_whole(store: Store, status: int, headers: dict[str, str]) -> None:
    (store.root / "partial").mkdir(parents=True)
    (store.root / "partial" / SHA).write_bytes(DATA[:100])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if "Range" in handler.headers and status != 200:
            send(handler, status, DATA[:50], **headers)
        else:
            send(handler, 200, DATA)

    with asking(answer) as host:
        assert fetched(Fetcher(store), f"http://{host}/file").read_bytes() == DATA


# -- routes --------------------------------------------------------------------------------------------------------------------


def routes(text: str, folder: Path = Path("/project")) -> Routes:
    return read_routes(text, name="sources.yaml", folder=folder)


def test_routes_lead_where_the_file_says(tmp_path: Path) -> None:
    found = routes(
        """
        conda: {forge: [https://a.example/forge/, ./channel], other: file:///srv/other}
        cran: https://cran.example/{date}/
        pypi: [https://one.example/simple, https://two.example/simple]
        registry: {snowflake: {host: Host.Example:5000/, plain_http: true}, plain: host.example}
        url: {"https://github.com/": ./github/, "https://github.com/team/": "https://mirror.example/"}
        """,
        tmp_path,
    )
    here = tmp_path.as_uri()
    assert found.channel("forge") == ("https://a.example/forge", f"{here}/channel")
    assert found.channel("other") == ("file:///srv/other",)
    assert found.channel("unnamed") == ("https://conda.anaconda.org/unnamed",)
    assert found.snapshots() == ("https://cran.example/{date}",)
    assert found.pypi == ("https://one.example/simple", "https://two.example/simple")
    assert found.registry["snowflake"] == Registry(host="host.example:5000", plain_http=True)
    assert found.registry["plain"] == Registry(host="host.example")
    assert found.of_url("https://github.com/team/x.gz") == ("https://mirror.example/x.gz",)
    assert found.of_url("https://github.com/other/x.gz") == (f"{here}/github/other/x.gz",)
    assert found.of_url("https://elsewhere.example/x.gz") == ("https://elsewhere.example/x.gz",)
    assert routes("cran: ./snapshots/{date}", tmp_path).snapshots() == (f"{here}/snapshots/{{date}}",)
    assert routes("") == routes("# nothing") == Routes(origin="sources.yaml")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "- a",
            "sources.yaml: expected a mapping of conda, cran, cran_binary, pypi, image, recipes, registry, url, cache, "
            "not a list",
            None,
        ),
        ("condas: {}", "sources.yaml: unknown section `condas`", "write `conda` instead"),
        (
            "zzz: {}",
            "sources.yaml: unknown section `zzz`",
            "use one of these sections: conda, cran, cran_binary, pypi, image, recipes, registry, url, cache",
        ),
        ("conda: [a]", "sources.yaml: conda: expected a mapping", None),
        ("conda: {1: ./a}", "sources.yaml: conda: expected a mapping", None),
        ("conda: {a: []}", "sources.yaml: conda.a: expected an address or a list of addresses", None),
        ("conda: {a: [./a, 1]}", "sources.yaml: conda.a: expected an address or a list of addresses", None),
        ("cran: {a: b}", "sources.yaml: cran: expected an address or a list of addresses", None),
        ("pypi: 1", "sources.yaml: pypi: expected an address or a list of addresses", None),
        (
            "cran: user:secret@cran.example/x",
            "sources.yaml: cran: `…@cran.example/x` is not an address",
            "write https://…, http://…, file:///… or ./a/folder",
        ),
        (
            "pypi: 'http://[::1'",
            "sources.yaml: pypi: `http://[::1` is not an address",
            "write https://…, http://…, file:///… or ./a/folder",
        ),
        (
            "pypi: 'https://u:secret@h:port/x?secret'",
            "sources.yaml: pypi: `https://…@h:port/x` is not an address",
            "write https://…, http://…, file:///… or ./a/folder",
        ),
        ("registry: {a: {port: 1}}", "sources.yaml: registry.a: expected {host: NAME, plain_http: false}", None),
        ("registry: {a: {host: h, http: true}}", "sources.yaml: registry.a: expected {host: NAME, plain_http: false}", None),
        ("registry: {a: {host: h, plain_http: 'no'}}", "sources.yaml: registry.a.plain_http: expected true or false", None),
        (
            "conda: {a: 'https://u:secret@h/x}",
            "sources.yaml:1: not readable as YAML: found unexpected end of stream",
            None,
        ),
        ("cran: 2025-13-45", "sources.yaml: not readable as YAML: ValueError", None),
        ("[" * 5000, "sources.yaml: not readable as YAML: RecursionError", None),
        ("a: !!python/object:os.system {}", None, None),
        ("a: \x01", None, None),
    ],
)
def test_a_sources_file_that_is_wrong_is_refused_by_its_field(text: str, message: str | None, hint: str | None) -> None:
    error = refusal(lambda: routes(text))
    if message is not None:
        assert (error.message, error.hint) == (message, hint)
    assert error.message.startswith("sources.yaml:")
    assert "secret" not in error.message


def test_an_address_is_joined_with_what_does_not_climb() -> None:
    assert join("https://h/x/", "/a/", "", "b.gz") == "https://h/x/a/b.gz"
    assert refusal(lambda: join("https://u:p@h/x", "a/../b")).message == "'a/../b' climbs out of https://…@h/x"


@pytest.mark.parametrize("text", ["https://h", "http://h:80/x?y", "https://[::1]:5000/x", "https://u:p@h/ü"])
def test_web_addresses_are_known(text: str) -> None:
    assert is_web_address(text)


@pytest.mark.parametrize(
    "text", ["h", "file:///x", "https:///x", "http://h:0/", "http://h:99999/", "http://h/a b", "http://h/\n", "http://[x"]
)
def test_what_is_no_web_address_is_known(text: str) -> None:
    assert not is_web_address(text)


# -- the project's own files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path) -> Local:
    project, shipped = tmp_path / "project", tmp_path / "shipped"
    for path in (project / "own/deep", project / "own/__pycache__", shipped / "hook"):
        path.mkdir(parents=True)
    for path in (
        "project/own/b.py",
        "project/own/deep/a.py",
        "project/own/.hidden",
        "project/own/__pycache__/x.pyc",
        "shipped/hook/h.py",
    ):
        (tmp_path / path).write_text(path)
    (tmp_path / "outside").write_text("secret")
    return Local(project=project, shipped=shipped)


def test_files_of_project_and_recipes_are_read(local: Local) -> None:
    assert local.read("./own/b.py") == b"project/own/b.py"
    assert local.read("standard:hook/h.py") == b"shipped/hook/h.py"
    assert local.files("./own") == ("./own/b.py", "./own/deep/a.py")
    assert local.files("./own/") == ("./own/b.py", "./own/deep/a.py")
    assert local.files("./own/b.py") == ("./own/b.py",)
    assert local.files("standard:hook") == ("standard:hook/h.py",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./../outside", "`./../outside` leads out of the project"),
        ("./own/../../outside", "`./own/../../outside` leads out of the project"),
        (".//etc/passwd", "`.//etc/passwd` leads out of the project"),
        ("./link", "`./link` leads out of the project"),
        ("./folder-link/outside", "`./folder-link/outside` leads out of the project"),
        ("standard:../outside", "`standard:../outside` leads out of the recipes that ship with cregraph"),
        ("standard:/etc/passwd", "`standard:/etc/passwd` leads out of the recipes that ship with cregraph"),
        ("/etc/passwd", "`/etc/passwd` is not a path in the project"),
        ("own/b.py", "`own/b.py` is not a path in the project"),
        ("./a\0b", "`./a\0b` leads out of the project"),
    ],
)
def test_what_leads_out_of_the_project_is_refused(local: Local, tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "project" / "link").symlink_to("../outside")
    (tmp_path / "project" / "folder-link").symlink_to("..")
    assert refusal(lambda: local.read(source)).message == message
    assert refusal(lambda: local.files(source)).message == message


def test_links_inside_the_project_are_followed_and_a_folder_s_links_stay_in_it(local: Local, tmp_path: Path) -> None:
    own = tmp_path / "project" / "own"
    (own / "c.py").symlink_to("b.py")
    assert local.read("./own/c.py") == b"project/own/b.py"
    assert local.files("./own") == ("./own/b.py", "./own/c.py", "./own/deep/a.py")
    (own / "d.py").symlink_to("../../outside")
    assert refusal(lambda: local.files("./own")).message == "`./own/d.py` is a link that leads out of its folder"


def test_what_is_no_file_is_refused_and_not_waited_for(local: Local, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "project" / "pipe")
    os.mkfifo(tmp_path / "project" / "own" / "pipe")
    assert refusal(lambda: local.read("./pipe")).message == "`./pipe` is neither a file nor a folder"
    assert refusal(lambda: local.files("./own")).message == "`./own/pipe` is neither a file nor a folder"
    error = refusal(lambda: local.read("./none"))
    assert error.message == "`./none` cannot be read: No such file or directory"
    assert error.hint == "write the path relative to the profile (or recipe) that names it"
    assert refusal(lambda: local.files("./none")).message == "`./none` does not exist"


# -- the places, put together --------------------------------------------------------------------------------------------------


@pytest.fixture
def one(store: Store, local: Local, server: Server, tmp_path: Path) -> ConfiguredSources:
    (tmp_path / "served" / "forge" / "noarch").mkdir(parents=True)
    (tmp_path / "served" / "forge" / "noarch" / "x-1-0.conda").write_bytes(DATA)
    at = server.address
    text = f"conda: {{forge: [{at}/none, {at}/forge]}}\nurl: {{'https://files.invalid/': {at}/a/}}"
    return ConfiguredSources(kinds=KINDS, store=store, routes=routes(text), local=local)


def test_an_artifact_is_fetched_where_its_source_leads(one: ConfiguredSources, server: Server) -> None:
    conda = Artifact(kind="conda", source="forge", file="noarch/x-1-0.conda", sha256=SHA, size=len(DATA))
    assert one.fetch(conda).read_bytes() == DATA
    assert server.paths() == ["/none/noarch/x-1-0.conda", "/forge/noarch/x-1-0.conda"]
    url = Artifact(kind="url", source="https://files.invalid/file.tar.gz", file="", sha256=SHA, size=len(DATA))
    assert one.fetch(url) == one.fetch(conda)
    assert len(server.log) == 2, "the store has it, whoever brought it"


def test_a_damaged_object_is_fetched_or_read_anew(one: ConfiguredSources, store: Store) -> None:
    taken, path = one.take(kind="path", source="./own/b.py", file="")
    url = Artifact(kind="url", source="https://files.invalid/file.tar.gz", file="", sha256=SHA, size=len(DATA))
    for artifact in (taken, url):
        good = one.fetch(artifact).read_bytes()
        path = store.path_of(artifact.sha256)
        path.chmod(0o644)
        path.write_bytes(b"damaged")
        fresh = ConfiguredSources(kinds=KINDS, store=Store(store.root), routes=one.table, local=one.local)
        assert fresh.fetch(artifact).read_bytes() == good


def test_a_file_of_the_project_that_changed_is_refused_with_both_digests(one: ConfiguredSources, store: Store) -> None:
    locked = Artifact(kind="path", source="./own/b.py", file="", sha256=SHA, size=len(DATA))
    error = refusal(lambda: one.fetch(locked))
    found = hashlib.sha256(b"project/own/b.py").hexdigest()
    assert error.message == f"`./own/b.py` has sha256:{found}, but the lock pins sha256:{SHA}"
    assert error.hint == "run `cregraph lock` to pin the changed file"
    assert left(store) == []


def test_a_registry_without_a_name_here_says_where_to_state_it(one: ConfiguredSources) -> None:
    error = refusal(lambda: one.routes("registry", "snowflake"))
    assert error.message == "unknown registry `snowflake`"
    assert error.hint == "state its host: `registry: {snowflake: {host: …}}` in sources.yaml, or snowflake.registry_url"
