import socket

import pytest

from millm.errors import InvalidUrl
from millm.loops import in_own_loop
from millm.sources.addresses import PublicResolver


async def resolve(host: str, *proxies: str) -> list[str]:
    return [entry["host"] for entry in await PublicResolver(proxies).resolve(host, 80, socket.AF_INET)]


async def check(host: str) -> None:
    await PublicResolver(("localhost",)).check(host, 2)


def test_a_name_that_leads_to_this_machine_is_not_found() -> None:
    with pytest.raises(InvalidUrl, match="'localhost' is not on the public internet"):
        in_own_loop(resolve("localhost", "proxy.example"))


def test_a_proxy_may_be_anywhere_but_is_not_fetched_from() -> None:
    assert in_own_loop(resolve("localhost", "localhost")) == ["127.0.0.1"]
    with pytest.raises(InvalidUrl):
        in_own_loop(check("localhost"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%1", "127.1", "2130706433", "0x7f.1", "localhost"])
def test_every_way_to_write_this_machine_is_refused(host: str) -> None:
    with pytest.raises(InvalidUrl):
        in_own_loop(check(host))


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "nowhere.invalid"])
def test_public_and_unknown_hosts_pass(host: str) -> None:
    in_own_loop(check(host))


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, 1, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(InvalidUrl):
        in_own_loop(resolve("both.example"))
