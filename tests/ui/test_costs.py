"""The table of what each quantization takes says what fits, how long a context, and what it is made of."""

import re
from dataclasses import replace

from test_preview_card import MEMORY, PREVIEW, SIZES

from millm.records import Quantization
from millm.ui.costs import costs

SMALL = replace(MEMORY, weights=1_500_000_000, provenance="exact", most_context=23_040)
FORMS = {
    Quantization.Q4: replace(SIZES, disk_bytes=1_600_000_000, memory=SMALL),
    Quantization.Q8: replace(SIZES, memory=replace(MEMORY, most_context=0), fit="tight"),
    Quantization.FP16: replace(SIZES, fit="exceeds"),
}


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_a_row_for_each_form() -> None:
    html = costs(replace(PREVIEW, sizes=FORMS, memory_free=4_000_000_000))
    text = plain(html)
    assert "Memory with 4K tokens of context 4.0 GB free" in text
    assert "Q4 2.0 GB fits 1.6 GB on disk · up to 23,040 tokens fit" in text
    assert "Q8 5.5 GB just fits 5.0 GB on disk · no context fits" in text
    assert "FP16 5.5 GB does not fit 5.0 GB on disk" in text
    assert re.findall(r'aria-valuenow="(\d+)"', html) == ["50", "100", "100"]


def test_the_parts_stand_side_by_side() -> None:
    text = plain(costs(replace(PREVIEW, sizes=FORMS)))
    assert "Q4 Q8 FP16 Weights 1.5 GB 5.0 GB 5.0 GB Context (KV cache) 400 MB 400 MB 400 MB" in text
    assert "Device" not in text
    assert "exact to the byte" in text
    assert "Roughly, from parameter count." in plain(costs(PREVIEW))


def test_what_quantizing_hardly_saves_is_said_once_and_escaped() -> None:
    noted = replace(SIZES, memory=replace(MEMORY, note="hardly <saves>"))
    html = costs(replace(PREVIEW, sizes={Quantization.Q4: noted, Quantization.Q8: noted, Quantization.FP16: SIZES}))
    assert html.count("hardly &lt;saves&gt;") == 1


def test_a_model_whose_memory_is_unknown_has_no_table() -> None:
    unknown = replace(MEMORY, weights=0, kv_cache=0, activations=0)
    assert costs(replace(PREVIEW, sizes={Quantization.FP16: replace(SIZES, memory=unknown)})) == ""
