"""The HTML of the card beside the download form: what would come, what it costs, and what happens then."""

from html import escape
from typing import TYPE_CHECKING

from millm.errors import (
    GatedModel,
    InsufficientDisk,
    InvalidLocalPath,
    InvalidRepoId,
    InvalidToken,
    InvalidUrl,
    MiLLMError,
    RepoNotFound,
    RevisionNotFound,
)
from millm.records import ELSEWHERE, SERVED, ModelType, Source, architecture_facts, short_count
from millm.ui import words
from millm.ui.cards import note
from millm.ui.costs import costs
from millm.ui.icons import icon
from millm.ui.memory_steps import context_slider, verdict_line

if TYPE_CHECKING:
    from millm.sources.base import Plan
    from millm.views import Preview

PLACE = {
    Source.HUGGINGFACE: "repo-input",
    Source.LOCAL: "path-input",
    Source.URL: "url-input",
    Source.OLLAMA: "ollama-input",
    Source.REMOTE: "remote-input",
}
"""The field that says where a model comes from."""
MAY_FOLLOW = ("remote-model", "remote-key")  # what is typed last
STEPS = (
    ("The exact commit is chosen", "Every file is pinned to it, and the disk is checked before the first byte."),
    ("Only what is needed comes", "Safetensors weights, config and tokenizer; never a second copy of the weights."),
    ("Every weight file is verified", "Nothing is stored until every file is there and its sha256 is right."),
    ("It goes on without you", "Close this page if you like. The download belongs to miLLM, not to the tab."),
)


def hints() -> str:
    """What a download does, for those who wonder."""
    steps = "".join(
        f'<li><span class="mi-step" aria-hidden="true">{number}</span><div><b>{title}</b><p>{text}</p></div></li>'
        for number, (title, text) in enumerate(STEPS, start=1)
    )
    return (
        '<section class="mi-panel-html"><h2 class="mi-h2">When you press Download</h2>'
        f'<ol class="mi-steps">{steps}</ol></section>'
    )


def looking(title: str) -> str:
    """What stands there while a source is asked."""
    return (
        '<section class="mi-panel-html"><p class="mi-looking" role="status"><span class="mi-spinner" '
        f'aria-hidden="true"></span><span>Looking up {escape(title)}…</span>'
        '<button type="button" class="mi-btn" data-press="lookup-cancel-btn">Cancel</button></p></section>'
    )


def refused(error: MiLLMError) -> str:
    """What stands there when the source said no, with the way to the page where a licence is accepted."""
    link = _web_link(str(error.details.get("link") or ""), "Open the model's page")
    way = f'<p class="mi-way">{link}</p>' if link and isinstance(error, GatedModel) else ""
    return f'<section class="mi-panel-html" role="alert">{note(error.message)}{way}</section>'


def doubt(error: MiLLMError) -> str:
    """The same where nobody asked: the text in the field may be unfinished, so this is no alarm."""
    if isinstance(error, InvalidRepoId):
        return ""
    return f'<section class="mi-panel-html">{note(error.message, "is-plain")}</section>'


def problem_mark(error: MiLLMError, source: Source, asked: bool) -> str:
    """Tells the script under which field to say what is wrong. asked: the person pressed a button."""
    match error:
        case MiLLMError(details={"field": "server_key"}) if source is Source.REMOTE:
            field = "remote-key"
        case MiLLMError(details={"field": "repo_id"}) if source is Source.REMOTE:
            field = "remote-model"
        case InvalidRepoId() | RepoNotFound() | InvalidLocalPath() | InvalidUrl():
            field = PLACE[source]
        case RevisionNotFound():
            field = "revision-input"
        case InvalidToken():
            field = "token-input"
        case _:
            return ""
    reason = error.details.get("reason")
    said = f"{error.message} ({str(reason).capitalize()}.)" if reason else error.message
    sure = asked or not (isinstance(error, RepoNotFound) or field in MAY_FOLLOW)
    return f'<i hidden data-field="{field}" data-problem="{escape(said)}" data-sure="{"yes" if sure else ""}"></i>'


def preview_card(preview: "Preview", kind: ModelType = ModelType.LLM) -> str:
    """What a source would bring and what it would cost here. kind: what the model is to be used for."""
    plan = preview.plan
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _rows(preview))
    served = kind in SERVED and plan.origin.source not in ELSEWHERE
    verdict, memory = (verdict_line(preview), context_slider(preview) + costs(preview)) if served else ("", "")
    talks = served and kind is ModelType.LLM
    return (
        f'<section class="mi-panel-html mi-preview" aria-label="Preview of {escape(plan.title)}">'
        f'<header class="mi-preview-head"><h2>{_title(plan)}</h2>{_tags(preview)}</header>{verdict}{_good(preview)}'
        f'<dl class="mi-rows">{rows}</dl>{memory}{_lack(preview)}{_problems(preview, talks)}'
        "</section>"
    )


def _web_link(link: str, text: str) -> str:
    """A link that opens beside the page; "" for whatever is not an address of the web."""
    if not link.startswith(("https://", "http://")):
        return ""
    return f'<a href="{escape(link)}" target="_blank" rel="noopener noreferrer">{escape(text)}</a>'


def _title(plan: "Plan") -> str:
    return _web_link(plan.link or "", plan.title) or escape(plan.title)


def _tags(preview: "Preview") -> str:
    plan = preview.plan
    tags = ["Gated"] if plan.gated else []
    tags += ["Needs its own code"] if preview.requires_remote_code else []
    tags += ["Pickle only"] if plan.format == "pickle" else []
    tags += ["In your list"] if preview.existing else []
    items = "".join(f'<li class="is-warning">{tag}</li>' for tag in tags)
    return f'<ul class="mi-tags">{items}</ul>' if tags else ""


def _good(preview: "Preview") -> str:
    """What is as it should be, in one line."""
    plan = preview.plan
    said = ["safetensors"] if plan.format == "safetensors" else []
    said += ["gated, and open to the access token"] if preview.access == "granted" else []
    said += ["chat template"] if plan.chat_template else []
    said += ["architecture known to transformers"] if preview.known_architecture else []
    said += [f"{words.size(plan.cached_bytes)} in the HuggingFace cache already"] if plan.cached_bytes else []
    if not said:
        return ""
    line = ", ".join(said)
    return f'<p class="mi-good">{icon("check", 16)}<span>{line[0].upper()}{line[1:]}</span></p>'


def _rows(preview: "Preview") -> list[tuple[str, str]]:
    plan = preview.plan
    facts = architecture_facts(plan.config)
    context = facts["context_length"]
    known = {
        "Parameters": short_count(plan.param_count),
        "Architecture": facts["architecture"] and str(facts["architecture"]),
        "Context": f"{words.tokens(context)} tokens" if context else None,
        "Licence": plan.license,
    }
    # an archive or a single file states none of these before it is here
    stated = plan.config or plan.origin.source in (Source.HUGGINGFACE, Source.LOCAL)
    rows = [("Name", f"<code>{escape(plan.suggested_name)}</code>")]
    rows += [(name, escape(value or "not stated")) for name, value in known.items() if value or stated]
    if plan.commit:
        rows.append(("Commit", f'<code title="{escape(plan.commit)}">{escape(plan.commit[:8])}</code>'))
    there = {Source.LOCAL: "On disk", Source.OLLAMA: "In Ollama already"}
    if plan.files:
        rows.append(("Files", words.several(len(plan.files), "file")))
    if plan.total_bytes:
        rows.append(
            (there.get(plan.origin.source, "Download"), words.size(max(0, plan.total_bytes - plan.cached_bytes)))
        )
    if peaks := [sizes.peak_disk_bytes for sizes in preview.sizes.values() if sizes.peak_disk_bytes]:
        low, high = words.size(min(peaks)), words.size(max(peaks))
        needed = low if low == high else f"{low} to {high}"
        rows.append(("Disk while it comes", f"{needed} of {words.size(preview.disk_free)} free"))
    return rows


def _lack(preview: "Preview") -> str:
    peak = min((sizes.peak_disk_bytes for sizes in preview.sizes.values()), default=0)
    if peak <= preview.disk_free:
        return ""
    return note(InsufficientDisk(peak, preview.disk_free).message)


def _problems(preview: "Preview", talks: bool) -> str:
    """What the person should know before downloading, the gravest first. talks: it is to be chatted with here."""
    plan, said = preview.plan, []
    if preview.existing:
        status = words.STATUS[preview.existing.status].lower()
        said.append(f"This is '{preview.existing.name}' of your list already ({status}).")
    if talks and preview.known_architecture is False and not preview.requires_remote_code:
        said.append("The installed transformers does not know this architecture. The model will probably not load.")
    said += plan.warnings
    if preview.requires_remote_code:
        said.append(_code(plan))
    if talks and plan.chat_template is False and not plan.refusal:
        said.append("There is no chat template: the model completes text, but cannot answer a conversation.")
    if preview.quantized_as:
        said.append(f"The weights are quantized already ({preview.quantized_as}).")
    gated = _refusal(plan) if plan.refusal else ""
    # what is said of a server's model is how things are, not what is wrong with them
    kind = "is-plain" if plan.origin.source in ELSEWHERE else "is-warning"
    return gated + "".join(note(text, kind) for text in dict.fromkeys(said))


def _refusal(plan: "Plan") -> str:
    """Why it can be looked at but not downloaded, and where that can be changed."""
    page = _web_link(plan.link or "", "Open its page")
    return f'<p class="mi-note is-warning">{icon("alert", 16)}<span>{escape(str(plan.refusal))} {page}</span></p>'


def _code(plan: "Plan") -> str:
    named = ", ".join(plan.code_files) or "Python code from the repository"
    allowed = "allowed." if plan.origin.trust_remote_code else "not allowed. It will not load."
    return f"Loading it runs {named}, which you have {allowed}"
