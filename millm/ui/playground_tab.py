"""The tab to try the loaded model: a conversation beside its sampling controls."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.engines.base import Completion
from millm.errors import explain
from millm.jobs import Job
from millm.records import ModelRecord, ModelType, Status
from millm.ui import token_view
from millm.ui.actions import warn
from millm.ui.answers import Answers, Controls, History, Progress, plain_text
from millm.ui.cards import empty, newest_event, note
from millm.ui.cards import progress as draw_progress
from millm.ui.icons import icon
from millm.ui.wiring import QUIET, html

if TYPE_CHECKING:
    from millm.manager import Manager

EXAMPLES = (
    "Explain quantization in three sentences",
    "Write a haiku about local models",
    "Draft a polite reply to a late invoice",
)
GUIDE_EXAMPLES = (
    "What can miLLM do?",
    "What does Q4 mean?",
    "How do I call the API from Python?",
    "Give me a JSON object with name Ada and age 36",
)
ENDINGS = {"length": "cut at max tokens", "cancelled": "stopped"}

UNCHANGED = gr.skip()
Drawn = tuple[Any, Any, Any, Any, Any]
"""What a handler yields: conversation, message box, numbers, Send button, Stop button."""


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
        return [self.log, self.box, self.stats, self.send, self.stop]


class Playground:
    """The handlers of the tab. gradio's session hash tells the answers of one open page from those of others."""

    def __init__(self, manager: "Manager") -> None:
        self._answers = Answers(manager)

    def send(self, request: gr.Request, text: str, history: History, *fields: Any) -> Iterator[Drawn]:
        """Answers a new message."""
        if text.strip():
            yield from self._answer(request, [*history, _user(text)], fields, box="")
        else:
            yield (UNCHANGED,) * 5

    def again(self, request: gr.Request, event: gr.RetryData, history: History, *fields: Any) -> Iterator[Drawn]:
        """Answers a message once more; what came after it goes."""
        yield from self._answer(request, history[: event.index + 1], fields)

    def edit(self, request: gr.Request, event: gr.EditData, history: History, *fields: Any) -> Iterator[Drawn]:
        """Answers a message that the person has changed; what came after it goes."""
        yield from self._answer(request, [*history[: event.index], _user(str(event.value))], fields)

    def undo(self, event: gr.UndoData, history: History) -> tuple[History, str]:
        """Takes the last message back into the box."""
        return history[: event.index], plain_text(history[event.index]["content"])

    def stop(self, request: gr.Request) -> None:
        """Stops the answer being written; what is there of it stays."""
        self._answers.stop(str(request.session_hash))

    def clear(self, request: gr.Request) -> Drawn:
        """Empties the conversation."""
        self._answers.drop(str(request.session_hash))
        return _emptied()

    def _answer(
        self, request: gr.Request, history: History, fields: tuple[Any, ...], box: Any = UNCHANGED
    ) -> Iterator[Drawn]:
        page = str(request.session_hash)
        try:
            job = self._answers.begin(page, history, Controls(*fields))
        except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
            warn(explain(error).message)
            yield (UNCHANGED,) * 5
            return
        yield from self._write(page, job, history, box)

    def _write(self, page: str, job: Job[Completion], history: History, box: Any) -> Iterator[Drawn]:
        with closing(self._answers.follow(page, job)) as answer:
            drawn = next(answer)
            yield history, box, draw_stats(drawn), *_buttons(busy=True)
            for progress in answer:
                if progress is drawn:
                    yield (UNCHANGED,) * 5
                elif progress.ended == "dropped":
                    yield _emptied()  # gradio repeats the last word of a listener, so this one has to say it too
                else:
                    said = [{"role": "assistant", "content": progress.text}] if progress.text else []
                    buttons = _buttons(busy=False) if progress.ended else (UNCHANGED, UNCHANGED)
                    yield [*history, *said], UNCHANGED, draw_stats(progress), *buttons
                drawn = progress
        if drawn.problem:
            warn(drawn.problem)


def _buttons(busy: bool) -> tuple[Any, Any]:
    return gr.Button(visible=not busy), gr.Button(visible=busy)


def _emptied() -> Drawn:
    return ([], UNCHANGED, "", *_buttons(busy=False))


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def draw_stats(progress: Progress) -> str:
    """The line under an answer: tokens a second, tokens, time to the first token, and how it ended."""
    if progress.problem:
        return note(progress.problem)
    if not progress.tokens:
        return f'<p class="mi-stats">{ENDINGS.get(progress.ended, "Reading the prompt…")}</p>'
    parts = [
        f"<b>{progress.tokens_per_s:.1f}</b> tok/s",
        f"<b>{progress.tokens}</b> tokens",
        f"<b>{progress.first_token_s:.2f} s</b> to first token",
        ENDINGS.get(progress.ended, ""),
    ]
    tokens = token_view.draw(progress.chances, progress.tokens) if progress.ended else ""
    return f'<p class="mi-stats">{"".join(f"<span>{part}</span>" for part in parts if part)}</p>{tokens}'


def draw_notice(manager: "Manager") -> str:
    """What stands in an empty conversation: suggestions, or how to get a model."""
    for record in manager.records(status=Status.LOADING):
        event = newest_event(manager, record)
        moving = draw_progress(record, event) if event else ""
        return f'<div class="mi-empty"><h2>Loading {escape(record.name)}</h2>{moving}</div>'
    loaded = manager.loaded()
    if loaded and loaded.model_type is ModelType.EMBEDDING:
        text = "It turns texts into vectors for programs, at /v1/embeddings. To chat, load a language model."
        return empty("models", f"{loaded.name} makes embeddings and cannot chat", text, "Choose a model", "models")
    if loaded:
        return _suggestions(loaded)
    guide = manager.guide()
    if guide and guide.status is Status.READY:
        return _offer(guide, choice=len(manager.records(status=Status.READY)) > 1)
    if manager.records(status=Status.READY):
        return empty("models", "No model is loaded", "Load one, then ask it here.", "Choose a model", "models")
    return empty("models", "No model is loaded", "Get one first, then load it.", "Get a model", "download")


def _offer(guide: ModelRecord, choice: bool) -> str:
    """The built-in model, one click away. choice: there are others to load."""
    other = '<button type="button" class="mi-btn" data-tab="models">Choose another model</button>' if choice else ""
    name = escape(guide.name)
    return (
        f'<div class="mi-empty">{icon("models", 34)}<h2>No model is loaded</h2>'
        f"<p>{name} ships with miLLM: very small, it answers questions about miLLM itself.</p>"
        f'<button type="button" class="mi-btn is-primary" id="guide-load-btn" data-act="load" '
        f'data-model="{guide.id}">Chat with {name}</button>{other}</div>'
    )


def _suggestions(record: ModelRecord) -> str:
    buttons = "".join(
        f'<button type="button" class="mi-example" data-say="{escape(text)}">{escape(text)}</button>'
        for text in (GUIDE_EXAMPLES if record.built_in else EXAMPLES)
    )
    return (
        f'<div class="mi-empty mi-start"><h2>Ask {escape(record.name)}</h2>'
        f"<p>What you write goes to this miLLM and nowhere else.</p>{buttons}</div>"
    )


def build(manager: "Manager") -> gr.HTML:
    """Builds the tab and wires it; returns the part that says whether there is a model, for the page's timer."""
    html('<h1 class="mi-hidden">Playground</h1>', classes="mi-unseen")
    with gr.Row(equal_height=False):
        with gr.Column(scale=9, min_width=320, elem_id="conversation"):
            conversation, notice = _build_conversation()
        with gr.Column(scale=4, min_width=280, elem_classes="mi-panel"):
            controls = _build_controls()
            clear = gr.Button("Clear conversation", size="md", elem_id="clear-btn")
    _wire(Playground(manager), conversation, controls, clear)
    return notice


def _build_conversation() -> tuple[Conversation, gr.HTML]:
    log = gr.Chatbot(
        elem_id="chat-log",
        label="Conversation",
        show_label=False,
        layout="panel",
        height="var(--mi-chat-height)",
        buttons=["copy"],
        editable="user",
        reasoning_tags=[("<think>", "</think>")],
    )
    notice = html(elem_id="no-model")
    stats = html(elem_id="chat-stats")
    with gr.Row(elem_id="ask"):
        box = gr.Textbox(
            "",
            label="Message",
            show_label=False,
            placeholder="Message the model",
            lines=1,
            max_lines=8,
            scale=1,
            elem_id="chat-input",
        )
        send = gr.Button("Send", variant="primary", scale=0, min_width=36, elem_id="send-btn")
        stop = gr.Button("Stop", variant="primary", scale=0, min_width=36, visible=False, elem_id="stop-btn")
    return Conversation(log, box, stats, send, stop), notice


def _build_controls() -> list[Any]:
    system = gr.Textbox(
        "",
        label="System prompt",
        placeholder="Optional. For example: Answer in one short paragraph.",
        lines=3,
        max_lines=6,
        elem_id="system-prompt",
    )
    temperature = gr.Slider(0, 2, 0.7, step=0.05, label="Temperature", elem_id="temperature")
    max_tokens = gr.Slider(16, 4096, 1024, step=16, label="Max tokens", elem_id="max-tokens")
    with gr.Accordion("More sampling", open=False):
        top_p = gr.Slider(0, 1, 0.95, step=0.01, label="Top-p", elem_id="top-p")
        top_k = gr.Slider(0, 200, 0, step=1, label="Top-k", info="0 is off", elem_id="top-k")
        seed = gr.Number(
            None, label="Seed", info="The same seed gives the same answer", precision=0, minimum=0, elem_id="seed"
        )
    chances = gr.Checkbox(
        label="Show token probabilities",
        info="For the answers to come. Costs a little speed.",
        elem_id="token-switch",
    )
    return [system, temperature, max_tokens, top_p, top_k, seed, chances]


def _wire(playground: Playground, talk: Conversation, controls: list[Any], clear: gr.Button) -> None:
    shown = talk.outputs
    # `Answers` lets one answer at a time pass; "once" would swallow a message sent right after the last one
    asking = {"trigger_mode": "multiple", **QUIET}
    gr.on([talk.send.click, talk.box.submit], playground.send, [talk.box, talk.log, *controls], shown, **asking)
    talk.log.retry(playground.again, [talk.log, *controls], shown, **asking)
    talk.log.edit(playground.edit, [talk.log, *controls], shown, **asking)
    talk.log.undo(playground.undo, talk.log, [talk.log, talk.box], queue=False, **QUIET)
    talk.stop.click(playground.stop, queue=False, **QUIET)
    clear.click(playground.clear, None, shown, queue=False, **QUIET)
