"""Connections to OpenAI-compatible servers: where they may lead, and what goes along with a request."""

import asyncio
import socket
import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from millm.public_hosts import require_public

CONNECT_S = 5.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OWN_HEADERS = ("host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent")
PUBLIC_ONLY = "A miLLM on Hugging Face Spaces, which anybody may use, asks public servers only."
# A peer that is gone without a word is noticed after a minute, where the system lets one say so.
ALIVE = (
    ("SO_KEEPALIVE", socket.SOL_SOCKET, 1),
    ("TCP_KEEPIDLE", socket.IPPROTO_TCP, 20),
    ("TCP_KEEPINTVL", socket.IPPROTO_TCP, 10),
    ("TCP_KEEPCNT", socket.IPPROTO_TCP, 4),
)


def open_http(address: str, key: str | None, tls: ssl.SSLContext, public_only: bool) -> httpx2.AsyncClient:
    """A client for one server: it shows the key to nobody else, and follows no redirects.

    public_only: hosts that are not on the public internet are refused with `InvalidUrl`.
    """

    async def only_ours(request: httpx2.Request) -> None:
        """Keeps back what OpenAI's client takes from the environment: a key, an organisation, headers for OpenAI."""
        for name in {name.lower() for name in request.headers} - set(OWN_HEADERS):
            del request.headers[name]
        if key:
            request.headers["Authorization"] = f"Bearer {key}"

    proxy = _proxy(address)
    kind = _PublicOnly if public_only else httpx2.AsyncHTTPTransport
    transport = kind(verify=tls, proxy=proxy, socket_options=_keep_alive())
    if isinstance(transport, _PublicOnly):
        transport.direct = proxy is None
    return httpx2.AsyncClient(
        transport=transport,
        timeout=httpx2.Timeout(None, connect=CONNECT_S),
        follow_redirects=False,
        event_hooks={"request": [only_ours]},
    )


class _PublicOnly(httpx2.AsyncHTTPTransport):
    """Connects only to hosts on the public internet, and to the very address that was checked.

    direct: no proxy is in between, which would look the name up itself.
    """

    direct = True

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends a request. Raises `InvalidUrl` if the host is not public."""
        host, loop = request.url.host, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpx2.ConnectError(str(error)) from error
        addresses = [str(entry[4][0]) for entry in found]
        require_public(host, *addresses, why=PUBLIC_ONLY)
        if not self.direct:
            return await super().handle_async_request(request)
        request.extensions = {**request.extensions, "sni_hostname": host}
        for place, address in enumerate(addresses, start=1):
            request.url = request.url.copy_with(host=address)
            try:
                return await super().handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if place == len(addresses):
                    raise
        raise httpx2.ConnectError(f"no address of {host}")


def _keep_alive() -> list[tuple[int, int, int]]:
    return [(level, getattr(socket, name), value) for name, level, value in ALIVE if hasattr(socket, name)]


def _proxy(address: str) -> str | None:
    """The proxy that the environment names for an address; never one for this machine itself."""
    parts = urlsplit(address)
    if parts.hostname in LOOPBACK or proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
