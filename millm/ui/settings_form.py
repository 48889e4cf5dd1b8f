"""The form of a model's settings: drawn, and read back with a sentence for every field that is wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from millm.errors import InvalidLocalPath, InvalidRequest
from millm.generation import GENERATION, generation_of, system_prompt_of
from millm.loads import adapter_at
from millm.planning import check_name
from millm.records import ELSEWHERE, SERVED, ModelRecord, ModelType, Source, is_dimension
from millm.ui import words

LABELS = {
    "name": "Name",
    "context_length": "Context length",
    "temperature": "Temperature",
    "top_p": "Top-p",
    "top_k": "Top-k",
    "min_p": "Min-p",
    "max_tokens": "Max tokens",
    "repetition_penalty": "Repetition penalty",
    "system_prompt": "System prompt",
    "adapter": "Adapter",
    "server_key": "Server key",
}
HINTS = {
    "name": "What API clients call the model. Letters, digits, “-”, “_” and “.”.",
    "temperature": "0 always takes the likeliest token",
    "top_p": "1 is off",
    "top_k": "0 is off",
    "min_p": "0 is off",
    "max_tokens": "empty: as many as fit",
    "repetition_penalty": "1 is off",
    "system_prompt": "Goes before every conversation that brings none of its own.",
    "adapter": "The full path of a folder with a LoRA or another PEFT adapter, laid over the model.",
    "server_key": "Only where the server asks for one. Counts at once; kept in memory only, until miLLM ends.",
}
DEFAULTS = {"temperature": "1", "top_p": "1", "top_k": "0", "min_p": "0", "max_tokens": "", "repetition_penalty": "1"}
STEPS = {"temperature": "0.05", "top_p": "0.01", "min_p": "0.01", "repetition_penalty": "0.01"}
AT_NEXT_LOAD = ("context_length", "adapter")
LONGEST_COUNT = 10  # digits
Read = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Filled:
    """A form that was read. changes: for `Manager.update`. faults: by field, what is wrong with it. reload: whether
    something changed that holds from the next load on. key: of the model's server, to be kept in memory."""

    changes: dict[str, Any]
    faults: dict[str, str]
    reload: bool
    key: str | None = field(default=None, repr=False)


def settings_form(record: ModelRecord, suggested: Mapping[str, float]) -> str:
    """The fields of a model, filled in. suggested: what its makers advise, by field."""
    values = _values(record)
    served, talks = record.model_type in SERVED, record.model_type is ModelType.LLM
    parts = [_field("name", values["name"], 'maxlength="255" required spellcheck="false"')]
    if served and record.source is not Source.REMOTE:
        parts.append(_context(record, values["context_length"]))
    if talks:
        parts.append(_generation(values, suggested, record.source is Source.REMOTE))
        parts.append(_area("system_prompt", values["system_prompt"]))
    if record.source is Source.REMOTE:
        parts.append(_field("server_key", "", 'maxlength="500" spellcheck="false"', kind="password"))
    if served and record.source not in ELSEWHERE:
        parts.append(_field("adapter", values["adapter"], 'spellcheck="false" placeholder="/path/to/adapter"'))
    return (
        f'<form class="mi-form" id="settings-form" data-model="{record.id}" novalidate>'
        f'<p class="mi-note is-form" id="settings-fault" role="alert" hidden></p>{"".join(parts)}</form>'
    )


def read_form(record: ModelRecord, fields: Mapping[str, object]) -> Filled:
    """What a form asks for. Its texts come from a browser; fields that are missing stay as they are."""
    faults: dict[str, str] = {}
    read: dict[str, Any] = {}
    for name, value in fields.items():
        reader = _READERS.get(name)
        if reader is None or not isinstance(value, str):
            continue
        try:
            read[name] = reader(value.strip())
        except (InvalidRequest, InvalidLocalPath) as error:
            faults[name] = error.message
        except ValueError:
            faults[name] = f"{LABELS[name]} is {GENERATION[name].sentence}."
    settings = _merged(record.settings, read)
    renamed = {"name": read["name"]} if read.get("name", record.name) != record.name else {}
    changed = {"settings": settings} if settings != record.settings else {}
    later = any(settings.get(name) != record.settings.get(name) for name in AT_NEXT_LOAD)
    return Filled(renamed | changed, faults, later, read.get("server_key"))


def _merged(settings: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with what was read in place of what was there; what a form does not show stays."""
    merged = dict(settings)
    plain = {name: read[name] for name in ("context_length", "adapter", "system_prompt") if name in read}
    sampling = {name: read[name] for name in GENERATION if name in read}
    if sampling:
        plain["generation"] = {
            name: value for name, value in {**generation_of(settings), **sampling}.items() if value is not None
        }
    for name, value in plain.items():
        if value:
            merged[name] = value
        else:
            merged.pop(name, None)
    return merged


def _name(text: str) -> str:
    check_name(text)
    return text


def _tokens(text: str) -> int | None:
    count = int(text) if text.isdecimal() and len(text) <= LONGEST_COUNT else None
    if text and not is_dimension(count):
        raise InvalidRequest("A whole number of tokens, 1 or more; empty for the model's own.")
    return count


def _number(name: str) -> Read:
    bounds = GENERATION[name]

    def read(text: str) -> float | None:
        if not text:
            return None
        value = int(text) if bounds.whole else float(text)
        if not bounds.admit(value):
            raise ValueError(text)
        return value

    return read


_READERS: Mapping[str, Read] = {
    "name": _name,
    "context_length": _tokens,
    "system_prompt": lambda text: text.encode(errors="replace").decode() or None,
    "server_key": lambda text: text or None,
    "adapter": lambda text: str(adapter_at(text)) if text else None,
    **{name: _number(name) for name in GENERATION},
}


def _values(record: ModelRecord) -> dict[str, str]:
    """The texts that the fields begin with."""
    settings = record.settings
    plain = {name: settings.get(name) for name in AT_NEXT_LOAD}
    told = {**plain, **generation_of(settings), "system_prompt": system_prompt_of(settings), "name": record.name}
    return {name: "" if told.get(name) is None else f"{told[name]}" for name in LABELS}


def _field(name: str, value: str, more: str = "", hint: str | None = None, kind: str = "text") -> str:
    described, later = f"set-{name}-hint", name in AT_NEXT_LOAD
    tag = '<small class="mi-tag">at the next load</small>' if later else ""
    more += " data-later" if later else ""
    return (
        f'<div class="mi-field"><label for="set-{name}">{LABELS[name]}{tag}</label>'
        f'<input type="{kind}" id="set-{name}" name="{name}" value="{escape(value)}" autocomplete="off" '
        f'aria-describedby="{described} set-{name}-fault" {more}>{_below(name, hint or HINTS[name])}</div>'
    )


def _below(name: str, hint: str) -> str:
    return (
        f'<p class="mi-hint" id="set-{name}-hint">{escape(hint)}</p>'
        f'<p class="mi-fault" id="set-{name}-fault" aria-live="polite"></p>'
    )


def _context(record: ModelRecord, value: str) -> str:
    own = record.context_length
    hint = f"Tokens. Empty: the model's own, {words.tokens(own)}." if own else "Tokens. Empty: the model's own."
    most = f' placeholder="{own}"' if own else ""
    field = _field("context_length", value, f'inputmode="numeric"{most}', hint)
    return f'{field}<div class="mi-room-place" data-room="{record.id}"></div>'


def _generation(values: Mapping[str, str], suggested: Mapping[str, float], elsewhere: bool) -> str:
    """The defaults of answers. elsewhere: a server has defaults of its own where these are empty."""
    fields = "".join(
        _field(
            name,
            values[name],
            f'inputmode="decimal" step="{STEPS.get(name, "1")}" {"" if elsewhere else _placeholder(name)}',
        )
        for name in GENERATION
    )
    own = " Empty: as the server does it." if elsewhere else ""
    return (
        '<fieldset class="mi-fieldset"><legend>Answers</legend><p class="mi-hint">Hold at once, for every request '
        f'that does not say otherwise.{own}</p><div class="mi-fields">{fields}</div>'
        f"{_suggestion(suggested)}</fieldset>"
    )


def _placeholder(name: str) -> str:
    return f'placeholder="{DEFAULTS[name]}"' if DEFAULTS[name] else ""


def _suggestion(suggested: Mapping[str, float]) -> str:
    """A button that fills in what the model's makers advise."""
    known = {name: value for name, value in suggested.items() if name in GENERATION and GENERATION[name].admit(value)}
    if not known:
        return ""
    said = ", ".join(f"{LABELS[name].lower()} {value:g}" for name, value in known.items())
    data = " ".join(f'data-{name.replace("_", "-")}="{value:g}"' for name, value in known.items())
    return (
        f'<p class="mi-suggested"><span>Its makers advise {said}.</span>'
        f'<button type="button" class="mi-btn" data-fill {data}>Fill in</button></p>'
    )


def _area(name: str, value: str) -> str:
    return (
        f'<div class="mi-field"><label for="set-{name}">{LABELS[name]}</label>'
        f'<textarea id="set-{name}" name="{name}" rows="4" aria-describedby="set-{name}-hint set-{name}-fault">'
        f"{escape(value)}</textarea>{_below(name, HINTS[name])}</div>"
    )
