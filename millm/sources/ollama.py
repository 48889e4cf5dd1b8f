"""Models that an Ollama server keeps: listed, pulled and deleted through it. Their files stay with Ollama."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from millm.errors import DownloadFailed, InvalidRequest, OllamaUnavailable, RepoNotFound, SourceError
from millm.events import Event, Report, Stage
from millm.loops import attend
from millm.ollama_client import OllamaClient
from millm.sources.base import Origin, Plan, PlannedFile
from millm.sources.meter import Meter

if TYPE_CHECKING:  # importing it takes a quarter of a second and reads OLLAMA_HOST, so it waits for its first use
    import ollama

T = TypeVar("T")
ALMOST = 99.0  # percent until all layers are there: how many more will be told of is not known before
PART = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
NAME = re.compile(rf"(?:{PART}(?::[0-9]+)?/)?(?:{PART}/)*{PART}(?::{PART})?")
COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMBT]?)")
POWERS = {"": 0, "K": 3, "M": 6, "B": 9, "T": 12}
DETAILS = ("parameter_size", "family", "quantization_level")


@dataclass(frozen=True, slots=True)
class OllamaModel:
    """A model that the server has. size: bytes on its disk. parameter_size: as Ollama writes it, "8.0B"."""

    name: str
    size: int
    parameter_size: str | None = None
    family: str | None = None
    quantization: str | None = None


class Ollama:
    """The Ollama server at `host` ("http://127.0.0.1:11434"), as a `Fetcher` and as the keeper of its models.

    patience: seconds for an answer that needs no work. stall: of silence in a pull that count as an error.
    """

    def __init__(self, host: str, patience: float = 5.0, stall: float = 30.0) -> None:
        self._server = OllamaClient(host, patience)
        self._patience = patience
        self._stall = stall

    def plan(self, origin: Origin, token: str | None) -> Plan:  # noqa: ARG002  (Ollama takes no token from us)
        """Says what is known of a model: its full name and, if the server has it, its size as that of its one file.

        Raises:
            InvalidRequest: the text is no name of a model.
            OllamaUnavailable: the server does not answer within 5 s.
        """
        name = model_name(origin.repo_id or "")

        async def ask(client: "ollama.AsyncClient") -> tuple[OllamaModel, Mapping[str, Any]] | None:
            model = await _find(client, name)
            return (model, await _facts(client, name)) if model else None

        there = self._ask(ask)
        return Plan(
            origin=replace(origin, repo_id=name),
            title=name,
            suggested_name=name.rpartition("/")[2].removesuffix(":latest").replace(":", "-"),
            files=(PlannedFile(name, there[0].size),) if there else (),
            param_count=_param_count(*there) if there else None,
            link=_link(name),
            warnings=("Ollama keeps this model's files itself.", *([_described(*there)] if there else [])),
        )

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:  # noqa: ARG002
        """Lets the server pull the model, unless it has it; the next try goes on with a pull that was broken off.

        Raises:
            RepoNotFound, DownloadFailed, OllamaUnavailable: in Ollama's words, where it says any.
        """
        pull = _Pull(report, self._stall)
        self._server.run(
            lambda client: attend(_pulled(client, plan.title, self._patience), pull.hear, pull.tick),
            lambda _, said: _pull_error(plan.title, said),
        )
        pull.end()

    def list_models(self) -> list[OllamaModel]:
        """The models that the server has, in its order. Raises OllamaUnavailable."""
        return self._ask(_models)

    def delete(self, name: str) -> None:
        """Removes a model from the server; one that it does not have is no error. Raises OllamaUnavailable."""

        async def ask(client: "ollama.AsyncClient") -> None:
            if model := await _find(client, model_name(name)):
                await client.delete(model.name)

        self._ask(ask)

    def _ask(self, question: "Callable[[ollama.AsyncClient], Coroutine[Any, Any, T]]") -> T:
        """Asks the server something that it answers at once."""

        async def ask(client: "ollama.AsyncClient") -> T:
            async with asyncio.timeout(self._patience):
                return await question(client)

        return self._server.run(ask, lambda _, said: OllamaUnavailable(f"Ollama refuses: {said}."))


class _Pull:
    """What the server has told of a pull, as events: bytes of all layers together, never backwards."""

    def __init__(self, report: Report, stall: float) -> None:
        self._report = report
        self._stall = stall
        self._heard_at = time.monotonic()
        self._meter = Meter(0)
        self._layers: dict[str, tuple[int, int, int]] = {}  # bytes of each: in all, done, there before
        self._stage = Stage.RESOLVING
        self._progress = 0.0
        self._succeeded = False

    def hear(self, told: "ollama.ProgressResponse") -> None:
        """Takes in one line of the pull and reports."""
        self._heard_at = time.monotonic()
        if told.digest:
            self._stage = Stage.DOWNLOADING
            total, done = told.total or 0, min(told.completed or 0, told.total or 0)
            self._layers[told.digest] = total, done, self._layers.get(told.digest, (0, 0, done))[2]
        elif self._layers:
            self._stage = Stage.VERIFYING
        self._succeeded = told.status == "success"
        self._report(self._event())

    def tick(self) -> None:
        """Reports in a silence; raises DownloadFailed if it lasts too long."""
        # Verifying many gigabytes is silent work; while layers arrive, Ollama tells of them several times a second.
        if self._stage is not Stage.VERIFYING and time.monotonic() - self._heard_at > self._stall:
            raise DownloadFailed(f"Download failed: Ollama has said nothing for {self._stall:.0f} seconds.")
        self._report(self._event())

    def end(self) -> None:
        """Reports the end. Raises DownloadFailed if the server stopped talking before it."""
        if not self._succeeded:
            raise DownloadFailed("Download failed: Ollama ended the download before it was complete.")
        self._report(Event(Stage.VERIFYING, 100.0, self._meter.total, self._meter.total))

    def _event(self) -> Event:
        self._meter.total, done, kept = map(sum, zip((0, 0, 0), *self._layers.values(), strict=True))
        if not self._meter.total:
            return Event(self._stage)
        event = self._meter.event(done, kept)
        self._progress = max(self._progress, min(event.progress, ALMOST))
        return replace(event, stage=self._stage, progress=self._progress)


def model_name(text: str) -> str:
    """The full name of a model as Ollama lists it: "llama3" is "llama3:latest".

    Raises:
        InvalidRequest: the text is no name of a model.
    """
    name = text.strip()
    if len(name) > 200 or ".." in name or not NAME.fullmatch(name):
        raise InvalidRequest(f"Invalid Ollama model: '{name[:200]}'. Enter it as name:tag, like llama3:8b.")
    name = name.removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


async def _pulled(
    client: "ollama.AsyncClient", name: str, patience: float
) -> "AsyncIterator[ollama.ProgressResponse]":
    """What the server tells of a pull. One that it has is as if pulled: its own creations are in no library."""
    import ollama

    async with asyncio.timeout(patience):
        there = await _find(client, name)
    if there:
        yield ollama.ProgressResponse(digest=name, total=there.size, completed=there.size)
        yield ollama.ProgressResponse(status="success")
        return
    async for told in await client.pull(name, stream=True):
        yield told


async def _models(client: "ollama.AsyncClient") -> list[OllamaModel]:
    return [
        OllamaModel(str(model.model), int(model.size or 0), *(dict(model.details or ()).get(key) for key in DETAILS))
        for model in (await client.list()).models
    ]


async def _find(client: "ollama.AsyncClient", name: str) -> OllamaModel | None:
    return next((model for model in await _models(client) if model.name.lower() == name.lower()), None)


async def _facts(client: "ollama.AsyncClient", name: str) -> Mapping[str, Any]:
    """What the model's own file states, by name."""
    try:
        return (await client.show(name)).modelinfo or {}
    except ValueError:  # the client refuses the answer for a model that states nothing
        return {}


def _param_count(model: OllamaModel, facts: Mapping[str, Any]) -> int | None:
    """The exact count where the file states it, else the rounded one."""
    exact = facts.get("general.parameter_count")
    if isinstance(exact, int) and exact > 0:
        return exact
    found = COUNT.fullmatch(model.parameter_size or "")
    return round(float(found[1]) * 10 ** POWERS[found[2]]) or None if found else None


def _described(model: OllamaModel, facts: Mapping[str, Any]) -> str:
    """What is known of a model that is there, as a sentence."""
    known = [model.family, model.parameter_size, model.quantization, f"{model.size / 1e9:.1f} GB"]
    known += [f"{value} tokens of context" for key, value in facts.items() if key.endswith(".context_length")]
    return f"Ollama has it already: {', '.join(filter(None, known))}."


def _link(name: str) -> str | None:
    """The model's page, if it comes from Ollama's library and from no host of its own."""
    return None if name.count("/") > 1 else f"https://ollama.com/{name if '/' in name else f'library/{name}'}"


def _pull_error(name: str, said: str) -> SourceError:
    if "file does not exist" in said:
        return RepoNotFound(f"Model not found: '{name}' does not exist in Ollama's library.")
    return DownloadFailed(f"Download failed: Ollama says: {said}.", reason=said)
