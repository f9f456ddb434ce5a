"""HTTP exchange with a registry: login, retries, and messages that a user can act on.

The token flow is that of the distribution specification (`WWW-Authenticate: Bearer realm=…,service=…,scope=…`), with Basic and
OAuth 2 refresh tokens as Docker uses them. Credentials go only to the registry and to the realm that it names. They never
follow a redirect to another host, and never go over plain HTTP to another machine.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from cregraph.errors import CregraphError
from cregraph.http import AGENT, Passing, Pools, Retries, check_passing, reason
from cregraph.image.media.registry_credentials import Credentials, docker_credentials
from cregraph.image.model.reference import address, is_local
from cregraph.text import printable

if TYPE_CHECKING:
    import urllib3

__all__ = ["Exchange", "NotInRegistry", "Unauthorized"]

T = TypeVar("T")

_SAID_LIMIT = 64 << 10


class NotInRegistry(CregraphError):
    """Error: the registry does not have the requested object."""


class Unauthorized(CregraphError):
    """Error: the registry requires a login, or the login lacks a permission."""


class Exchange:
    """Requests to one registry. Safe with many threads.

    `host` is as in a reference. `plain_http` None means plain HTTP on this machine only, as in Docker. Tests pass `credentials`
    and `retries`.
    """

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool | None = None,
        credentials: Callable[[str], Credentials] = docker_credentials,
        retries: Retries | None = None,
    ) -> None:
        self.host = host
        self.retries = retries or Retries()
        plain = is_local(host) if plain_http is None else plain_http
        self.base = f"{'http' if plain else 'https'}://{address(host)}"
        self._credentials = credentials
        self._known: Credentials | None = None
        self._tokens: dict[str, str] = {}
        self._guard = threading.Lock()
        self._pools = Pools(size=8)

    def request(
        self,
        method: str,
        path: str,
        *,
        about: str,
        scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        expect: tuple[int, ...] = (200,),
        patient: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """Return the response with its body unread; the caller closes it. `path` may be a full URL (an upload's location).

        With `patient`, 5xx, 429 and broken connections are retried; `body` must then be bytes or None. Otherwise they raise
        Passing. Raises NotInRegistry, Unauthorized or CregraphError, naming host and `about`, for any other status.
        """

        def once() -> urllib3.BaseHTTPResponse:
            url = urljoin(self.base, path)
            response = self._send(method, url, headers or {}, body, self._authorization(url, scopes))
            elsewhere = response.retries is not None and any(step.redirect_location for step in response.retries.history)
            if response.status == 401 and self._ours(url) and not elsewhere:  # a storage host's 401 is not the registry's
                challenge = response.headers.get("WWW-Authenticate", "")
                response.close()
                self._log_in(challenge, scopes, about)
                if body is not None and not isinstance(body, bytes):
                    raise Passing("the registry asked for a token")  # the body is consumed; the next try has the token
                response = self._send(method, url, headers or {}, body, self._authorization(url, scopes))
            if response.status not in expect:
                raise self._refusal(response, about)
            return response

        return self.patiently(once, about=about) if patient else once()

    def patiently(self, attempt: Callable[[], T], *, about: str) -> T:
        """Return the result of `attempt`, retried after each Passing. Raises CregraphError after the last try."""
        try:
            return self.retries.run(attempt)
        except Passing as error:
            raise self.failed(about, str(error)) from None

    def wait(self, failures: int, error: Passing, *, about: str) -> None:
        """Wait after that many `failures` in a row. Raises CregraphError if no try is left."""
        try:
            self.retries.wait(failures, error)
        except Passing:
            raise self.failed(about, str(error)) from None

    def failed(self, about: str, why: str) -> CregraphError:
        hint = "check the network, and the host's name in sources.yaml. The next run continues the transfer"
        if self.base.startswith("https:") and ("SSL" in why or "record layer" in why or "wrong version" in why.lower()):
            hint = "set `plain_http: true` next to its host in sources.yaml if this registry uses plain HTTP"
        return CregraphError(f"{self.host}: {about}: {why}", hint)

    def read(self, response: urllib3.BaseHTTPResponse, limit: int, *, about: str) -> bytes:
        """Return the body. Raises CregraphError if it exceeds `limit` bytes, Passing if the connection breaks."""
        import urllib3

        try:
            data = b""
            while len(data) <= limit and (more := response.read(min(limit + 1 - len(data), 1 << 20), decode_content=False)):
                data += more
        except urllib3.exceptions.HTTPError as error:
            raise Passing(reason(error)) from None
        finally:
            response.close()
        if len(data) > limit:
            raise CregraphError(f"{self.host}: {about}: is larger than the {limit >> 20} MiB that are accepted")
        return data

    def _refusal(self, response: urllib3.BaseHTTPResponse, about: str) -> CregraphError:
        """Return the error for the status of `response`. Raises Passing if a further try may change it."""
        status = response.status
        said = self._said(response)
        check_passing(response, f"HTTP {status}{said}")
        if status == 401:
            with self._guard:
                self._tokens.clear()
                self._known = None
            return Unauthorized(
                f"{self.host}: {about}: the registry asks for a login (HTTP 401){said}", f"run `docker login {self.host}`"
            )
        if status == 403:
            return Unauthorized(
                f"{self.host}: {about}: this login does not have permission (HTTP 403){said}",
                f"ask for permission (in Snowflake: READ or WRITE on the image repository), or run `docker login {self.host}`",
            )
        if status == 404:
            return NotInRegistry(f"{self.host}: {about}: does not exist (HTTP 404){said}", "check its name and tag")
        return CregraphError(f"{self.host}: {about}: HTTP {status}{said}")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None, authorization: str | None
    ) -> urllib3.BaseHTTPResponse:
        sent = {**headers, "Authorization": authorization} if authorization else headers
        seconds = 90 if body is None else 300
        return self._pools.request(method, url, sent, body=body, seconds=seconds, direct=is_local(self.host))

    def _ours(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self.base)[:2]

    def _authorization(self, url: str, scopes: tuple[str, ...]) -> str | None:
        if not self._ours(url):
            return None  # an upload URL on another host carries its own permission
        with self._guard:
            return self._tokens.get(" ".join(scopes)) or self._tokens.get("basic")

    def _who(self) -> Credentials:
        if self._known is None:
            self._known = self._credentials(self.host)
        return self._known

    def _log_in(self, challenge: str, scopes: tuple[str, ...], about: str) -> None:
        scheme, _, rest = challenge.strip().partition(" ")
        fields = {name.lower(): value for name, value in re.findall(r'([A-Za-z]+)="([^"]*)"', rest)}
        who = self._who()
        login = f"run `docker login {self.host}`"
        if scheme.lower() == "basic":
            with self._guard:
                known = self._tokens.get("basic")
            if not who or not who.user or known == who.basic():
                raise Unauthorized(
                    f"{self.host}: {about}: {'the registry refuses the login' if who else 'login required'}", login
                )
            self._refuse_plain(self.base, about)
            with self._guard:
                self._tokens["basic"] = who.basic()
            return
        realm = fields.get("realm", "")
        if scheme.lower() != "bearer" or urlsplit(realm).scheme not in ("http", "https"):
            raise Unauthorized(f"{self.host}: {about}: requires an unknown kind of login (`{scheme[:40]}`)", login)
        wanted = scopes or ((fields["scope"],) if fields.get("scope") else ())
        if who:
            self._refuse_plain(realm, about)
        token = self.patiently(lambda: self._token(realm, fields.get("service", ""), wanted, who, about), about=about)
        with self._guard:
            self._tokens[" ".join(scopes)] = f"Bearer {token}"

    def _token(self, realm: str, service: str, scopes: tuple[str, ...], who: Credentials, about: str) -> str:
        if who.identity:
            form = {"grant_type": "refresh_token", "service": service, "client_id": AGENT, "scope": " ".join(scopes)}
            body = urlencode({**form, "refresh_token": who.identity}).encode()
            response = self._send("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body, None)
        else:
            query = urlencode([("service", service)] * bool(service) + [("scope", scope) for scope in scopes])
            url = f"{realm}{'&' if '?' in realm else '?'}{query}"
            response = self._send("GET", url, {}, None, who.basic() if who else None)
        status = response.status
        if status != 200:
            response.close()
            check_passing(response, f"the token service answers HTTP {status}")
            said = "the registry refuses the login" if who else "login required"
            raise Unauthorized(f"{self.host}: {about}: {said} (HTTP {status})", f"run `docker login {self.host}`")
        try:
            answer = json.loads(self.read(response, 1 << 20, about=about))
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise CregraphError(f"{self.host}: {about}: its token service does not return a token")
        return token

    def _refuse_plain(self, url: str, about: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_local(parts.netloc) and not self.base.startswith("http:"):
            raise CregraphError(
                f"{self.host}: {about}: requests the login for {parts.hostname} without encryption; cregraph did not send it"
            )

    def _said(self, response: urllib3.BaseHTTPResponse) -> str:
        """Return the registry's error text (`errors[0]` of the specification) after a colon; empty without one."""
        try:
            error = json.loads(self.read(response, _SAID_LIMIT, about=""))["errors"][0]
            text = " ".join(" ".join(str(error[name]) for name in ("code", "message") if error.get(name)).split())
        except (Passing, CregraphError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return ""
        return f": {printable(text, 200)}" if text else ""
