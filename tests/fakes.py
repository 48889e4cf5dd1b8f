"""Small fakes behind the seams of the program: a source, an engine, and a manager made of them."""

import threading
import time
from array import array
from dataclasses import dataclass, field, replace
from pathlib import Path

from running import PATIENCE_S

from millm.comparison import Measure, measure
from millm.devices import Device
from millm.engines.base import WELL, ChatRequest, Completion, Embeddings, EmbedRequest, Health, LoadOptions, RowCount
from millm.errors import LoadFailed, MiLLMError, RepoNotFound
from millm.estimate import Estimator
from millm.events import Chance, Event, Report, Stage
from millm.manager import Manager
from millm.quantizing import Quantizer
from millm.records import ModelRecord, Source
from millm.registry import Registry
from millm.remote_client import Servers
from millm.sources.base import Origin, Plan, PlannedFile
from millm.sources.local import Local
from millm.sources.remote import Remote
from millm.store import Store

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
}


@dataclass
class FakeFetcher:
    """A source that has every repository of the owner "acme". Fetching takes `chunks` steps of `pause_s` seconds.

    gate: a plan waits for it. written: the config.json that comes, None for none.
    """

    chunks: int = 4
    pause_s: float = 0.0
    size: int = 4000
    fail_with: Exception | None = None
    config: dict[str, object] = field(default_factory=lambda: CONFIG)
    gate: threading.Event | None = None
    refusal: MiLLMError | None = None
    tokens: list[str | None] = field(default_factory=list)
    written: str | None = "{}"

    def plan(self, origin: Origin, token: str | None) -> Plan:
        self.tokens.append(token)
        if self.gate:
            self.gate.wait(PATIENCE_S)
        if not origin.repo_id or not origin.repo_id.startswith("acme/"):
            raise RepoNotFound(f"Model not found: '{origin.repo_id}' does not exist on HuggingFace.")
        return Plan(
            origin=origin,
            title=origin.repo_id,
            suggested_name=origin.repo_id.split("/")[1],
            files=(PlannedFile("config.json", 2, None), PlannedFile("model.safetensors", self.size, None)),
            commit="c0ffee" + "0" * 34,
            param_count=2_000,
            config=self.config,
            refusal=self.refusal,
        )

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:
        total = plan.total_bytes
        for step in range(self.chunks):
            report(Event(Stage.DOWNLOADING, 100 * step / self.chunks, total * step // self.chunks, total))
            time.sleep(self.pause_s)
        if self.fail_with:
            raise self.fail_with
        for file in plan.files:
            text = self.written if file.path == "config.json" else "{}"
            if text is not None:
                (folder / file.path).write_bytes(text.encode().ljust(file.size))


@dataclass
class FakeEngine:
    """Answers with the words of the last message or of each prompt, one at a time, `pause_s` seconds apart.

    Of several answers to a prompt, each begins a word later than the one before it and ends with what it left out.
    """

    pause_s: float = 0.0
    memory_bytes: int = 1_000_000
    batching: bool = True
    health: Health = WELL
    closed: bool = False
    running: int = 0

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        asked = request.sampling
        texts = [str(prompt) for prompt in request.prompts] or [request.messages[-1].content]
        answers = [(text, _words(text, start)[: asked.max_tokens]) for text in texts for start in range(asked.count)]
        self.running += 1
        try:
            for place in range(max(len(words) for _, words in answers)):
                time.sleep(self.pause_s)
                for index, (_, words) in enumerate(answers):
                    for word in words[place : place + 1]:
                        chances = _chances([word], asked.logprobs)
                        report(Event(Stage.GENERATING, text=word, tokens=place + 1, index=index, chances=chances))
        finally:
            self.running -= 1
        first, *others = (_completion(text, words, asked.logprobs) for text, words in answers)
        return replace(first, others=tuple(others))

    def rows(self) -> RowCount:
        return RowCount(stepping=self.running)

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        """A vector of 4 values that differ with the text."""
        self.running += 1
        try:
            for _ in request.inputs:
                report(Event(Stage.READING_PROMPT))
                time.sleep(self.pause_s)
        finally:
            self.running -= 1
        values = [[len(text) / 3, -0.25, 1e-3, 0.0][: request.dimensions] for text in request.inputs]
        return Embeddings(tuple(array("f", each) for each in values), sum(map(len, request.inputs)))

    def close(self) -> None:
        self.closed = True


def _words(text: str, start: int) -> list[str]:
    words = text.split()
    return [f" {word}" if place else word for place, word in enumerate(words[start:] + words[:start])]


def _chances(words: list[str], others: int | None) -> tuple[Chance, ...]:
    """Every word was as likely; `others` are told beside it, None for no chances at all."""
    return () if others is None else tuple(_chance(word, -0.5, others) for word in words)


def _chance(word: str, logprob: float, others: int = 0) -> Chance:
    beside = tuple(_chance(f"{word}{rank}", -1.0 - rank) for rank in range(others))
    return Chance(word, word.encode(), logprob, beside)


def _completion(text: str, words: list[str], others: int | None) -> Completion:
    read, said = len(text.split()), len(words)
    reason = "length" if said < read else "stop"
    return Completion("".join(words), reason, read, said, 0.01, 100.0, _chances(words, others))


@dataclass
class FakeOpener:
    """Opens FakeEngines; fails for the names in `broken`."""

    pause_s: float = 0.0
    engine_pause_s: float = 0.0
    broken: set[str] = field(default_factory=set)
    opened: list[FakeEngine] = field(default_factory=list)
    asked: list[LoadOptions] = field(default_factory=list)

    def __call__(self, record: ModelRecord, options: LoadOptions, report: Report) -> FakeEngine:
        self.asked.append(options)
        for percent in (0, 50, 100):
            report(Event(Stage.LOADING_WEIGHTS, percent))
            time.sleep(self.pause_s)
        if record.name in self.broken:
            raise LoadFailed("Out of memory loading model. Try a smaller model or higher quantization (Q4).")
        self.opened.append(FakeEngine(self.engine_pause_s))
        return self.opened[-1]


class RoomyStore(Store):
    """A store that believes in so many free bytes."""

    def __init__(self, root: Path, free: int) -> None:
        super().__init__(root)
        self._free = free

    def free_bytes(self) -> int:
        return self._free


def make_manager(
    root: Path,
    fetcher: FakeFetcher | None = None,
    opener: FakeOpener | None = None,
    free_memory: int = 8 << 30,
    drain_s: float = 5.0,
    token: str | None = None,
    guide: Path | None = None,
    estimator: Estimator | None = None,
    quantizer: Quantizer | None = None,
    measure: Measure = measure,
    devices: tuple[Device, ...] = (),
    free_disk: int | None = None,
) -> Manager:
    """A manager on a real registry and store below `root`, with a fake source and fake engines.

    free_disk: bytes that the store believes to be free; None for what the disk has.
    """
    store = Store(root) if free_disk is None else RoomyStore(root, free_disk)
    store.open()
    registry = Registry(store.registry_path, store.published)
    devices = devices or (Device("cpu", "RAM", 16 << 30, free_memory),)
    fetchers = {
        Source.HUGGINGFACE: fetcher or FakeFetcher(),
        Source.LOCAL: Local(),
        Source.REMOTE: Remote(Servers(allow_private=True)),
    }
    more = {"guide": guide, "estimator": estimator, "quantizer": quantizer, "measure": measure}
    return Manager(registry, store, fetchers, opener or FakeOpener(), lambda: devices, token, drain_s, **more)
