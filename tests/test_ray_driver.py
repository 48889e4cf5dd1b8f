"""What the driver finds out by itself; the rest is tested on a real Ray, in tests/engines/test_ray.py."""

import asyncio

import pytest

from millm import ray_driver
from millm.errors import RemoteUnavailable


def test_nobody_at_an_address_is_said_at_once() -> None:
    with pytest.raises(RemoteUnavailable, match="127.0.0.1:1"):
        asyncio.run(ray_driver._reach("127.0.0.1:1"))
    asyncio.run(ray_driver._reach("auto"))
