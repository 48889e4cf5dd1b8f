import pytest

from millm.errors import InvalidUrl
from millm.public_hosts import is_public, require_public

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::"]
NOT_PUBLIC = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1",
    "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::",
    "2002:e000:1::",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address: str) -> None:
    assert not is_public(address)


def test_one_private_address_is_enough_and_the_sentence_says_why() -> None:
    require_public("box", "8.8.8.8")
    with pytest.raises(InvalidUrl, match="'box' is not on the public internet.*Ask Ann.") as caught:
        require_public("box", "8.8.8.8", "10.0.0.1", why="Ask Ann.")
    assert caught.value.details == {"host": "box"}
