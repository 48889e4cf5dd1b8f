"""What Ray Serve's controller tells of our application, in our words."""

import json
import re
from collections import Counter
from typing import Any

from millm.engines.plain import restored_error
from millm.errors import LoadFailed, MiLLMError
from millm.replica import CANNOT_OPEN

STATES = {"RUNNING": "running", "STOPPING": "stopping", "PENDING_MIGRATION": "running"}


def details() -> dict[str, Any]:
    """Everything that Serve's controller knows. `serve.status()` only counts replicas, so this asks what it asks."""
    from ray.serve.context import _get_global_client

    found: dict[str, Any] = json.loads(json.dumps(_get_global_client().get_serve_details(), default=str))
    return found


def replicas(application: dict[str, Any]) -> list[dict[str, Any]]:
    """The replicas of an application, as the controller describes them."""
    return [it for deployment in application.get("deployments", {}).values() for it in deployment["replicas"]]


def described(replica: dict[str, Any], running: Counter[str]) -> dict[str, Any]:
    """A replica as the fields of `engines.base.Replica`. running: requests by replica."""
    name, state = replica["replica_id"], STATES.get(replica["state"], "starting")
    where = f" on {replica['node_ip']}" if replica["node_ip"] else ""
    return {"name": name + where, "state": state, "requests": running[name]}


def problem(described: list[dict[str, Any]], fewest: int) -> str | None:
    """What is wrong with the replicas, as a sentence; None where nothing is."""
    up = sum(replica["state"] == "running" for replica in described)
    return f"{up} of {fewest} replicas answer; Ray starts others." if up < fewest else None


def messages(application: dict[str, Any]) -> str:
    """What Ray says of the application and its deployments."""
    said = [application.get("message", ""), *(it["message"] for it in application.get("deployments", {}).values())]
    return "\n".join(filter(None, said))


def open_error(messages: str) -> MiLLMError:
    """The error of a replica that could not be opened."""
    if found := re.search(re.escape(CANNOT_OPEN) + r"(\{.*\})", messages):
        return restored_error(json.loads(found[1]))
    return LoadFailed(f"Ray could not start a replica: {messages.strip()[-600:]}")


def first_line(error: BaseException) -> str:
    """The beginning of what an error says: Ray's go on for pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
