"""The decode loop that all requests share: a row reads its prompt, joins the others, steps with them, leaves.

The network and the caches are touched on one lane of width one. `chat` hands its rows over through a deque, which
needs no lock, and waits for the rows' own jobs.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from millm.engines.admission import Admission
from millm.engines.base import WELL, ChatRequest, Completion, Embeddings, EmbedRequest, RowCount
from millm.engines.embeddings import Embedder
from millm.engines.forward import Forward
from millm.engines.memory import out_of_memory, release_memory, weight_bytes
from millm.engines.own_cache import SLACK, cut_back, reserve
from millm.engines.prefixes import Prefixes
from millm.engines.rows import Row, ending_tokens, no_memory, row_error
from millm.engines.sampling import Choice, choose
from millm.engines.trial import tried
from millm.errors import Cancelled, MiLLMError, ModelNotLoaded
from millm.events import Report
from millm.jobs import Job, Lane

MOST_ROWS = 32  # that step together
PIECE = 512  # tokens of prompts that are read between two steps of the others
NOT_WORTH_IT = 0.25  # of a piece: what is left of a prompt then is read with it
LONG_PIECE = 2048  # tokens that are read at once while nobody else waits
MOST_AHEAD = 2  # times as long a row may be and be counted on when another joins
KEPT_SHARE = 0.25  # of the memory for caches: those of answers that are over
KEPT_BYTES = 2 << 30  # as well, where the memory is not limited


class DecodeEngine:
    """A causal language model that answers any number of requests at once. It is an `Engine`."""

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        context_length: int,
        cache_bytes: int | None = None,
        forward: Forward | None = None,
    ) -> None:
        """cache_bytes: how much memory the caches may take; None for no limit. forward: None to try what works."""
        forward = forward or tried(network)
        self.memory_bytes = weight_bytes(network)
        self.context_length = context_length
        self.batching, self.pieces, self.health = forward.together, forward.pieces, WELL
        self._endings = ending_tokens(network, tokenizer)
        self._forward = forward
        self._admission = Admission(tokenizer, forward.vocabulary, self._endings, context_length)
        self._slots = forward.new_slots() if forward.together else None
        reusable = forward.pieces and forward.new_slots() is not None
        kept = min(KEPT_BYTES, int(KEPT_SHARE * cache_bytes)) if cache_bytes is not None else KEPT_BYTES
        self._prefixes = Prefixes(forward.new_cache, kept if reusable else 0)
        self._cache_bytes = cache_bytes
        self._embedder = Embedder(network.base_model, tokenizer, context_length, forward=forward)
        self._lane = Lane("decode", 1)
        self._arrivals: deque[Row] = deque()
        self._waiting: list[Row] = []  # the first one may have read a part of its prompt
        self._rows: list[Row] = []  # that step; where they step together, in the order of their slots
        self._closed = False

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        """Answers; see `Engine.chat`.

        Raises:
            ModelNotLoaded: the engine was closed.
            InsufficientMemory: the caches do not fit.
            UnsupportedModel: the model computes no valid probabilities.
        """
        self._check_open()
        rows = self._admission.rows(request, report)
        self._arrivals.extend(rows)
        self._lane.submit(self._run)
        try:
            first, *others = [row.done.result() for row in rows]
        finally:
            for row in rows:
                row.done.cancel()
        return replace(first, others=tuple(others))

    def rows(self) -> RowCount:
        """How many answers step now, and how many wait for that."""
        return RowCount(len(self._rows), len(self._waiting) + len(self._arrivals))

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        """Embeds by the mean of the last hidden states, of length 1; see `Engine.embed`. Raises `ModelNotLoaded`."""
        self._check_open()
        return self._embedder.embed(request, report, self._between_steps)

    def close(self) -> None:
        """Cancels what still runs and gives the memory back."""
        self._closed = True
        self._lane.close()
        for row in (*self._rows, *self._waiting, *self._arrivals):
            row.done.fail(Cancelled())
        self._rows, self._waiting = [], []
        self._arrivals.clear()
        del self._forward, self._slots, self._prefixes, self._admission, self._embedder
        release_memory()

    def _check_open(self) -> None:
        if self._closed:
            raise ModelNotLoaded("The model was unloaded.")

    def _between_steps(self, work: Callable[[Job[Any]], Any]) -> Job[Any]:
        """Queues other work of the network. The run before it hands over to the one behind it."""
        self._check_open()
        job = self._lane.submit(work)
        self._lane.submit(self._run)
        return job

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _run(self, job: Job[None]) -> None:
        """Lets all rows read and step until none is left.

        Every arrival queues one run, so none is ever missed; a run that sees another behind it hands over.
        """
        while not job.cancelling:
            try:
                self._turn()
            except BaseException as error:
                for row in (*self._rows, *self._waiting):
                    row.done.fail(error)
                raise
            if not (self._rows or self._waiting or self._arrivals) or len(self._lane.jobs) > 1:
                return

    def _turn(self) -> None:
        """Reads one piece of what waits, and brings every row one token further."""
        while self._arrivals:
            self._waiting.append(self._arrivals.popleft())
        self._waiting = [row for row in self._waiting if _goes_on(row, row.reading)]
        self._read_prompts()
        self._step()

    def _read_prompts(self) -> None:
        """Reads a piece of a prompt that waits, and others that fit behind it: small pieces take long for their size.

        Rows that are through say their first token and join the others.
        """
        piece = left = PIECE if self._rows else LONG_PIECE
        while self._waiting and self._has_room(self._waiting[0]):
            row = self._waiting[0]
            if left < piece and len(row.unread) > left:
                return
            left -= self._read_piece(row, left)
            if row.done.done or not row.unread:
                self._waiting.remove(row)

    def _read_piece(self, row: Row, most: int) -> int:
        """Reads about so many tokens of a row's prompt; returns how many. An error ends this row alone."""
        if not row.begun:
            row.begin(*self._prefixes.find(row.prompt))
            row.cache = row.cache or self._forward.new_cache()
            reserve(row.cache, len(row.prompt))
        whole = not self._forward.pieces or len(row.unread) <= (1 + NOT_WORTH_IT) * most
        piece = row.unread if whole else row.unread[:most]
        logits = self._read(row, piece)
        if logits is not None:
            row.unread = row.unread[len(piece) :]
            if not row.unread and self._accept(row, choose([row.sampler], logits)[0]):
                self._join(row)
        return len(piece)

    def _read(self, row: Row, tokens: list[int]) -> Any:
        """Lets a row's own cache read tokens; returns the logits. After an error, which ends this row alone, None."""
        known = row.length - len(row.unread or tokens)
        try:
            logits, row.cache = self._forward.read(tokens, row.cache, known)
        except Exception as error:  # noqa: BLE001  (it reaches whoever waits for this row)
            if out_of_memory(error) and self._prefixes.shrink() and cut_back(row.cache, known):
                return self._read(row, tokens)
            row.done.fail(row_error(error))
            return None
        return logits

    def _has_room(self, newcomer: Row) -> bool:
        """Whether one more row may join; earlier caches make way for it."""
        if not self._rows:
            return True
        needed = self._needed([*self._rows, newcomer])
        if self._cache_bytes is not None and needed + self._prefixes.size > self._cache_bytes:
            self._prefixes.shrink(max(0, int(self._cache_bytes - needed)))
        return len(self._rows) < MOST_ROWS and self._fits(needed)

    def _needed(self, rows: list[Row]) -> float:
        """Bytes that the caches of these rows take."""
        return len(rows) * (max(row.length for row in rows) + SLACK) * self._forward.token_bytes

    def _fits(self, needed: float) -> bool:
        return self._cache_bytes is None or needed <= self._cache_bytes

    def _join(self, row: Row) -> None:
        if self._slots is not None:
            try:
                self._slots.join(row.cache, len(row.prompt), self._followers(row))
            except Exception as error:  # noqa: BLE001  (it reaches whoever waits for this row)
                if out_of_memory(error) and self._prefixes.shrink():
                    self._join(row)
                else:
                    row.done.fail(row_error(error))
                return
            self._prefixes.keep(row.prompt, row.cache)
            row.cache = None
        self._rows.append(row)

    def _followers(self, joining: Row) -> list[int]:
        """The lengths of those that wait and will join it, so that its neighbours need not be moved for each."""
        waiting = [row for row in (*self._waiting, *self._arrivals) if row is not joining]
        rows = [*self._rows, joining, *waiting][:MOST_ROWS]
        while len(rows) > len(self._rows) + 1 and not self._fits(self._needed(rows)):
            rows.pop()
        return [row.length for row in rows[len(self._rows) + 1 :] if row.length <= MOST_AHEAD * joining.length]

    def _step(self) -> None:
        """Brings every row one token further; rows that are over leave."""
        while len(self._rows) > 1 and not self._fits(self._needed(self._rows)):
            self._shed(no_memory())
        if not self._rows:
            return
        stepped, logits = self._step_together() if self._slots is not None else self._step_in_turn()
        if not stepped:
            return
        for row, choice in zip(stepped, choose([row.sampler for row in stepped], logits), strict=True):
            if not self._accept(row, choice):
                self._leave(row)

    def _step_together(self) -> tuple[list[Row], Any]:
        assert self._slots is not None
        while self._rows:
            try:
                return list(self._rows), self._forward.step([row.tokens[-1] for row in self._rows], self._slots)
            except Exception as error:  # noqa: BLE001  (it reaches whoever waits for these rows)
                full = out_of_memory(error)
                if full and self._slots.retriable and self._prefixes.shrink():
                    continue
                alone = full and self._slots.retriable
                for _ in range(1 if alone else len(self._rows)):
                    self._shed(row_error(error))
        return [], None

    def _step_in_turn(self) -> tuple[list[Row], Any]:
        logits = {row: self._read(row, row.tokens[-1:]) for row in self._rows}
        self._rows = [row for row in self._rows if not row.done.done]
        return list(self._rows), torch.cat([logits[row] for row in self._rows]) if self._rows else None

    def _accept(self, row: Row, choice: Choice | MiLLMError) -> bool:
        """Gives a row its next token. Returns whether it goes on."""
        if isinstance(choice, MiLLMError):
            row.done.fail(choice)
            return False
        return _goes_on(row, lambda: row.accept(choice, choice.token in self._endings))

    def _shed(self, error: BaseException) -> None:
        """Ends the row that came last, so that the others can go on."""
        newest = max(self._rows, key=lambda row: row.asked_at)
        newest.done.fail(error)
        self._leave(newest, keep=False)

    def _leave(self, row: Row, keep: bool = True) -> None:
        """Takes a row out. keep: whether its cache is of use to requests that go on from it."""
        place = self._rows.index(row)
        cache = self._own_cache(place) if keep and self._prefixes.limit else None
        if self._slots is not None:
            self._slots.leave(place)
        self._rows[place] = self._rows[-1]
        self._rows.pop()
        if cache is not None:
            self._prefixes.keep([*row.prompt, *row.tokens[:-1]], cache)

    def _own_cache(self, place: int) -> Any:
        """A row's cache apart from the others; None if there is no memory for that."""
        row = self._rows[place]
        if self._slots is None:
            return row.cache
        _, known = self._prefixes.find([*row.prompt, *row.tokens[:-1]])
        cache = known or self._forward.new_cache()
        try:
            self._slots.give(place, cache)
        except Exception as error:
            if not out_of_memory(error):
                raise
            return None
        return cache


def _goes_on(row: Row, work: Callable[[], None]) -> bool:
    """Does something for a row that may end it, with an answer or with an error. Returns whether it goes on."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001  (it reaches whoever waits for this row)
        row.done.fail(row_error(error))
    return not row.done.done
