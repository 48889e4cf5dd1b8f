"""The slider's steps: every figure that the table shows, in words, for each length."""

import html as html_module
import json
import re
from dataclasses import replace
from typing import Any

from test_preview_card import MEMORY, PREVIEW, SIZES

from millm.estimate import Estimate
from millm.records import Quantization
from millm.ui import words
from millm.ui.memory_steps import context_slider, form_labels, verdict_line
from millm.views import Preview

GB = 10**9


def at(weights: int, tokens: int) -> Estimate:
    return Estimate(weights, tokens * 100_000, tokens * 20_000, 0, tokens, "exact")


def preview(free: int = 4 * GB, counted: int = 4096, lengths: tuple[int, ...] = (256, 4096, 32_768)) -> Preview:
    weights = {Quantization.Q4: GB, Quantization.Q8: 3 * GB, Quantization.FP16: 6 * GB}
    forms = {
        form: replace(SIZES, memory=at(size, counted), along=tuple(at(size, tokens) for tokens in lengths))
        for form, size in weights.items()
    }
    return replace(PREVIEW, sizes=forms, memory_free=free)


def steps(shown: Preview) -> list[dict[str, Any]]:
    found = re.search(r'data-steps="([^"]*)"', context_slider(shown))
    assert found
    return list(json.loads(html_module.unescape(found[1])))


def test_every_step_holds_what_the_table_shows_for_it() -> None:
    short, middle, long = steps(preview())
    assert [row[:3] for row in middle["rows"]] == [
        ["1.5 GB", 37, "ok"],
        ["3.5 GB", 87, "tight"],
        ["6.5 GB", 100, "exceeds"],
    ]
    assert [row[3] for row in long["rows"]] == ["does not fit"] * 3
    assert short["parts"][:3] == ["1.0 GB", "3.0 GB", "6.0 GB"]
    assert long["parts"][3:] == ["3.3 GB"] * 3 + ["655 MB"] * 3
    assert middle["aloud"] == "4K tokens: Q4 fits, Q8 just fits, FP16 does not fit"
    assert (long["tokens"], long["said"]) == (32_768, "32K")


def test_the_slider_stands_where_it_was_counted() -> None:
    html = context_slider(preview(counted=32_768))
    assert 'data-counted="2"' in html
    assert 'max="2" step="1" value="2"' in html
    assert 'aria-valuetext="32K tokens: ' in html


def test_there_is_no_slider_without_a_choice() -> None:
    assert context_slider(PREVIEW) == "", "the model does not say how long it can be"
    assert context_slider(preview(lengths=(128,))) == ""


def test_the_verdict_names_the_forms_that_fit_and_why() -> None:
    def said(free: int) -> str:
        return re.sub(r"<[^>]+>", "|", verdict_line(preview(free)))

    assert "Fits in memory as Q4, Q8 or FP16||Needs 1.5 GB as Q4, 90.0 GB of memory free." in said(90 * GB)
    assert "Fits in memory as Q4|" in said(4 * GB)
    assert "Just fits in memory as Q4|" in said(int(1.6 * GB))
    assert "Too big for this computer||Needs 1.5 GB as Q4, 1.0 GB of memory free." in said(GB)
    assert 'class="mi-fit is-exceeds"' in verdict_line(preview(GB))
    assert "Fits in GPU memory|" in re.sub(r"<[^>]+>", "|", verdict_line(replace(PREVIEW, on_gpu=True)))
    unknown = replace(MEMORY, weights=0, kv_cache=0, activations=0)
    nothing = {Quantization.FP16: replace(SIZES, memory=unknown)}
    assert verdict_line(replace(PREVIEW, sizes=nothing)) == ""


def test_choices_say_what_each_form_takes() -> None:
    forms = tuple(Quantization)
    assert form_labels(None, forms)[0] == ("Q4\nrecommended", "Q4")
    shown = preview()
    assert [label for label, _ in form_labels(shown, forms)][:1] == [
        f"Q4\n{words.size(shown.sizes[Quantization.Q4].memory.total)} · fits"
    ]
    published = form_labels(PREVIEW, forms)
    assert published[0] == ("Q4\nas published", "Q4")
