"""A name lookup that finds only addresses on the public internet."""

import asyncio
import socket
from collections.abc import Container
from ipaddress import ip_address

from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult

from millm.public_hosts import require_public


class PublicResolver(ThreadedResolver):
    """Looks names up and refuses those with an address that is not public, at the moment of connecting.

    proxies: names of the proxies that this machine is set to use; they may be anywhere.
    """

    def __init__(self, proxies: Container[str]) -> None:
        super().__init__()
        self._proxies = proxies

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises `InvalidUrl` if one of them is not public, OSError if there are none."""
        found = await super().resolve(host, port, family)
        if host not in self._proxies:
            require_public(host, *(entry["host"] for entry in found))
        return found

    async def check(self, host: str, seconds: float) -> None:
        """Refuses a host before a request to it: also a bare address, and one that a proxy would look up.

        A name that is unknown here passes: the connection, or the proxy, will say so.

        Raises:
            InvalidUrl: it is not public.
            TimeoutError: the lookup takes longer than `seconds`.
        """
        try:
            addresses = [str(ip_address(host.partition("%")[0]))]
        except ValueError:
            try:
                async with asyncio.timeout(seconds):
                    found = await super().resolve(host, 0, socket.AF_UNSPEC)
            except TimeoutError:
                raise
            except OSError:
                return
            addresses = [entry["host"] for entry in found]
        require_public(host, *addresses)
