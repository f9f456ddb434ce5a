"""Asking conda channels: what is chosen, what stays, and what is said when nothing can be."""

from __future__ import annotations

import base64
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cregraph.digest import canonical
from cregraph.kinds.conda import conda_kind as conda
from cregraph.lock.pins import Artifact, Ask, Pin, Target
from cregraph.sources.conda import Record, Request, solve
from tests.faults import GENEROUS
from tests.test_conda_kind import PREFIX, FolderSources, Made, facts, given, refused, step, target_of, write_channel

VIRTUAL = (("__archspec", "1", "x86_64"), ("__glibc", "2.34", "0"), ("__linux", "5.10", "0"), ("__unix", "0", "0"))


def ask_for(channels: dict[str, Sequence[str]], *specs: str, **more: Any) -> list[Record]:
    return solve(
        Request(
            about="conda environment /p",
            channels=channels,
            wanted=[
                Ask(kind="conda", place="/p", stage="r", what=spec, where=f"team.yaml:{20 + i}: extras.conda_r[{i}]")
                for i, spec in enumerate(specs)
            ],
            virtual=VIRTUAL,
            **more,
        )
    )


def named(records: Sequence[Record]) -> list[str]:
    return [f"{r.channel}/{r.name} {r.version}" for r in records]


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    return write_channel(
        tmp_path / "main",
        [
            Made(name="r-base", version="4.4.1", depends=["__glibc >=2.17", "libzlib >=1"], timestamp=1700000000000),
            Made(name="r-base", version="4.5.2", depends=["__glibc >=2.17", "libzlib >=1"], timestamp=1750000000000),
            Made(name="libzlib", version="1.3", depends=["__glibc >=2.17"]),
            Made(name="r-lme4", version="1.1_35", depends=["r-base >=4.4,<4.5.0a0"], timestamp=1700000000000),
            Made(name="r-lme4", version="1.1_37", depends=["r-base >=4.5,<4.6.0a0"], timestamp=1750000000000),
            Made(name="tool", subdir="noarch", noarch="generic", timestamp=1700000000000),
            Made(name="gpu", depends=["__cuda >=12"]),
        ],
    )


@contextmanager
def served(folder: Path, *, user: str = "", stumbles: int = 0, forbidden: str = "") -> Iterator[tuple[str, list[str]]]:
    """`folder` over HTTP on loopback; yields its host and port, and the requests that came.

    `user` (`name:password`) is asked for; the first `stumbles` requests get 500, and paths that hold `forbidden` 403.
    It answers If-Modified-Since with 304 and has no ETags, which is what rattler stumbles over when it uses its cache.
    """
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def send_head(self) -> Any:
            requests.append(self.path)
            status = 0
            if user and self.headers.get("Authorization") != "Basic " + base64.b64encode(user.encode()).decode():
                status = 401
            elif len(requests) <= stumbles:
                status = 500
            elif forbidden and forbidden in self.path:
                status = 403
            if not status:
                return super().send_head()
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


# -- what is chosen ----------------------------------------------------------------------------------------------------------


def test_newest_packages_that_fit_each_other_are_chosen(channel: Path) -> None:
    records = ask_for({"main": [channel.as_uri()]}, "r-lme4", "tool")
    assert named(records) == ["main/libzlib 1.3", "main/r-base 4.5.2", "main/r-lme4 1.1_37", "main/tool 1.0"]
    base = records[1]
    assert base.file == "linux-64/r-base-4.5.2-0.conda" and base.size == (channel / base.file).stat().st_size
    assert base.data["timestamp"] == 1750000000000 and base.data["depends"] == ["__glibc >=2.17", "libzlib >=1"]
    assert records[3].file == "noarch/tool-1.0-0.conda" and records[3].data["noarch"] == "generic"


def test_a_cran_version_with_a_dash_finds_what_conda_builds(channel: Path) -> None:
    target = target_of(conda.ask(step(["r-lme4=1.1-35"])))
    pins = {p.name: p for p in conda.pin(target, FolderSources(conda_forge=channel), given()).pins}
    assert pins["r-lme4"].version == "1.1_35" and pins["r-base"].version == "4.4.1"
    assert pins["r-lme4"].provides == ("conda:r-lme4 1.1_35", "r:lme4 1.1-35")
    assert pins["r-lme4"].asked == ("r: r-lme4 =1.1_35",) and pins["libzlib"].asked == ()
    assert pins["r-lme4"].needs == ("conda:r-base",) and pins["r-base"].needs == ("conda:libzlib",)


def test_the_first_channel_that_has_a_name_is_the_only_one_for_it(tmp_path: Path) -> None:
    first = write_channel(tmp_path / "first", [Made(name="x", version="1.0")])
    second = write_channel(tmp_path / "second", [Made(name="x", version="2.0"), Made(name="y", depends=["x"])])
    both = {"first": [first.as_uri()], "second": [second.as_uri()]}
    assert named(ask_for(both, "y")) == ["first/x 1.0", "second/y 1.0"]
    assert named(ask_for(dict(reversed(both.items())), "y")) == ["second/x 2.0", "second/y 1.0"]


@pytest.mark.parametrize("asks", [["x >=2"], ["y", "x >=2"], ["z"], ["z", "x >=2"]])
def test_no_version_ask_gets_a_package_past_the_channel_in_front(asks: list[str], tmp_path: Path) -> None:
    first = write_channel(tmp_path / "first", [Made(name="x", version="1.0")])
    names = [Made(name="x", version="2.0"), Made(name="y", depends=["x"]), Made(name="z", depends=["x >=2"])]
    second = write_channel(tmp_path / "second", names)
    message, hint = refused(lambda: ask_for({"first": [first.as_uri()], "second": [second.as_uri()]}, *asks))
    why = "x 2.0 is excluded because due to strict channel priority not using this option from: 'second'"
    assert message.startswith("conda environment /p: no set of packages satisfies all asks\n") and why in message
    assert str(tmp_path) not in message
    assert hint is not None and f"  {asks[-1]}  (team.yaml:{19 + len(asks)}: extras.conda_r[{len(asks) - 1}])" in hint


def test_addresses_are_tried_in_order(channel: Path, tmp_path: Path) -> None:
    gone = (tmp_path / "gone").as_uri()
    assert named(ask_for({"main": [gone, channel.as_uri()]}, "tool")) == ["main/tool 1.0"]
    with served(channel) as (host, _):
        assert named(ask_for({"main": [gone, f"http://{host}/none", f"http://{host}"]}, "tool")) == ["main/tool 1.0"]


def test_virtual_packages_are_the_bases_and_never_the_hosts(channel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.4")
    monkeypatch.setenv("CONDA_OVERRIDE_GLIBC", "2.99")
    assert conda.virtual_packages(given()) == VIRTUAL
    image = Pin(name="snowbooks", version="1", artifact=None, data={"cuda": "12.8"})  # type: ignore[arg-type]
    gpu = given(targets=(Target(kind="image", place="snowbooks", pins=(image,)),))
    assert conda.virtual_packages(gpu) == tuple(sorted([*VIRTUAL, ("__cuda", "12.8", "0")]))
    target = target_of(conda.ask(step(["gpu"])))
    sources = FolderSources(conda_forge=channel)
    assert [p.name for p in conda.pin(target, sources, gpu).pins] == ["gpu"]
    message, _ = refused(lambda: conda.pin(target, sources, given()))
    assert "__cuda >=12, for which no candidates were found" in message
    message, _ = refused(lambda: conda.pin(target_of(conda.ask(step(["r-base"]))), sources, given(facts=facts(glibc="2.12"))))
    assert "__glibc >=2.17, for which no candidates were found" in message
    message, hint = refused(lambda: conda.virtual_packages(given(facts=None)))
    assert message == "cannot choose conda packages, because the glibc of the base image is unknown"
    assert hint == "add a stage with an `image` step to `needs` of this stage"


def test_a_date_means_the_whole_day_in_utc(tmp_path: Path) -> None:
    def at(moment: datetime) -> int:
        return int(moment.timestamp() * 1000)

    day = datetime(2024, 1, 1, tzinfo=UTC)
    folder = write_channel(
        tmp_path / "c",
        [
            Made(name="x", version="1", timestamp=at(day)),
            Made(name="x", version="2", timestamp=at(day + timedelta(hours=23, minutes=59))),
            Made(name="x", version="3", timestamp=at(day + timedelta(hours=24))),
            Made(name="unstamped"),
        ],
    )
    sources = FolderSources(conda_forge=folder)
    target = target_of(conda.ask(step(["x", "unstamped"])))

    def chosen(as_of: str | None) -> str:
        return conda.pin(target, sources, given(as_of=as_of)).pins[1].version

    assert [chosen(d) for d in ("2024-01-01", "2024-01-02", None)] == ["2", "3", "3"]
    # 04:00 at +05:00 is 23:00 of the day before in UTC; rattler alone would read 04:00
    assert chosen("2024-01-02T04:00:00+05:00") == "1"
    zone = timezone(timedelta(hours=5))
    early = ask_for({"c": [folder.as_uri()]}, "x", exclude_newer=datetime(2024, 1, 2, 4, tzinfo=zone))
    assert [r.version for r in early] == ["1"]
    message, hint = refused(lambda: ask_for({"c": [folder.as_uri()]}, "x >=3", exclude_newer=day))
    assert "x 3 is excluded because the package is uploaded after the cutoff date of 2024-01-01 00:00:00" in message
    assert hint == (
        "choose a later date (packages after 2024-01-01 00:00 UTC are ignored), or change these asks:\n"
        "  x >=3  (team.yaml:20: extras.conda_r[0])"
    )


# -- what stays --------------------------------------------------------------------------------------------------------------


def test_two_solves_give_the_same_bytes(channel: Path) -> None:
    sources = FolderSources(conda_forge=channel)
    target = target_of(conda.ask(step(["r-lme4", "tool"])))

    def bytes_of(locked: tuple[Pin, ...] = ()) -> bytes:
        pins = conda.pin(target, sources, given(locked=locked)).pins
        return canonical(
            [[p.name, p.version, p.artifact.sha256, p.artifact.file, p.needs, p.provides, p.asked, p.data] for p in pins]
        )

    first = bytes_of()
    assert bytes_of() == first
    assert bytes_of(conda.pin(target, sources, given()).pins) == first


def test_what_is_locked_does_not_move(tmp_path: Path) -> None:
    old = [Made(name="x", version="1", timestamp=1723489175513), Made(name="y", version="1", depends=["x"])]
    folder = write_channel(tmp_path / "c", old)
    sources = FolderSources(conda_forge=folder)
    target = target_of(conda.ask(step(["y"])))
    locked = conda.pin(target, sources, given()).pins
    # the channel gets newer ones, and rewrites what it says of the old
    new = [Made(name="x", version="2"), Made(name="y", version="2", depends=["x"]), Made(name="z", version="2")]
    write_channel(folder, [Made(name="x", version="1", depends=["z"]), old[1], *new])
    assert conda.pin(target, sources, given(locked=locked)).pins == locked
    assert [p.version for p in conda.pin(target, sources, given()).pins] == ["2", "2"]
    free = tuple(p for p in locked if p.name != "y")
    assert [(p.name, p.version) for p in conda.pin(target, sources, given(locked=free)).pins] == [("x", "1"), ("y", "2")]
    more = target_of(conda.ask(step(["y", "z"])))
    assert [(p.name, p.version) for p in conda.pin(more, sources, given(locked=locked)).pins] == [
        ("x", "1"),
        ("y", "1"),
        ("z", "2"),
    ]
    must = target_of(conda.ask(step(["y", "x >=2"])))
    assert [(p.name, p.version) for p in conda.pin(must, sources, given(locked=locked)).pins] == [("x", "2"), ("y", "1")]
    # a file that the channel dropped stays locked
    write_channel(folder, new)
    assert conda.pin(target, sources, given(locked=locked)).pins == locked


def test_a_locked_record_yields_to_a_channel_that_was_put_in_front(tmp_path: Path) -> None:
    second = write_channel(tmp_path / "second", [Made(name="x", version="1"), Made(name="y", version="1")])
    first = write_channel(tmp_path / "first", [Made(name="x", version="0.5")])
    locked = [
        Pin(
            name=r.name,
            version=r.version,
            artifact=Artifact(kind="conda", source=r.channel, file=r.file, sha256=str(r.sha256), size=r.size or 0),
            data=r.data,
        )
        for r in ask_for({"second": [second.as_uri()]}, "x", "y")
    ]
    both = {"first": [first.as_uri()], "second": [second.as_uri()]}
    assert named(ask_for(both, "x", "y", locked=locked)) == ["first/x 0.5", "second/y 1"]


def test_digests_that_a_mirror_leaves_out_are_computed(tmp_path: Path) -> None:
    folder = write_channel(tmp_path / "c", [Made(name="x")], drop=["sha256", "size"])
    sources = FolderSources(conda_forge=folder)
    (found,) = conda.pin(target_of(conda.ask(step(["x"]))), sources, given()).pins
    assert sources.taken == ["linux-64/x-1.0-0.conda"]
    assert (found.artifact.size, len(found.artifact.sha256)) == ((folder / "linux-64/x-1.0-0.conda").stat().st_size, 64)
    assert "md5" in found.data


# -- addresses and credentials -----------------------------------------------------------------------------------------------


def test_no_address_and_no_credential_reaches_a_record_or_the_cache(channel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "repodata"
    with served(channel, user="me:hunter2") as (host, _):
        sources = FolderSources()
        sources.lead("conda-forge", f"http://me:hunter2@{host}/")
        sources.repodata = cache  # type: ignore[attr-defined]
        pins = conda.pin(target_of(conda.ask(step(["r-lme4"]))), sources, given()).pins
        text = repr(pins)
        assert len(pins) == 3 and "hunter2" not in text and host not in text and "http" not in text
        assert {p.artifact.source for p in pins} == {"conda-forge"}
    assert not any(b"hunter2" in f.read_bytes() for f in cache.rglob("*") if f.is_file())


def test_credentials_come_from_rattlers_auth_file(channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(channel, user="me:hunter2") as (host, _):
        address = f"http://{host}"
        message, hint = refused(lambda: ask_for({"private": [address]}, "tool"))
        assert message == f"channel 'private' cannot be read\n  {address}: 401 Unauthorized"
        assert hint == ("store its credentials where conda tools keep them: `RATTLER_AUTH_FILE`, ~/.netrc or the keyring")
        file = tmp_path / "auth.json"
        file.write_text(json.dumps({"127.0.0.1": {"BasicHTTP": {"username": "me", "password": "hunter2"}}}))
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(file))
        assert named(ask_for({"private": [address]}, "tool")) == ["private/tool 1.0"]


def test_a_channel_that_cannot_be_read_is_named_without_credentials(tmp_path: Path) -> None:
    with served(tmp_path) as (host, _):
        secret = f"http://me:hunter2@{host}/t/tok-123/none"
        addresses = [secret, "http://127.0.0.1:9/x", (tmp_path / "none").as_uri()]
        message, hint = refused(lambda: ask_for({"x": addresses}, "tool"))
    assert message == (
        "channel 'x' cannot be read\n"
        f"  http://…@{host}/t/…/none: 404 Not Found\n"
        "  http://127.0.0.1:9/x: Connection refused\n"
        f"  {(tmp_path / 'none').as_uri()}: there is no repodata.json for this platform"
    )
    assert hint == "check the channel's name, or its address in sources.yaml: `conda: {x: …}` in sources.yaml"


def test_a_server_that_stumbles_is_asked_again(channel: Path) -> None:
    with served(channel, stumbles=2) as (host, requests):
        assert named(ask_for({"main": [f"http://{host}"]}, "tool")) == ["main/tool 1.0"]
        assert len(requests) > 4


def test_each_lock_asks_anew_and_offline_asks_nothing(channel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "repodata"
    with served(channel) as (host, requests):
        address = f"http://{host}"
        message, hint = refused(lambda: ask_for({"main": [address]}, "x", cache=cache, offline=True))
        assert message.startswith(f"channel 'main' cannot be read\n  {address}: no usable repodata cache") and requests == []
        assert hint == "lock once without --offline: this machine has no copy of the index"
        ask_for({"main": [address]}, "tool", cache=cache)
        write_channel(channel, [Made(name="tool", version="2.0", subdir="noarch", noarch="generic")])
        assert named(ask_for({"main": [address]}, "tool", cache=cache)) == ["main/tool 2.0"]
        before = len(requests)
        assert named(ask_for({"main": [address]}, "tool", cache=cache, offline=True)) == ["main/tool 2.0"]
        assert len(requests) == before


INDEX = """
import asyncio, os, sys
from pathlib import Path
from rattler.index.index import index_fs
asyncio.run(index_fs(Path(sys.argv[1])))
os._exit(0)
"""


def test_sharded_channels_are_asked_anew_too(channel: Path, tmp_path: Path) -> None:
    def sharded() -> None:
        subprocess.run([sys.executable, "-c", INDEX, str(channel)], check=True, capture_output=True)

    sharded()
    cache = tmp_path / "repodata"
    with served(channel) as (host, requests):
        main = {"main": [f"http://{host}"]}
        first = ask_for(main, "r-lme4", "tool", cache=cache)
        assert not any(path.endswith("/repodata.json") for path in requests)
        assert [(r.file, r.sha256, r.data) for r in first] == [
            (r.file, r.sha256, r.data) for r in ask_for({"main": [channel.as_uri()]}, "r-lme4", "tool")
        ]
        Made(name="tool", version="2.0", subdir="noarch", noarch="generic").write(channel)
        sharded()
        assert "main/tool 2.0" in named(ask_for(main, "tool", cache=cache))
        before = len(requests)
        assert "main/tool 2.0" in named(ask_for(main, "tool", cache=cache, offline=True)) and len(requests) == before
    with served(channel, forbidden="shards") as (host, requests):
        assert "main/tool 2.0" in named(ask_for({"main": [f"http://{host}"]}, "tool"))


# -- what is said when there is no answer ------------------------------------------------------------------------------------


def test_asks_that_contradict_each_other_are_shown_with_their_lines(channel: Path) -> None:
    message, hint = refused(lambda: ask_for({"main": [channel.as_uri()]}, "r-base =4.5.2", "r-lme4 =1.1_35", "tool"))
    assert message == (
        "conda environment /p: no set of packages satisfies all asks\n"
        "  r-lme4 1.1_35.* cannot be installed because there are no viable options:\n"
        "  └─ r-lme4 1.1_35 would require\n"
        "     └─ r-base >=4.4,<4.5.0a0, for which no candidates were found."
    )
    assert hint == (
        "loosen or remove one of these asks:\n"
        "  r-base =4.5.2  (team.yaml:20: extras.conda_r[0])\n"
        "  r-lme4 =1.1_35  (team.yaml:21: extras.conda_r[1])"
    )


def test_a_package_that_no_channel_has_is_named_with_the_nearest(channel: Path) -> None:
    message, hint = refused(lambda: ask_for({"a": [channel.as_uri()]}, "r-bsae =4", "tool", "nothing-like-it"))
    assert message == (
        "team.yaml:22: extras.conda_r[2]: no package `nothing-like-it` in a for linux-64\n"
        "team.yaml:20: extras.conda_r[0]: no package `r-bsae` in a for linux-64"
    )
    assert hint == "check the spelling, or add the channel that has it\nwrite `r-base` instead of `r-bsae`"


def test_a_spec_that_rattler_cannot_read_is_named_by_its_line(channel: Path) -> None:
    message, _ = refused(lambda: ask_for({"a": [channel.as_uri()]}, "tool", "r-base >=>4"))
    assert (
        message == "team.yaml:21: extras.conda_r[1]: `r-base >=>4` is not a valid conda spec: unable to parse version spec: >=>4"
    )


@pytest.mark.parametrize(
    "change",
    [{"name": "../x"}, {"version": "1/../../x"}, {"build": "../../x"}, {"subdir": "../../etc"}, {"sha256": "../x"}, {"md5": "z"}],
)
def test_an_index_that_leads_elsewhere_gets_nowhere(change: dict[str, str], tmp_path: Path) -> None:
    folder = write_channel(tmp_path / "c", [Made(name="x")])
    path = folder / "linux-64/repodata.json"
    data = json.loads(path.read_text())
    (record,) = data["packages.conda"].values()
    record.update(change)
    path.write_text(json.dumps(data))
    refused(lambda: ask_for({"c": [folder.as_uri()]}, "x"))


@pytest.mark.parametrize("file", ["../../x-1.0-0.conda", "x-1.0-0/../../y.conda", "/etc/x-1.0-0.conda"])
def test_a_file_name_that_leads_elsewhere_is_refused(file: str, tmp_path: Path) -> None:
    folder = write_channel(tmp_path / "c", [Made(name="x")])
    path = folder / "linux-64/repodata.json"
    data = json.loads(path.read_text())
    data["packages.conda"] = {file: next(iter(data["packages.conda"].values()))}
    path.write_text(json.dumps(data))
    refused(lambda: ask_for({"c": [folder.as_uri()]}, "x"))


# -- the worker --------------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_without_an_answer_is_said_so(channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cregraph.sources import conda as source

    dying = tmp_path / "worker.py"
    dying.write_text("import os, sys\nprint('token http://me:pw@h.example/', file=sys.stderr, flush=True)\nos.abort()\n")
    monkeypatch.setattr(source, "_WORKER", dying)
    message, hint = refused(lambda: ask_for({"a": [channel.as_uri()]}, "tool"))
    assert message == "conda environment /p: the conda solver stopped without an answer\ntoken http://…@h.example/"
    assert hint == "run the command again. If the error stays, report it with this text"


def test_a_crash_after_the_answer_changes_nothing(channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cregraph.sources import conda as source

    crashing = tmp_path / "worker.py"
    text = source._WORKER.read_text()
    crashing.write_text(text.replace("    os._exit(0)\n", "    os.kill(os.getpid(), 11)\n"))
    monkeypatch.setattr(source, "_WORKER", crashing)
    assert named(ask_for({"a": [channel.as_uri()]}, "tool")) == ["a/tool 1.0"]


WAITING = """
import sys
from pathlib import Path
from cregraph.sources import conda as source
from cregraph.sources.conda import Request, solve
source._WORKER = Path(sys.argv[1])
solve(Request(about="x", channels={"a": ["file:///none"]}, wanted=[], virtual=()))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_worker_does_not_outlive_who_asked(how: signal.Signals, tmp_path: Path) -> None:
    from cregraph.sources import conda as source

    note = tmp_path / "pid"
    slow = tmp_path / "worker.py"
    text = source._WORKER.read_text()
    wait = f"    import time\n    open({str(note)!r}, 'w').write(str(os.getpid()))\n    time.sleep(60)\n    try:\n"
    assert text.count("    try:\n        answer = asyncio.run") == 1
    slow.write_text(text.replace("    try:\n        answer = asyncio.run", f"{wait}        answer = asyncio.run"))
    # in a session of its own, so that the signal reaches the one that asked and not its worker
    asking = subprocess.Popen([sys.executable, "-c", WAITING, str(slow)], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        pid = int(_when(lambda: note.read_text() if note.exists() else ""))
        asking.send_signal(how)
        assert asking.wait(GENEROUS) != 0
        _when(lambda: "" if _alive(pid) else "gone")
    finally:
        asking.kill()
        asking.wait()


def _when(look: Any) -> str:
    end = time.monotonic() + GENEROUS
    while time.monotonic() < end:
        if found := look():
            return str(found)
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_pins_are_placed_where_they_were_asked_for(channel: Path) -> None:
    asks = [*conda.ask(step(["r-base =4.5.2"])), *conda.ask(step(["tool"]))]
    assert {a.target for a in asks} == {f"conda:{PREFIX}"}
    target = conda.pin(target_of(asks), FolderSources(conda_forge=channel), given())
    assert [p.asked for p in target.pins] == [(), ("r: r-base =4.5.2",), ("r: tool",)]
