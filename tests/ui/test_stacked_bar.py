"""A whole and its parts: the picture and the words say the same."""

import re

from millm.ui.stacked_bar import Part, legend, stacked

PARTS = [Part("one <b>", 750, "is-a"), Part("none", 0, "is-b"), Part("two", 250, "is-c")]


def test_each_part_is_as_wide_as_its_share() -> None:
    html = stacked(PARTS, 2000, "Disk")
    assert re.findall(r'class="(is-\w)" style="width:([\d.]+)%', html) == [("is-a", "37.50"), ("is-c", "12.50")]
    assert 'role="img" aria-label="Disk: one &lt;b&gt; 750 B, two 250 B"' in html
    assert "<b>" not in html


def test_the_legend_names_what_is_there() -> None:
    html = legend(PARTS)
    assert html.count("<li>") == 2
    assert "one &lt;b&gt;</span><b>750 B</b>" in html
    assert "none" not in html
