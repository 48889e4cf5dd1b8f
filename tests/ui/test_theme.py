"""The look: from this machine only, and the same words in both colours."""

import re

from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.icons import SHAPES, icon, mask  # noqa: E402
from millm.ui.page_files import HERE, SHEETS, script, style  # noqa: E402
from millm.ui.theme import theme  # noqa: E402


def rule(css: str, selector: str) -> set[str]:
    return set(re.findall(r"(--mi-[\w-]+):", css.split(f"\n{selector} {{")[1].split("}")[0]))


def test_nothing_is_fetched_from_elsewhere() -> None:
    ours = style() + script()
    outside = re.findall(r"https?://[\w.]+", ours) + re.findall(r"@import|//cdn", ours)
    known = {"http://www.w3.org", "http://gpu"}
    assert set(outside) <= known, "the name space of SVG and an address as an example are no requests"
    assert "GoogleFont" not in repr((theme()._font, theme()._font_mono))


def test_every_colour_has_a_dark_twin_and_every_variable_a_value() -> None:
    css = "".join((HERE / sheet).read_text() for sheet in SHEETS)
    light, dark = rule(f"\n{css}", ":root"), rule(f"\n{css}", ".dark")
    assert dark <= light
    used = set(re.findall(r"var\((--mi-[\w-]+)", css))
    assert used <= light
    measures = {name for name in light if re.search(r"radius|width|height", name)}
    assert light - dark == measures


def test_icons_are_hidden_from_screen_readers_and_safe_in_css() -> None:
    for name in SHAPES:
        assert 'aria-hidden="true"' in icon(name)
        assert not set('<>#"') & set(mask(name).removeprefix('url("').removesuffix('")'))
