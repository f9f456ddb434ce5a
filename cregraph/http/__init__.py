"""Requests over HTTP: pools of connections, and the one policy for requests that fail in passing."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    import urllib3

__all__ = ["AGENT", "PAUSES", "Passing", "Pools", "Retries", "check_passing", "reason"]

T = TypeVar("T")

#: The User-Agent of every request.
AGENT = "cregraph"
#: Seconds before each further try.
PAUSES = (0.3, 1.0, 3.0, 8.0)
#: Further tries where no connection was made.
_UNCONNECTED = 2
#: Seconds of `Retry-After` that are waited at most.
LONGEST = 60.0


class Pools:
    """A pool for each proxy that the environment names, with up to `size` connections to a host. Safe with many threads."""

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._made: dict[str, urllib3.PoolManager] = {}
        self._guard = threading.Lock()

    def of(self, url: str, *, direct: bool = False) -> urllib3.PoolManager:
        """Return the pool for `url`. With `direct` no proxy is used."""
        parts = urlsplit(url)
        proxies = {} if direct else getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if proxy and proxy_bypass(parts.hostname or ""):
            proxy = ""
        with self._guard:
            if proxy not in self._made:
                self._made[proxy] = self._pool(proxy)
            return self._made[proxy]

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: bytes | Iterable[bytes] | None = None,
        seconds: float,
        direct: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Return the response of one try, its body unread. GET and HEAD follow redirects. `seconds` limit the wait for bytes.

        Raises Passing, without an address, if the connection fails.
        """
        import urllib3

        follows = 8 if method in ("GET", "HEAD") else 0
        try:
            return self.of(url, direct=direct).request(
                method,
                url,
                headers={"User-Agent": AGENT, "Accept-Encoding": "identity", **headers},
                body=body,
                preload_content=False,
                timeout=urllib3.Timeout(connect=20, read=seconds),
                retries=urllib3.Retry(
                    total=8,
                    connect=0,
                    read=0,
                    redirect=follows,
                    status=0,
                    other=0,
                    raise_on_redirect=follows > 0,
                    raise_on_status=False,
                ),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            made = not isinstance(getattr(error, "reason", error), urllib3.exceptions.NewConnectionError)
            raise Passing(reason(error), connected=made) from None

    def _pool(self, proxy: str) -> urllib3.PoolManager:
        import urllib3

        if not proxy:
            return urllib3.PoolManager(num_pools=16, maxsize=self._size)
        parts = urlsplit(proxy)
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username is not None else None
        headers = urllib3.make_headers(proxy_basic_auth=pair) if pair else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, num_pools=16, maxsize=self._size)


class Passing(Exception):
    """Error: a failure after which a further try may succeed. `after` are the seconds that the server asks to wait, or 0.

    `connected`: something accepts connections there. If not, the last tries are left out: a person waits for the message.
    """

    def __init__(self, why: str, after: float = 0.0, *, connected: bool = True) -> None:
        super().__init__(why)
        self.after = after
        self.connected = connected


class Retries:
    """The tries of a request and the pauses between them. Tests give a `sleep` that does not wait."""

    def __init__(self, pauses: tuple[float, ...] | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._pauses = PAUSES if pauses is None else pauses
        self._sleep = sleep

    def run(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, trying again after each Passing. Raises the last one."""
        failures = 0
        while True:
            try:
                return attempt()
            except Passing as error:
                failures += 1
                self.wait(failures, error)

    def wait(self, failures: int, error: Passing) -> None:
        """Wait after that many `failures` in a row; raise `error` if no try is left."""
        if failures > len(self._pauses if error.connected else self._pauses[:_UNCONNECTED]):
            raise error
        self._sleep(max(self._pauses[failures - 1], min(error.after, LONGEST)))


def check_passing(response: urllib3.BaseHTTPResponse, why: str | None = None) -> None:
    """Raise Passing for a status that a further try may change: 408, 429 and 5xx. `why` replaces `HTTP <status>`."""
    status = response.status
    if status in (408, 429) or status >= 500:
        raise Passing(why or f"HTTP {status}", _seconds(response.headers.get("Retry-After", "")))


def reason(error: Exception) -> str:
    """Return why a connection failed, without the address (which may hold a signature)."""
    whole = f"{type(error).__name__} {error!r} {getattr(error, 'reason', '')!r}"
    if found := re.search(r"certificate verify failed: ([^('\"\\]+)", whole):
        return f"no secure connection (SSL: {found[1].strip()})"
    for sign, text in (
        ("NameResolution", "the host name is not known"),
        ("Timeout", "no answer in time"),
        ("SSL", "no secure connection (SSL)"),
        ("NewConnection", "no connection"),
        ("IncompleteRead", "the connection ended early"),
        ("too many redirects", "too many redirects"),
    ):
        if sign in whole:
            return text
    return "the connection broke"


def _seconds(header: str) -> float:
    """Return `Retry-After` in seconds from now; 0 if it is empty or invalid. Source: RFC 9110, 10.2.3."""
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
