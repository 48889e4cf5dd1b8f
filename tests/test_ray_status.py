"""What Ray's controller tells, in our words."""

import json
from collections import Counter

from millm.engines.plain import plain_error
from millm.errors import InvalidRequest, LoadFailed
from millm.ray_status import described, open_error, problem
from millm.replica import CANNOT_OPEN


def test_the_error_of_a_constructor_is_found_in_what_ray_says_of_it() -> None:
    ours = json.dumps(plain_error(InvalidRequest("a 'quoted' {brace}\nline")))
    text = (
        f"The deployment failed to start 1 times in a row. Error:\nray::x()\nRuntimeError: {CANNOT_OPEN}{ours}\n\n."
    )
    found = open_error(text)
    assert (type(found), found.message) == (InvalidRequest, "a 'quoted' {brace}\nline")
    other = open_error("the worker died: out of memory")
    assert isinstance(other, LoadFailed)
    assert "out of memory" in other.message


def test_replicas_and_what_is_missing_of_them() -> None:
    running = {"replica_id": "a", "state": "RUNNING", "node_ip": "10.0.0.1"}
    coming = {"replica_id": "b", "state": "STARTING", "node_ip": None}
    found = [described(each, Counter(a=3)) for each in (running, coming)]
    assert [(each["name"], each["state"], each["requests"]) for each in found] == [
        ("a on 10.0.0.1", "running", 3),
        ("b", "starting", 0),
    ]
    assert problem(found, 1) is None
    assert str(problem(found, 2)).startswith("1 of 2 replicas")
