"""Which network addresses are on the public internet, and a name lookup that finds no others."""

import asyncio
import socket
from collections.abc import Container
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult

from millm.errors import InvalidUrl

PUBLIC_V6 = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
LOW_32_BITS = 0xFFFFFFFF


def is_public(text: str) -> bool:
    """Whether an IP address is a public one: not private, loopback, link-local, reserved or multicast.

    An IPv6 address that stands for an IPv4 address is judged by that.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = IPv4Address(int(address) & LOW_32_BITS)
        if inner is None:
            return address in PUBLIC_V6 and address.is_global
        address = inner
    return address.is_global and not address.is_multicast


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
            _require_public(host, *(entry["host"] for entry in found))
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
        _require_public(host, *addresses)


def _require_public(host: str, *addresses: str) -> None:
    if not all(map(is_public, addresses)):
        raise InvalidUrl(
            f"'{host}' is not on the public internet. Addresses of private networks are fetched only by a miLLM "
            "that listens on this machine alone.",
            host=host,
        )
