"""A web client: certificates, proxies, redirects. Nothing else of HTTP."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from yarl import URL

from millm.sources.addresses import PublicResolver

T = TypeVar("T")
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5
BUFFER = 256 * 1024


class BadRedirect(Exception):
    """The answers lead round and round, or to something that is no address on the web."""


class Client:
    """Sends `headers` with every request; Authorization among them never to another host after a redirect.

    connect: seconds from looking up a name to the end of the TLS handshake. stall: seconds of silence after which a
    read fails. public_only: refuses every host that is not on the public internet. Use as `async with`.
    """

    def __init__(self, headers: Mapping[str, str], connect: float, stall: float, public_only: bool = False) -> None:
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._connect = connect
        self._resolver = PublicResolver(_proxy_hosts()) if public_only else None
        context = httpx2.create_ssl_context()  # the certificates that huggingface_hub trusts
        context.set_alpn_protocols(["http/1.1"])
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context, resolver=self._resolver),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_read=stall),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=BUFFER,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @asynccontextmanager
    async def open(
        self, address: str, span: Mapping[str, str], method: str = "GET"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends a request, `span` being its Range header or nothing, and follows where the answer leads.

        Raises:
            BadRedirect, aiohttp.ClientError, TimeoutError
            InvalidUrl: a host on the way is not public, and only such are allowed.
        """
        # aiohttp's own way would take credentials from ~/.netrc along with the proxies, and re-quote signed links.
        url, headers = URL(address, encoded=True), {**self._headers, **span}
        for _ in range(1 + MOST_REDIRECTS):
            if self._resolver:
                await self._resolver.check(url.host or "", self._connect)
            request = self._session.request(method, url, headers=headers, allow_redirects=False, proxy=_proxy(url))
            async with request as response:
                if response.status not in REDIRECTS:
                    yield response
                    return
                target = _redirected(url, response.headers.get("Location", ""))
            if target.origin() != url.origin():
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            url = target
        raise BadRedirect(f"more than {MOST_REDIRECTS} redirects")


def _redirected(url: URL, location: str) -> URL:
    try:
        target = url.join(URL(location, encoded=True))
        if target.user is not None or target.password is not None:
            raise BadRedirect("redirected to an address with credentials")
        if target.origin().scheme in ("http", "https"):
            return target
    except ValueError as error:
        raise BadRedirect("redirected to a malformed address") from error
    raise BadRedirect("redirected away from HTTP")


def _proxy_hosts() -> frozenset[str]:
    """The hosts of all proxies that the environment names."""
    return frozenset(
        URL(proxy if "://" in proxy else f"http://{proxy}").host or "" for proxy in getproxies().values()
    )


def _proxy(url: URL) -> str | None:
    """The proxy that the environment names for an address."""
    if proxy_bypass(url.host or ""):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
