"""Models of OpenAI-compatible servers elsewhere: found by the address, attached, never downloaded."""

from dataclasses import replace
from pathlib import Path

from millm.errors import InvalidRequest
from millm.events import Event, Report, Stage
from millm.records import SERVED
from millm.remote_client import LONGEST_NAME, Servers, server_address
from millm.sources.base import Origin, Plan

MOST_NAMED = 20


class Remote:
    """The servers that may be asked, as a `Fetcher` and as one who takes their keys."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def plan(self, origin: Origin, token: str | None) -> Plan:
        """Asks a server which models it has. token: its key; None for the one that is known.

        Raises:
            InvalidUrl: the address is malformed, or not on the public internet where only such may be asked.
            InvalidRequest: the server has several models and none is named, or its models serve another purpose.
            RemoteUnavailable: it does not answer within 10 s, or wants another key.
        """
        if origin.model_type not in SERVED:
            raise InvalidRequest("A server's models can be language or embedding models only.", field="model_type")
        address, wanted = server_address(origin.url or ""), (origin.repo_id or "").strip()
        client = self._servers.client(address, token)
        names = client.names()
        name = _chosen(client.who, wanted, names)
        return Plan(
            origin=replace(origin, url=address, repo_id=name),
            title=name,
            suggested_name=name.rstrip("/").rpartition("/")[2],
            files=(),
            warnings=(
                f"{client.who} runs this model itself; nothing is downloaded.",
                _described(client.who, name, names),
            ),
        )

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:  # noqa: ARG002
        """Brings nothing; from now on the server's key is known."""
        if token:
            self._servers.keep_key(str(plan.origin.url), token)
        report(Event(Stage.VERIFYING, 100.0))

    def give_key(self, address: str, key: str) -> None:
        """Remembers a server's key, in memory only. Raises `InvalidRequest` for what can be none."""
        self._servers.keep_key(address, key)


def _chosen(who: str, wanted: str, names: tuple[str, ...] | None) -> str:
    if len(wanted) > LONGEST_NAME:
        raise InvalidRequest(f"The name of a model has at most {LONGEST_NAME} characters.", field="repo_id")
    if names is None and not wanted:
        raise InvalidRequest(f"{who} does not say which models it has. Name one.", field="repo_id")
    if names is None or wanted:
        return wanted
    if len(names) == 1:
        return names[0]
    raise InvalidRequest(f"{who} has {len(names)} models. Name one. {_listed(names)}", field="repo_id")


def _listed(names: tuple[str, ...]) -> str:
    if not names:
        return "It lists none."
    more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"It has: {', '.join(names[:MOST_NAMED])}{more}."


def _described(who: str, name: str, names: tuple[str, ...] | None) -> str:
    """Which models there are. A name that is not listed may be right: some servers list only a part."""
    if names is None:
        return f"{who} does not say which models it has."
    return (
        _listed(names)
        if name in names
        else f"Its list does not name '{name}', so it may not have it. {_listed(names)}"
    )
