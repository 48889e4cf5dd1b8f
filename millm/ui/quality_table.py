"""The HTML of what a quantization costs in quality, beside the form that it was compared with."""

from html import escape
from typing import Any

from millm.records import ModelRecord
from millm.ui import words


def quality_table(record: ModelRecord) -> str:
    """Both forms side by side, and how far their answers lie apart; "" where nothing was measured."""
    found = record.quality
    if not found:
        return ""
    reference, model = found["reference"], found["model"]
    heads = f'<th scope="col">{record.quantization}</th><th scope="col">{escape(str(reference["quantization"]))}</th>'
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td>{own}</td><td>{other}</td></tr>'
        for (name, own), (_, other) in zip(_figures(model), _figures(reference), strict=True)
    )
    return (
        f'<details class="mi-parts mi-quality" id="quality-{record.id}"><summary>{escape(summary(found))}</summary>'
        f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p>{escape(_apart(found))}</p></details>"
    )


def _figures(reading: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Perplexity", f"{reading['perplexity']:.2f}"),
        ("Speed", f"{reading['tokens_per_s']:.1f} tok/s"),
        ("Weights", words.size(reading["memory_bytes"])),
    ]


def summary(found: dict[str, Any]) -> str:
    """The one figure that says most: how often the next token is the same."""
    same = 100 * found["top1_agreement"]
    return f"Quality: {same:.0f}% of next tokens as in {found['reference']['quantization']}"


def _apart(found: dict[str, Any]) -> str:
    return (
        f"KL divergence {found['kl_divergence']:.4f} nats for each token; measured on {found['tokens']} tokens of "
        f"{'a text that comes with miLLM' if found['text'] == 'built-in' else 'a text you gave'}, "
        f"against '{found['reference']['name']}'."
    )
