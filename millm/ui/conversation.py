"""What happens in a conversation: a message is sent, answered once more, changed, taken back, stopped."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.engines.base import Completion
from millm.errors import InvalidRequest, ModelNotLoaded, explain
from millm.jobs import Job
from millm.records import Status
from millm.ui import answer_stats, request_code, schema_field
from millm.ui.actions import warn
from millm.ui.answers import Answers, Controls, History, Progress, chat_request, plain_text

if TYPE_CHECKING:
    from millm.manager import Manager

UNCHANGED = gr.skip()
Drawn = tuple[Any, Any]
"""What a handler yields: conversation and numbers. Not more: gradio makes each output anew that stays as it is."""

NOTHING: Drawn = (UNCHANGED, UNCHANGED)


@dataclass(frozen=True)
class Conversation:
    """The conversation, what is written into it, and what is shown of the answer."""

    log: gr.Chatbot
    box: gr.Textbox
    stats: gr.HTML
    send: gr.Button
    stop: gr.Button

    @property
    def outputs(self) -> list[Any]:
        """The parts in the order of `Drawn`."""
        return [self.log, self.stats]


class Playground:
    """The handlers of the tab. gradio's session hash tells the answers of one open page from those of others."""

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager
        self._answers = Answers(manager)

    def send(self, request: gr.Request, text: str, history: History, *fields: Any) -> Iterator[Drawn]:
        """Answers a new message."""
        if text.strip():
            yield from self._answer(request, [*history, user(text)], fields, taken=True)
        else:
            yield NOTHING

    def again(self, request: gr.Request, event: gr.RetryData, history: History, *fields: Any) -> Iterator[Drawn]:
        """Answers a message once more; what came after it goes."""
        yield from self._answer(request, history[: event.index + 1], fields)

    def edit(self, request: gr.Request, event: gr.EditData, history: History, *fields: Any) -> Iterator[Drawn]:
        """Answers a message that the person has changed; what came after it goes."""
        yield from self._answer(request, [*history[: event.index], user(str(event.value))], fields)

    def undo(self, event: gr.UndoData, history: History) -> tuple[History, str]:
        """Takes the last message back into the box."""
        return history[: event.index], plain_text(history[event.index]["content"])

    def stop(self, request: gr.Request) -> None:
        """Stops the answer being written; what is there of it stays."""
        self._answers.stop(str(request.session_hash))

    def code(self, event: gr.EventData, text: str, history: History, *fields: Any) -> Any:
        """Shows what Send would ask now as a program; without a message, what was asked last."""
        controls, loaded = Controls(*fields), self._manager.loaded()
        wrong = schema_field.problem(controls.followed or "")
        fitting = replace(controls, structured=controls.structured and not wrong)
        asked = chat_request(_asked(text, history), fitting, loaded)
        address, keyed = str(getattr(event, "address", "")), bool(getattr(event, "keyed", False))
        left_out = f"The JSON schema is left out. {wrong}" if wrong else ""
        return gr.HTML(code=request_code.draw(asked, loaded, address, keyed, left_out))

    def _answer(
        self, request: gr.Request, history: History, fields: tuple[Any, ...], taken: bool = False
    ) -> Iterator[Drawn]:
        """taken: whether the last message comes from the box."""
        page = str(request.session_hash)
        try:
            job = self._begin(page, history, Controls(*fields))
        except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
            warn(explain(error).message)
            yield NOTHING
            return
        yield from self._write(page, job, history, taken)

    def _begin(self, page: str, history: History, controls: Controls) -> Job[Completion]:
        if controls.followed and (wrong := schema_field.problem(controls.followed)):
            raise InvalidRequest(wrong)
        try:
            return self._answers.begin(page, history, controls)
        except ModelNotLoaded:
            loading = self._manager.records(status=Status.LOADING)
            if not loading:
                raise
            raise ModelNotLoaded(
                f"{loading[0].name} is still loading. Your message stays in the box: send it when it is there."
            ) from None

    def _write(self, page: str, job: Job[Completion], history: History, taken: bool) -> Iterator[Drawn]:
        with closing(self._answers.follow(page, job)) as answer:
            drawn = next(answer)
            shown = [*history], answer_stats.draw_stats(drawn, taken)
            yield shown
            for progress in answer:
                if progress is not drawn:
                    shown = [*history, *said(progress)], answer_stats.draw_stats(progress)
                yield shown
                drawn = progress
        if drawn.problem:
            warn(drawn.problem)


def _asked(text: str, history: History) -> History:
    """The conversation up to the message that is asked next, or else was asked last."""
    if text.strip() or not history:
        return [*history, user(text.strip() or "Hello!")]
    asked = [place for place, message in enumerate(history) if message["role"] == "user"]
    return history[: asked[-1] + 1] if asked else history


def said(progress: Progress) -> History:
    """The messages of an answer so far: what the model thought, then what it says."""
    messages: History = []
    if progress.thought:
        done = bool(progress.said or progress.ended)
        title = f"Thought for {progress.thought_s:.1f} s" if done else "Thinking…"
        about = {"title": title, "status": "done" if done else "pending"}
        messages.append({"role": "assistant", "content": progress.thought, "metadata": about})
    if progress.said.strip():
        kept = {"log": answer_stats.line(progress)} if progress.ended else {}
        messages.append({"role": "assistant", "content": progress.said, "metadata": kept})
    return messages


def user(text: str) -> dict[str, Any]:
    """A message of the person."""
    return {"role": "user", "content": text}
