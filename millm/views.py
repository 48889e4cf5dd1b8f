"""What a door sees of the manager: small frozen values, made by the manager and drawn by the doors."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from millm.devices import Device
from millm.engines.base import Replica, Sampling
from millm.errors import GatedModel, MiLLMError
from millm.estimate import EXACT, Estimate
from millm.events import Event
from millm.records import ModelRecord, ModelType, Quantization
from millm.sources.base import Plan
from millm.word_diff import Span

Fit = Literal["ok", "tight", "exceeds"]
Access = Literal["open", "granted", "token_needed", "licence_needed"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to a model. kind: the name of the public event, "model:download:progress"."""

    kind: str
    model_id: int
    event: Event | None = None
    error: MiLLMError | None = None
    record: ModelRecord | None = None

    def replaces(self, earlier: "Notice") -> bool:
        """Whether a reader who has not seen `earlier` yet may skip it once this notice is there."""
        return (
            self.event is not None
            and earlier.event is not None
            and (self.kind, self.model_id) == (earlier.kind, earlier.model_id)
            and self.event.replaces(earlier.event)
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one quantization of a planned model would take, in bytes. fits: memory and disk are free now.

    fit: how the memory goes with what is free: "tight" from 85 % on. along: the memory with every context length that
    can be chosen, shortest first, worked out from `memory`; () where the model does not say how long one can be.
    """

    download_bytes: int
    disk_bytes: int
    peak_disk_bytes: int
    memory: Estimate
    fits: bool
    fit: Fit
    along: tuple[Estimate, ...] = ()


@dataclass(frozen=True)
class Preview:
    """A plan with what it would cost this machine. disk_free, memory_free: bytes.

    existing: the record that is this model already. known_architecture: whether the installed transformers has a
    class for it, None where there is no config or it is no language model. quantized_as: how its own config says
    that it is quantized. requires_remote_code: it cannot be loaded without running Python code of the repository.
    on_gpu: the memory is that of GPUs.
    """

    plan: Plan
    sizes: dict[Quantization, Sizes]
    disk_free: int
    memory_free: int
    existing: ModelRecord | None = None
    known_architecture: bool | None = None
    quantized_as: str | None = None
    requires_remote_code: bool = False
    on_gpu: bool = False

    @property
    def is_rough(self) -> bool:
        """Whether the model is one to be loaded here whose memory could not be counted on a copy of it."""
        served = self.plan.origin.model_type is ModelType.LLM and self.plan.config and not self.quantized_as
        return bool(served) and any(sizes.memory.provenance != EXACT for sizes in self.sizes.values())

    @property
    def access(self) -> Access:
        """Whether the source lets the model be brought, with the token that was given or none."""
        if isinstance(self.plan.refusal, GatedModel):
            return "licence_needed" if self.plan.refusal.details.get("token_is_valid") else "token_needed"
        return "granted" if self.plan.gated else "open"


@dataclass(frozen=True, slots=True)
class Room:
    """Whether a model would go into memory now. Bytes.

    free: as things are. freed: what unloading the present model gives back. present: the id of that model, None
    where none is loaded. fit: how what is needed goes with both together. on_gpu: it is a GPU's memory.
    """

    needed: Estimate
    free: int
    freed: int
    present: int | None
    fit: Fit
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class JobState:
    """A running job. kind: download, load or unload. progress: percent. stage: an event stage."""

    id: str
    kind: str
    model_id: int
    stage: str
    progress: float


@dataclass(frozen=True)
class SystemState:
    """This process and this machine now. Bytes, requests, tokens a second.

    tokens_per_s: of all requests together over the last seconds; 0 while nothing is being generated.
    batch_width, rows_waiting: answers that get a token with every step, and those that wait for that; None where the
    engine does not know. model_bytes: memory of the loaded model's weights. ram: also where there are GPUs.
    problems: sentences about what went wrong at start and is still of interest, or with a model
    that runs elsewhere. replicas: the processes that run it, where there are several.
    """

    version: str
    devices: tuple[Device, ...]
    process_bytes: int
    loaded: ModelRecord | None
    requests_running: int
    requests_waiting: int
    tokens_per_s: float
    jobs: tuple[JobState, ...]
    disk_free: int
    problems: tuple[str, ...]
    batch_width: int | None = 0
    rows_waiting: int | None = 0
    model_bytes: int = 0
    ram: Device | None = None
    replicas: tuple[Replica, ...] = ()


@dataclass(frozen=True)
class StorageState:
    """Where the disk goes, in bytes. models: model id -> what deleting it frees. unfinished: the part of that which
    its download has not finished, where there is any.

    orphans: what belongs to no model, by its path in the cache directory; some of it may be unfinished too.
    """

    total_bytes: int
    free_bytes: int
    staging_bytes: int
    by_type: dict[str, int]
    models: dict[int, int]
    orphans: dict[str, int]
    unfinished: dict[int, int]


class Phase(StrEnum):
    """How far one side is."""

    WAITING = "waiting"
    LOADING = "loading"
    ANSWERING = "answering"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Entry:
    """Who is asked on one side, and with which settings."""

    model_id: int
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True)
class Contest:
    """What is asked of both sides. system: the system prompt, "" for none."""

    prompt: str
    entries: tuple[Entry, Entry]
    system: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One side so far.

    event: the newest one of its load. text, reasoning: the answer. first_token_s, load_s: seconds, 0 until known;
    load_s stays 0 for a model that was in memory. memory_bytes: what its weights really take. problem: what failed.
    """

    model: ModelRecord
    sampling: Sampling
    phase: Phase = Phase.WAITING
    event: Event | None = None
    text: str = ""
    reasoning: str = ""
    tokens: int = 0
    first_token_s: float = 0.0
    tokens_per_s: float = 0.0
    finish_reason: str = ""
    memory_bytes: int = 0
    load_s: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """Both sides so far. before: the model that was loaded at the start.

    running: whether anything of it still goes on. returning: how far loading `before` again is, None while that is
    not being done. returned: whether it was loaded again. problem: why it was not. spans: where the answers differ,
    once both are there.
    """

    contest: Contest
    sides: tuple[Side, Side]
    before: ModelRecord | None = None
    running: bool = True
    returning: Event | None = None
    returned: bool = False
    problem: str = ""
    spans: tuple[Span, ...] = ()
