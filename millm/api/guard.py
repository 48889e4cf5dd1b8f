"""Who may talk to miLLM at all: host names, browser origins, the API key, and what browsers are told about it.

The outermost layer around the page and the API alike, because the page's framework checks none of this.
"""

import ipaddress
import logging
import re
from dataclasses import dataclass, field
from typing import Self

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millm.api.login import LOGIN_PATH, KeyCheck
from millm.api.wire import MAX_BODY_BYTES, refusal_for, too_large, under
from millm.settings import Settings, is_loopback

log = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+)(:[0-9]+)?")
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
    "frame-ancestors {frames}; base-uri 'self'; form-action 'none'"
)


@dataclass(frozen=True)
class GuardPolicy:
    """What the guard goes by.

    allowed_hosts: further names for the Host header. allowed_origins: browser origins that may call /v1, exactly
    as browsers write them. spaces: a proxy in front owns host names and origins, and shows the page in a frame.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    api_key: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    spaces: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The policy that the settings ask for."""
        return cls(
            host=settings.host,
            port=settings.port,
            api_key=settings.api_key,
            allowed_hosts=settings.allowed_hosts,
            allowed_origins=settings.allowed_origins,
            spaces=settings.spaces,
        )


class Guard:
    """ASGI middleware that refuses what the policy does not allow and marks every answer."""

    def __init__(self, app: ASGIApp, policy: GuardPolicy) -> None:
        self._app = app
        self._policy = policy
        names = (*LOOPBACK_NAMES, policy.host, *policy.allowed_hosts)
        self._hosts = frozenset(host_name(name) or name.lower() for name in names)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in policy.allowed_origins)
        self._key = KeyCheck(policy.api_key, policy.port) if policy.api_key else None
        frames = "'self' https://huggingface.co" if policy.spaces else "'none'"
        self._headers = {
            "content-security-policy": CSP.format(frames=frames),
            "x-content-type-options": "nosniff",
            # Not "no-referrer": with that, browsers send "Origin: null" when the login form is posted.
            "referrer-policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or passes it on."""
        if scope["type"] == "websocket":  # nothing here speaks WebSocket, and browsers open them across origins
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        cross_origin = self._allowed_origin(request)
        marked = self._marking(send, cross_origin)
        answer = self._refusal(request, cross_origin) or await self._at_the_door(request)
        if answer:
            await answer(scope, receive, marked)
        else:
            await self._app(scope, receive, marked if self._policy.spaces else _granting_nothing(marked))

    def _refusal(self, request: Request, cross_origin: str | None) -> Response | None:
        """The answer to a request that nobody may send, or to a browser that asks whether it may."""
        if not self._policy.spaces:
            why_not = self._wrong_host(request.headers.get("host", ""))
            if why_not:
                return _refuse(request, 400, "host_not_allowed", why_not)
            if _is_preflight(request) and not cross_origin:
                return _refuse(request, 403, "origin_not_allowed", _origin_sentence(request))
            if not cross_origin and request.method not in SAFE_METHODS and not _is_same_origin(request.headers):
                return _refuse(request, 403, "origin_not_allowed", _origin_sentence(request))
        if cross_origin and _is_preflight(request):
            return _preflight_answer(request)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            return too_large(request.scope["path"])
        return None

    async def _at_the_door(self, request: Request) -> Response | None:
        """The answer to a request that has to show the key first."""
        path = request.scope["path"]
        if self._key is None or path == "/health":
            return None
        if path == LOGIN_PATH and request.method == "POST":
            return await self._key.log_in(request)
        if self._key.allows(request):
            return RedirectResponse("/", 303) if path == LOGIN_PATH else None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return self._key.ask()
        response = refusal_for(
            path, 401, "invalid_api_key", "Missing or wrong API key. Send it as 'Authorization: Bearer KEY'."
        )
        response.headers["www-authenticate"] = "Bearer"
        return response

    def _wrong_host(self, header: str) -> str | None:
        """Why a Host header is refused. A page that rebinds its own name to this address still sends that name."""
        name = host_name(header)
        if name in self._hosts or (name and _is_address(name) and not is_loopback(self._policy.host)):
            return None
        return (
            f"This server does not answer to the host name {name or header!r}. "
            "Open it as http://localhost, or add the name to MILLM_ALLOWED_HOSTS."
        )

    def _allowed_origin(self, request: Request) -> str | None:
        """The request's origin, if it is one of those that may call /v1 from another site."""
        origin: str | None = request.headers.get("origin")
        if origin and under(request.scope["path"], "/v1") and origin.lower() in self._origins:
            return origin
        return None

    def _marking(self, send: Send, cross_origin: str | None) -> Send:
        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                for name, value in self._headers.items():
                    headers.setdefault(name, value)  # the login page has a policy of its own
                if cross_origin:
                    headers["access-control-allow-origin"] = cross_origin
                    headers["access-control-expose-headers"] = "x-request-id, retry-after"
                    headers.add_vary_header("origin")
                message["headers"] = headers.raw
            await send(message)

        return mark


def host_name(header: str) -> str | None:
    """The name in a Host header, without port and brackets, in lower case; None where there is none."""
    found = HOST.fullmatch(header.strip())
    return found[1].strip("[]").lower() if found else None


def _granting_nothing(send: Send) -> Send:
    """Drops what the app says about other origins: the page's framework gives access to any that asks."""

    async def drop(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message.get("headers", ()) if not _is_grant(name)]
            message = {**message, "headers": headers}
        await send(message)

    return drop


def _is_grant(name: bytes) -> bool:
    return name.lower().startswith(b"access-control-")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(headers: Headers) -> bool:
    """Whether no browser says that another site sent this. Programs that are no browsers say nothing."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
        return False
    return headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _is_preflight(request: Request) -> bool:
    return request.method == "OPTIONS" and "access-control-request-method" in request.headers


def _origin_sentence(request: Request) -> str:
    origin = request.headers.get("origin") or "another site"
    return f"Pages from {origin} may not call this. MILLM_ALLOWED_ORIGINS lists the origins that may call /v1."


def _refuse(request: Request, status: int, code: str, sentence: str) -> Response:
    log.warning("refused %s %r: %s", request.method, request.scope["path"], sentence)
    return refusal_for(request.scope["path"], status, code, sentence)


def _preflight_answer(request: Request) -> Response:
    headers = {
        "access-control-allow-methods": "GET, POST, OPTIONS",
        "access-control-allow-headers": request.headers.get("access-control-request-headers", "authorization"),
        "access-control-max-age": "600",
    }
    return Response(status_code=204, headers=headers)
