"""Pages of Python package indexes (HTML of PEP 503, JSON of PEP 691). The installer reads them too: only the standard library."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from cregraph.errors import CregraphError
from cregraph.text import redacted

__all__ = ["is_place", "link_to"]


def is_place(file: str) -> bool:
    """Return whether `file` has the form `numpy/numpy-2.0.0-….whl`: a distribution's normal name and a plain file name."""
    return re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?/[A-Za-z0-9][A-Za-z0-9._+!-]{0,254}", file) is not None


def link_to(file: str, data: bytes, page: str, schemes: Collection[str]) -> str | None:
    """Return the address of `file` by the page of a project with the address `page` and the bytes `data`; None if not listed.

    Raises CregraphError for an unreadable page, and for an address with a scheme that is not in `schemes`.
    """
    for link in _links(data, page):
        url = urljoin(page, link).partition("#")[0]
        if unquote(urlsplit(url).path).rpartition("/")[2] == file:
            if urlsplit(url).scheme not in schemes:
                raise CregraphError(f"{redacted(page)} leads to `{redacted(url)}` (expected {' or '.join(schemes)})")
            return url
    return None


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _links(data: bytes, page: str) -> list[str]:
    if data.lstrip()[:1] == b"{":
        try:
            files = json.loads(data).get("files", [])
            return [str(f["url"]) for f in files if isinstance(f, dict) and "url" in f]
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise CregraphError(f"{redacted(page)} is not an index page (PEP 691): {error}") from None
    parser = _Page()
    parser.feed(data.decode("utf-8", "replace"))
    return parser.links
