"""The one policy for requests that fail in passing."""

from __future__ import annotations

import ssl
import time
from email.utils import formatdate

import pytest
import urllib3

from cregraph.http import LONGEST, Passing, Pools, Retries, check_passing, reason


def answer(status: int, **headers: str) -> urllib3.HTTPResponse:
    return urllib3.HTTPResponse(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def after(header: str) -> float:
    with pytest.raises(Passing) as caught:
        check_passing(answer(429, Retry_After=header))
    return caught.value.after


def test_what_may_pass_is_tried_again_and_the_last_failure_is_told() -> None:
    waits: list[float] = []
    answers = iter([Passing("one"), Passing("two"), "there"])

    def attempt() -> str:
        found = next(answers)
        if isinstance(found, Passing):
            raise found
        return str(found)

    assert Retries((1, 2, 3), waits.append).run(attempt) == "there"
    assert waits == [1, 2]
    answers = iter([Passing("one"), Passing("two"), Passing("three")])
    with pytest.raises(Passing, match="three"):
        Retries((1, 2), waits.append).run(attempt)
    assert waits == [1, 2, 1, 2]


def test_other_failures_are_told_at_once() -> None:
    waits: list[float] = []
    with pytest.raises(ZeroDivisionError):
        Retries((1,), waits.append).run(lambda: 1 / 0)
    assert waits == []


def test_a_server_that_names_a_time_is_waited_for_within_a_limit() -> None:
    waits: list[float] = []
    retries = Retries((1, 1, 1), waits.append)
    for failures, asked in enumerate((0.0, 7.0, 3600.0), 1):
        retries.wait(failures, Passing("busy", asked))
    assert waits == [1, 7, LONGEST]


@pytest.mark.parametrize("status", [408, 429, 500, 503, 599])
def test_statuses_that_may_pass(status: int) -> None:
    with pytest.raises(Passing, match=f"^HTTP {status}$"):
        check_passing(answer(status))


@pytest.mark.parametrize("status", [200, 206, 301, 400, 401, 403, 404, 410, 416])
def test_statuses_that_stay(status: int) -> None:
    check_passing(answer(status))


def test_a_retry_after_is_seconds_or_a_date() -> None:
    assert after("12") == 12
    assert 20 < after(formatdate(time.time() + 30, usegmt=True)) <= 30
    for nonsense in ("", "-3", "soon", "1e9", "٣", "Wed, 99 Foo 2026 00:00:00 GMT", formatdate(0, usegmt=True)):
        assert after(nonsense) == 0


def test_a_reason_names_no_address() -> None:
    pool = urllib3.HTTPConnectionPool("secret.example")
    url = "/?token=secret"
    certificate = ssl.SSLCertVerificationError(1, "[SSL: X] certificate verify failed: self-signed certificate (_ssl.c:1)")
    for error, said in (
        (urllib3.exceptions.ReadTimeoutError(pool, url, "x"), "no answer in time"),
        (urllib3.exceptions.MaxRetryError(pool, url, urllib3.exceptions.NewConnectionError(pool, "x")), "no connection"),  # type: ignore[arg-type]
        (urllib3.exceptions.IncompleteRead(1, 2), "the connection ended early"),
        (
            urllib3.exceptions.MaxRetryError(pool, url, urllib3.exceptions.SSLError(certificate)),
            "no secure connection (SSL: self-signed certificate)",
        ),
        (urllib3.exceptions.ProtocolError("Connection aborted."), "the connection broke"),
    ):
        assert reason(error) == said


def test_a_proxy_of_the_environment_gets_its_login_and_is_left_out_where_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:p%40ss@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "inside.example")
    pools = Pools(size=2)
    proxied = pools.of("http://outside.example/x")
    assert isinstance(proxied, urllib3.ProxyManager)
    assert proxied.proxy_headers == urllib3.make_headers(proxy_basic_auth="me:p@ss")
    assert pools.of("http://outside.example/y") is proxied
    assert not isinstance(pools.of("http://inside.example/"), urllib3.ProxyManager)
    assert not isinstance(pools.of("http://outside.example/", direct=True), urllib3.ProxyManager)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "http://nowhere.invalid/x"])
def test_where_nothing_listens_the_long_pauses_are_left_out(address: str) -> None:
    waited: list[float] = []
    pools = Pools(size=1)
    with pytest.raises(Passing) as caught:
        Retries((0.3, 1.0, 3.0, 8.0), sleep=waited.append).run(lambda: pools.request("GET", address, {}, seconds=5, direct=True))
    assert not caught.value.connected
    assert waited == [0.3, 1.0]
