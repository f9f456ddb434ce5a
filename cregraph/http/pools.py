"""Pools of connections, through the proxies that the environment names."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    import urllib3

__all__ = ["AGENT", "Pools"]

#: What every request says of its sender.
AGENT = "cregraph"


class Pools:
    """One pool per proxy, each with up to `size` connections to a host. Safe with many threads."""

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

    def _pool(self, proxy: str) -> urllib3.PoolManager:
        import urllib3

        if not proxy:
            return urllib3.PoolManager(num_pools=16, maxsize=self._size)
        parts = urlsplit(proxy)
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username is not None else None
        headers = urllib3.make_headers(proxy_basic_auth=pair) if pair else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, num_pools=16, maxsize=self._size)
