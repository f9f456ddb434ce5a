"""The one policy for requests that fail in passing: which failures are tried again, when, and how they are named."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import urllib3

__all__ = ["PAUSES", "Passing", "Retries", "check_passing", "reason"]

T = TypeVar("T")

#: Seconds before each further try.
PAUSES = (0.3, 1.0, 3.0, 8.0)
#: Seconds of `Retry-After` that are waited at most.
LONGEST = 60.0


class Passing(Exception):
    """A failure that a further try may mend. `after` are the seconds that the server asks to wait, 0 if it does not."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class Retries:
    """How often a request is tried. Tests give a `sleep` that does not wait."""

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
        if failures > len(self._pauses):
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
    """`Retry-After` (RFC 9110, 10.2.3) in seconds from now; 0 if it says nothing."""
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
