"""The HTML of the card beside the download form: what would come, what it costs, and what happens then."""

from html import escape
from typing import TYPE_CHECKING

from millm.records import Quantization, Source, architecture_facts, short_count
from millm.ui import words
from millm.ui.cards import bar, note
from millm.ui.icons import icon

if TYPE_CHECKING:
    from millm.sources.base import Plan
    from millm.views import Preview, Sizes

STEPS = (
    ("The exact commit is chosen", "Every file is pinned to it, and the disk is checked before the first byte."),
    ("Only what is needed comes", "Safetensors weights, config and tokenizer; never a second copy of the weights."),
    ("Every weight file is verified", "Nothing is stored until every file is there and its sha256 is right."),
    ("It goes on without you", "Close this page if you like. The download belongs to miLLM, not to the tab."),
)


def hints() -> str:
    """What stands there before the first preview."""
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
        f'aria-hidden="true"></span>Looking up {escape(title)}…</p></section>'
    )


def refused(message: str) -> str:
    """What stands there when the source said no."""
    return f'<section class="mi-panel-html" role="alert">{note(message)}</section>'


def preview_card(preview: "Preview") -> str:
    """What a source would bring and what it would cost here."""
    plan = preview.plan
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _rows(preview))
    costs = "".join(_cost(preview, quantization, sizes) for quantization, sizes in preview.sizes.items())
    return (
        f'<section class="mi-panel-html mi-preview" aria-label="Preview of {escape(plan.title)}">'
        f'<header class="mi-preview-head"><h2>{_title(plan)}</h2>{_tags(plan)}</header>'
        f'<dl class="mi-rows">{rows}</dl>{costs}{_warnings(plan)}</section>'
    )


def _title(plan: "Plan") -> str:
    title = escape(plan.title)
    if not (plan.link or "").startswith(("https://", "http://")):
        return title
    return f'<a href="{escape(plan.link or "")}" target="_blank" rel="noopener noreferrer">{title}</a>'


def _tags(plan: "Plan") -> str:
    tags = ["Gated"] if plan.gated else []
    tags += ["Needs its own code"] if plan.requires_remote_code else []
    items = "".join(f'<li class="is-warning">{tag}</li>' for tag in tags)
    return f'<ul class="mi-tags">{items}</ul>' if tags else ""


def _rows(preview: "Preview") -> list[tuple[str, str]]:
    plan = preview.plan
    facts = architecture_facts(plan.config)
    context = facts["context_length"]
    rows = [
        ("Name", f"<code>{escape(plan.suggested_name)}</code>"),
        ("Parameters", escape(short_count(plan.param_count) or "not stated")),
        ("Architecture", escape(str(facts["architecture"] or "not stated"))),
        ("Context", f"{words.tokens(context)} tokens" if context else "not stated"),
        ("Licence", escape(plan.license or "not stated")),
    ]
    if plan.commit:
        rows.append(("Commit", f'<code title="{escape(plan.commit)}">{escape(plan.commit[:8])}</code>'))
    local = plan.origin.source is Source.LOCAL
    rows.append(("Files", words.several(len(plan.files), "file")))
    rows.append(("On disk" if local else "Download", words.size(plan.total_bytes)))
    rows.append(("Disk free", words.size(preview.disk_free)))
    return rows


def _cost(preview: "Preview", quantization: Quantization, sizes: "Sizes") -> str:
    need, free = sizes.memory.total, preview.memory_free
    enough = need <= free
    verdict = f"{quantization}: fits in memory" if enough else f"{quantization}: needs more memory than is free"
    lack = ""
    if sizes.peak_disk_bytes > preview.disk_free:
        have = words.size(preview.disk_free)
        lack = note(f"Insufficient disk space. Need {words.size(sizes.peak_disk_bytes)}, only {have} available.")
    return (
        f'<div class="mi-cost {"is-ok" if enough else "is-bad"}">{icon("check" if enough else "alert")}<div>'
        f"<b>{verdict}</b><p>About {words.size(need)} of {words.size(free)} free</p>"
        f"{bar(100 * need / max(1, free), f'Memory {quantization} needs, of what is free')}"
        f"<p>{escape(_parts(sizes))}</p></div></div>{lack}"
    )


def _parts(sizes: "Sizes") -> str:
    memory = sizes.memory
    parts = (
        ("weights", memory.weights),
        (f"context of {words.tokens(memory.context_length)} tokens", memory.kv_cache),
        ("activations", memory.activations),
        ("device", memory.overhead),
    )
    return ", ".join(f"{words.size(count)} {name}" for name, count in parts if count) + f"; {memory.provenance}"


def _warnings(plan: "Plan") -> str:
    said = list(plan.warnings)
    if plan.gated:
        said.append("This model is gated. Accept its licence on HuggingFace and enter an access token.")
    if plan.requires_remote_code:
        allowed = plan.origin.trust_remote_code
        said.append(
            "Loading it runs Python code from the repository, "
            + ("which you have allowed." if allowed else "which you have not allowed. It will not load.")
        )
    return "".join(note(text, "is-warning") for text in dict.fromkeys(said))
