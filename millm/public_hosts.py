"""Which network addresses are on the public internet."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from millm.errors import InvalidUrl

PUBLIC_V6 = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
LOW_32_BITS = 0xFFFFFFFF
LOOPBACK_ONLY = "Addresses of private networks are fetched only by a miLLM that listens on this machine alone."


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


def require_public(host: str, *addresses: str, why: str = LOOPBACK_ONLY) -> None:
    """Refuses a host with an IP address that is not public. why: only public ones are asked.

    Raises:
        InvalidUrl: one of its addresses is not.
    """
    if not all(map(is_public, addresses)):
        raise InvalidUrl(f"'{host}' is not on the public internet. {why}", host=host)
