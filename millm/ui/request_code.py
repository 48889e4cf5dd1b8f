"""The present conversation and controls as a program: curl, and Python with OpenAI's client."""

import json
import shlex
from dataclasses import asdict, replace
from pprint import pformat
from textwrap import indent
from typing import Any

import gradio as gr

from millm.engines.base import ChatRequest, Sampling
from millm.records import ModelRecord
from millm.ui.answers import Controls
from millm.ui.icons import icon
from millm.ui.model_defaults import defaults

NEUTRAL = Sampling()
OPENAI_FIELDS = ("temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty", "seed")
OWN_FIELDS = ("top_k", "min_p", "repetition_penalty")
"""What OpenAI's client passes on as `extra_body` only."""
ALWAYS = ("temperature", "max_tokens")
KEY_VARIABLE = "MILLM_API_KEY"
WIDTH = 88
TURN_TOKENS = 32

Fields = dict[str, Any]


def body(request: ChatRequest, model: str, keep: frozenset[str] = frozenset()) -> Fields:
    """What POST /v1/chat/completions is sent.

    Fields that change nothing are left out, but for those in `keep`: where the model's own defaults would step in.
    """
    fields: Fields = {
        "model": model,
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
    }
    for name in (*OPENAI_FIELDS, *OWN_FIELDS):
        value = getattr(request.sampling, name)
        if value is not None and (name in ALWAYS or name in keep or value != getattr(NEUTRAL, name)):
            fields[name] = value
    if request.sampling.stop:
        fields["stop"] = list(request.sampling.stop)
    if request.schema is not None:
        schema = {"name": "answer", "schema": json.loads(request.schema)}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def curl(fields: Fields, address: str, keyed: bool) -> str:
    """The request for a POSIX shell. address: of the API, ending in /v1. keyed: whether it asks for a key."""
    lines = [f"curl {shlex.quote(f'{address}/chat/completions')}", "-H 'Content-Type: application/json'"]
    if keyed:
        lines.append(f'-H "Authorization: Bearer ${KEY_VARIABLE}"')
    lines.append(f"-d {shlex.quote(json.dumps(fields, indent=2, ensure_ascii=False))}")
    return " \\\n  ".join(lines)


def python(fields: Fields, address: str, keyed: bool) -> str:
    """The request as a Python program; see `curl`."""
    own = {name: fields[name] for name in OWN_FIELDS if name in fields}
    named = {name: value for name, value in fields.items() if name not in own} | ({"extra_body": own} if own else {})
    arguments = "".join(f"    {name}={_literal(value)},\n" for name, value in named.items())
    key = f"os.environ[{KEY_VARIABLE!r}]" if keyed else repr("none")
    return (
        f"{'import os' + chr(10) * 2 if keyed else ''}from openai import OpenAI\n\n"
        f"client = OpenAI(base_url={address!r}, api_key={key})\n"
        f"answer = client.chat.completions.create(\n{arguments})\n"
        "print(answer.choices[0].message.content)\n"
    )


def _literal(value: Any) -> str:
    return indent(pformat(value, width=WIDTH, sort_dicts=False), "    ").strip()


DIALOG = (
    '<dialog class="mi-dialog mi-code" id="code-dialog" aria-labelledby="code-title">'
    '<div class="mi-chats-drawer-head">'
    '<h2 id="code-title">Same request as code</h2><button type="button" class="mi-btn is-quiet is-icon" data-close '
    f'aria-label="Close" title="Close" autofocus>{icon("close")}</button></div><p id="code-said"></p>'
    '<div class="mi-code-part"><h3>curl</h3><button type="button" class="mi-btn is-quiet" data-copy="" '
    f'id="copy-curl-btn">{icon("copy", 16)}<span>Copy curl</span></button></div>'
    '<pre tabindex="0" aria-label="curl"><code id="code-curl"></code></pre>'
    '<div class="mi-code-part"><h3>Python</h3><button type="button" class="mi-btn is-quiet" data-copy="" '
    f'id="copy-python-btn">{icon("copy", 16)}<span>Copy Python</span></button></div>'
    '<pre tabindex="0" aria-label="Python"><code id="code-python"></code></pre></dialog>'
)
# Whether the API asks for a key is asked of the API itself, without the cookie that this page carries.
DIALOG_SCRIPT = """
const part = (id) => element.querySelector('#' + id);
window.millm.showCode = async () => {
  part('code-dialog').showModal();
  const answer = await fetch('v1/models', { credentials: 'omit' }).catch(() => null);
  trigger('ask_code', { address: location.origin + '/v1', keyed: answer?.status === 401 });
};
watch('code', () => {
  const { curl, python, said } = JSON.parse(props.code);
  part('code-curl').textContent = part('copy-curl-btn').dataset.copy = curl;
  part('code-python').textContent = part('copy-python-btn').dataset.copy = python;
  part('code-said').textContent = said;
});
"""


def draw(request: ChatRequest, record: ModelRecord | None, address: str, keyed: bool, wrong: str = "") -> str:
    """What the dialog shows, as JSON. record: the loaded model. wrong: a sentence about what is left out."""
    own, free = asdict(defaults(record)), asdict(Controls())
    kept = frozenset(field for field in (*OPENAI_FIELDS, *OWN_FIELDS) if own[field] != free[field])
    fields = body(_within(request, record), record.name if record else "MODEL", kept)
    said = ["What Send would ask now; without a message, what was asked last.", wrong]
    if record is None:
        said.append("No model is loaded: put a model's name in the place of MODEL.")
    if keyed:
        said.append(f"The API asks for its key: set {KEY_VARIABLE} to it first.")
    shown = {"curl": curl(fields, address, keyed), "python": python(fields, address, keyed)}
    return json.dumps({**shown, "said": " ".join(filter(None, said))})


def _within(request: ChatRequest, record: ModelRecord | None) -> ChatRequest:
    """The request without max_tokens where there may not be room for them: the page takes fewer, the API refuses.

    A token has one character at least, and templates add some to each turn.
    """
    context = record and (record.settings.get("context_length") or record.context_length)
    characters = sum(len(turn.content) + TURN_TOKENS for turn in request.messages)
    if context and characters + (request.sampling.max_tokens or 0) > context:
        return replace(request, sampling=replace(request.sampling, max_tokens=None))
    return request


def build() -> gr.HTML:
    """Builds the dialog; its event "ask_code" brings the address, and its property `code` what it then shows."""
    return gr.HTML(
        DIALOG,
        code="",
        apply_default_css=False,
        js_on_load=DIALOG_SCRIPT,
        elem_id="code-block",
        elem_classes="mi-unseen",
    )
