"""Whether a model goes into memory: what it needs against what is free, now and after unloading."""

import re
from dataclasses import replace

from millm.estimate import Estimate
from millm.ui.memory_picture import memory_picture
from millm.views import Room

NEEDED = Estimate(3_000_000_000, 1_000_000_000, 500_000_000, 0, 4096, "exact")
ROOM = Room(NEEDED, free=2_000_000_000, freed=4_000_000_000, present=2, fit="ok", on_gpu=False)


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def test_needs_free_now_and_after_unloading() -> None:
    said = text(memory_picture(ROOM, "old <b>"))
    assert said.startswith("Needs 4.5 GB Memory free now 2.0 GB After unloading old &lt;b&gt; 6.0 GB")
    assert "Weights 3.0 GB Cache for 4K tokens 1.0 GB Reading the prompt 500 MB" in said
    assert "Device" not in said
    assert "Fits, 1.5 GB to spare." in said
    assert "exact to the byte" in said


def test_without_a_present_model_there_is_nothing_to_unload() -> None:
    said = text(memory_picture(replace(ROOM, freed=0, present=None, fit="exceeds", on_gpu=True)))
    assert "After unloading" not in said
    assert "GPU memory free now 2.0 GB" in said
    assert "Does not fit: 2.5 GB short." in said


def test_the_bar_shows_what_is_free_on_the_same_scale() -> None:
    html = memory_picture(replace(ROOM, freed=250_000_000, fit="exceeds"), "old")
    assert 'class="mi-room-free" style="width:50.00%"' in html
    assert 'class="is-part-1" style="width:66.67%"' in html
    assert 'class="mi-room is-exceeds"' in html


def test_how_much_context_fits_is_said_where_it_is_known() -> None:
    assert "tokens of context fit" not in memory_picture(ROOM, "old")
    for most, sentence in ((8192, "Up to 8K tokens of context fit."), (0, "No context fits.")):
        assert sentence in memory_picture(replace(ROOM, needed=replace(NEEDED, most_context=most)), "old")


def test_a_rough_estimate_says_so() -> None:
    rough = replace(ROOM, needed=replace(NEEDED, provenance="from file sizes", note="Hardly <smaller>."))
    assert "Roughly, from file sizes. Hardly &lt;smaller&gt;." in memory_picture(rough, "old")
