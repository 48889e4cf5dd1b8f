"""What a quantization costs stands on the card of its model."""

import re

from millm.details import Details
from millm.records import ModelRecord, Quantization, Source, Status
from millm.ui.cards import card, compare_button
from millm.ui.details_sheet import details_sheet
from millm.ui.quality_table import quality_table

MEASURED = {
    "tokens": 512,
    "kl_divergence": 0.01234,
    "top1_agreement": 0.953,
    "text": "built-in",
    "reference": {"name": "big<b>", "quantization": "FP16", "perplexity": 9.5, "tokens_per_s": 8.0,
        "memory_bytes": 10**9},
    "model": {"perplexity": 9.81, "tokens_per_s": 19.0, "memory_bytes": 4 * 10**8},
}  # fmt: skip
RECORD = ModelRecord(id=3, name="big-q4", quantization=Quantization.Q4, status=Status.READY, quality=MEASURED)


def test_both_forms_stand_side_by_side() -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", quality_table(RECORD)))
    assert "Quality: 95% of next tokens as in FP16" in text
    assert "Q4 FP16 Perplexity 9.81 9.50 Speed 19.0 tok/s 8.0 tok/s Weights 400 MB 1.0 GB" in text
    assert "KL divergence 0.0123 nats for each token" in text
    assert "against &#x27;big&lt;b&gt;&#x27;" in text


def test_only_what_is_quantized_here_can_be_measured() -> None:
    assert "compare-btn-3" in compare_button(RECORD)
    assert compare_button(RECORD.with_(quantization=Quantization.FP16)) == ""
    assert compare_button(RECORD.with_(source=Source.OLLAMA, quantization=Quantization.FP16)) == ""


def test_the_card_says_the_one_figure_and_the_details_all_of_them() -> None:
    assert "Quality: 95% of next tokens as in FP16" in card(RECORD)
    assert "Quality:" not in card(RECORD.with_(quality=None))
    assert "mi-quality" in details_sheet(RECORD, Details())
