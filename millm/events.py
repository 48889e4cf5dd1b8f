"""The one message a long operation speaks, and the function it is spoken to."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """What a long operation is doing just now. The values are part of the public event stream."""

    QUEUED = "queued"
    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    QUANTIZING = "quantizing"
    SAVING = "saving"
    MEASURING = "measuring"
    DRAINING = "draining"
    UNLOADING_PREVIOUS = "unloading_previous"
    LOADING_WEIGHTS = "loading_weights"
    MOVING_TO_GPU = "moving_to_gpu"
    WARMING_UP = "warming_up"
    READING_PROMPT = "reading_prompt"
    GENERATING = "generating"


@dataclass(frozen=True, slots=True)
class Chance:
    """How likely the model found a token. logprob: natural logarithm, before any sampling setting.

    text: the token's own text; raw: its bytes. others: the likeliest tokens in its place, themselves without others.
    """

    text: str
    raw: bytes
    logprob: float
    others: tuple["Chance", ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """What a model wants to have called. arguments: JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Event:
    """One report of a running job.

    progress: percent of the whole job, 0-100. bytes_done, bytes_total: bytes. speed: bytes a second.
    eta: seconds left, None while unknown. pending: requests still running (while draining).
    text: generated text that came with this event; events with text are never merged.
    tokens: tokens generated so far, for events with text. index: which answer of several.
    chances: of the tokens that came since the last event, where they were asked for. reasoning, calls: what else of
    an answer came, where its parts were asked for.
    """

    stage: Stage
    progress: float = 0.0
    bytes_done: int = 0
    bytes_total: int = 0
    speed: float = 0.0
    eta: float | None = None
    pending: int = 0
    text: str = ""
    tokens: int = 0
    index: int = 0
    chances: tuple[Chance, ...] = ()
    reasoning: str = ""
    calls: tuple[Call, ...] = ()

    @property
    def says_something(self) -> bool:
        """Whether a part of an answer came with it."""
        return bool(self.text or self.chances or self.reasoning or self.calls)

    def replaces(self, earlier: "Event") -> bool:
        """Whether a reader who has not seen `earlier` yet may skip it once this event is there."""
        return self.stage is earlier.stage and not earlier.says_something


Report = Callable[[Event], None]
"""Where work says how far it is. Raises `Cancelled` when the job was asked to stop."""
