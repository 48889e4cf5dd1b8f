"""The same prompt through two models, or one model with two settings, one after the other, as one job.

Each side is loaded by an ordinary order if it is not in memory, and asked by an ordinary request. What was loaded
before comes back at the end. Nothing of it is kept on disk.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from millm.activity import Activity
from millm.engines.base import ChatRequest, Completion, Message
from millm.errors import Cancelled, InvalidRequest, LoadFailed, ModelBusy, ModelNotLoaded, explain
from millm.events import Event, Stage
from millm.jobs import Job, Lane
from millm.orders import Orders
from millm.records import ModelRecord, ModelType, Status
from millm.resident import Loaded, Resident
from millm.views import Contest, Entry, Phase, Run, Side
from millm.word_diff import word_diff

T = TypeVar("T")

Chat = Callable[[ChatRequest], Job[Completion]]


class SideBySide:
    """Runs one comparison at a time; the newest is kept for whoever wants to see it.

    run: a value that is replaced and never changed. version: grows with each replacement.
    """

    def __init__(self, orders: Orders, chat: Chat, resident: Resident, activity: Activity) -> None:
        self._orders = orders
        self._chat = chat
        self._resident = resident
        self._activity = activity
        self._admission = Lane("side by side admission")
        self._lane = Lane("side by side")
        self._job: Job[None] | None = None
        self._step: Job[Any] | None = None
        self._closing = False
        self.run: Run | None = None
        self.version = 0

    def begin(self, contest: Contest) -> None:
        """Starts a comparison.

        Raises:
            InvalidRequest: another one runs, the prompt is empty, or a model cannot be asked.
            ModelNotFound: there is no such model.
        """
        if not contest.prompt.strip():
            raise InvalidRequest("Write a prompt first.", field="prompt")

        def start() -> None:
            if self._job and not self._job.done:  # asked first: its models are being loaded, perhaps
                raise InvalidRequest("A comparison is running. Cancel it first.")
            first, second = (self._side(entry) for entry in contest.entries)
            self._show(Run(contest, (first, second), before=self._orders.loaded()))
            self._job = Job("side by side", on_end=lambda *_: self._ended())
            self._lane.submit(self._work, self._job)

        self._admission.call(start)

    def cancel(self) -> None:
        """Ends the comparison; what is there of it stays. While a model is being loaded again it ends that."""
        if self._job:
            self._job.cancel()
        if step := self._step:
            step.cancel()

    def close(self, grace_s: float) -> bool:
        """Cancels what runs; nothing is loaded again. Returns whether it stopped within `grace_s` seconds."""
        self._closing = True
        self.cancel()
        return all([self._admission.close(grace_s), self._lane.close(grace_s)])

    def _side(self, entry: Entry) -> Side:
        record = self._orders.record(entry.model_id)
        if record.model_type is not ModelType.LLM or record.status not in (Status.READY, Status.LOADED):
            raise InvalidRequest(f"'{record.name}' is no language model that is ready to be asked.", id=record.id)
        return Side(record, entry.sampling)

    # what runs on the lane

    def _work(self, job: Job[None]) -> None:
        before = self._resident.current
        try:
            for index in (0, 1):
                self._take_turn(job, index)
            self._tell_apart()
        except Cancelled:
            self._settle()
        finally:
            self._go_back(before)

    def _take_turn(self, job: Job[None], index: int) -> None:
        try:
            self._bring(job, index)
            self._ask(job, index)
        except Cancelled:
            job.check()
            self._update(index, phase=Phase.FAILED, event=None, problem="It was cancelled from elsewhere.")
        except Exception as error:  # noqa: BLE001  (one side's error must leave the other side's answer)
            self._update(index, phase=Phase.FAILED, event=None, problem=explain(error).message)

    def _bring(self, job: Job[None], index: int) -> None:
        """Sees to it that a side's model is the one in memory."""
        job.check()
        model, began = self._state.sides[index].model, time.monotonic()
        if not self._holds(model):
            if self._given_up:
                raise ModelBusy("Somebody has chosen another model meanwhile; this comparison gives way.")
            self._update(index, phase=Phase.LOADING, event=Event(Stage.QUEUED))
            self._orders.load(model.id)
            self._load(model, lambda: not job.cancelling, lambda event: self._update(index, event=event))
            self._update(index, load_s=time.monotonic() - began)
        self._update(index, event=None, memory_bytes=self._resident.memory_bytes)

    def _load(self, model: ModelRecord, wanted: Callable[[], bool], hear: Callable[[Event], None]) -> None:
        """Follows the load that was ordered. Raises what that raises."""
        step = self._activity.job(model.id)
        if step is not None:
            self._follow(step, wanted, hear)
        if not self._holds(model):  # it ended before it could be followed, or another one came after it
            said = self._orders.record(model.id).error_message
            raise LoadFailed(said or f"Another model was loaded in place of '{model.name}'.")

    def _ask(self, job: Job[None], index: int) -> None:
        self._update(index, phase=Phase.ANSWERING)
        side, contest, began = self._state.sides[index], self._state.contest, time.monotonic()
        system = (Message("system", contest.system.strip()),) if contest.system.strip() else ()
        messages = (*system, Message("user", contest.prompt))
        step = self._chat(ChatRequest(messages=messages, sampling=side.sampling, parsed=True))
        if step.subject != side.model.id:
            step.cancel()
            raise ModelNotLoaded(f"Another model was loaded in place of '{side.model.name}'.")
        whole = self._follow(
            step, lambda: not job.cancelling, lambda event: self._hear(index, event, time.monotonic() - began)
        )
        self._update(
            index,
            phase=Phase.DONE,
            text=whole.text,
            reasoning=whole.reasoning,
            tokens=whole.completion_tokens,
            first_token_s=whole.first_token_s,
            tokens_per_s=whole.tokens_per_s,
            finish_reason=whole.finish_reason,
        )

    def _hear(self, index: int, event: Event, seconds: float) -> None:
        if not event.says_something:
            return
        side = self._state.sides[index]
        first = side.first_token_s or seconds
        self._update(
            index,
            text=side.text + event.text,
            reasoning=side.reasoning + event.reasoning,
            tokens=event.tokens,
            first_token_s=first,
            tokens_per_s=(event.tokens - 1) / (seconds - first) if seconds > first else 0.0,
        )

    def _follow(self, step: Job[T], wanted: Callable[[], bool], hear: Callable[[Event], None]) -> T:
        """Listens to a load or an answer until it ends; `cancel` ends it meanwhile."""
        self._step = step
        try:
            if not wanted():
                step.cancel()
            for event in step.events():
                if event is not None:
                    hear(event)
            return step.result()
        finally:
            self._step = None

    def _tell_apart(self) -> None:
        first, second = self._state.sides
        if first.phase is second.phase is Phase.DONE:
            self._show(replace(self._state, spans=word_diff(first.text, second.text)))

    def _go_back(self, before: Loaded | None) -> None:
        """Loads again what was loaded before, unless somebody has chosen another model meanwhile."""
        current = self._resident.current
        there = current is not None and before is not None and current.model_id == before.model_id
        if before is None or there or self._closing or self._given_up:
            return
        self._show(replace(self._state, returning=Event(Stage.QUEUED)))
        try:
            model = self._orders.load(before.model_id, force=True, context_length=before.options.context_length)
            self._load(model, lambda: not self._closing, self._returning)
            self._show(replace(self._state, returning=None, returned=True))
        except Cancelled:
            self._show(replace(self._state, returning=None, problem=f"'{before.name}' was not loaded again."))
        except Exception as error:  # noqa: BLE001  (the answers must stay, whatever this ends with)
            problem = f"'{before.name}' was not loaded again: {explain(error).message}"
            self._show(replace(self._state, returning=None, problem=problem))

    def _returning(self, event: Event) -> None:
        self._show(replace(self._state, returning=event))

    def _holds(self, model: ModelRecord) -> bool:
        current = self._resident.current
        return current is not None and current.model_id == model.id

    @property
    def _given_up(self) -> bool:
        """Whether somebody else has loaded a model meanwhile, or is about to."""
        run, current = self._state, self._resident.current
        ours = {run.before and run.before.id, *(side.model.id for side in run.sides)}
        waiting = any(state.kind == "load" for state in self._activity.states())
        return waiting or (current is not None and current.model_id not in ours)

    def _settle(self) -> None:
        for index, side in enumerate(self._state.sides):
            if side.phase not in (Phase.DONE, Phase.FAILED):
                self._update(index, phase=Phase.CANCELLED, event=None)

    def _ended(self) -> None:
        self._settle()
        self._show(replace(self._state, running=False, returning=None))

    @property
    def _state(self) -> Run:
        assert self.run is not None, "there is a run once there is a job"
        return self.run

    def _update(self, index: int, **changes: Any) -> None:
        first, second = self._state.sides
        if index == 0:
            first = replace(first, **changes)
        else:
            second = replace(second, **changes)
        self._show(replace(self._state, sides=(first, second)))

    def _show(self, run: Run) -> None:
        self.run = run
        self.version += 1
