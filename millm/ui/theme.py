"""The look: gradio's theme in the colours of miLLM."""

import gradio as gr

# shades 50 to 950
IRIS = (
    *("#f3f2fe", "#e7e5fd", "#d2cffb", "#b5b1f8", "#a09cf6", "#8f8bf5"),
    *("#5450c9", "#4642b3", "#3a378f", "#2e2c6d", "#1e1d46"),
)
INK = (
    *("#f8f8fa", "#f3f3f7", "#e2e2ea", "#cfcfda", "#a3a5b3", "#777987"),
    *("#5d5d6b", "#3b3e4a", "#2a2c35", "#1a1b21", "#121317"),
)

SHAPE = {
    "block_border_width": "1px",
    "block_label_shadow": "none",
    "block_radius": "12px",
    "block_shadow": "none",
    "block_title_text_weight": "700",
    "button_large_padding": "10px 18px",
    "button_large_radius": "10px",
    "button_large_text_size": "14.5px",
    "button_large_text_weight": "700",
    "button_medium_radius": "10px",
    "button_medium_text_weight": "700",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "button_small_radius": "9px",
    "input_border_width": "1px",
    "input_radius": "10px",
    "input_shadow": "none",
    "layout_gap": "18px",
}

# name of gradio's variable: (light, dark)
COLOURS = {
    "background_fill_primary": ("#ffffff", "#1a1b21"),
    "background_fill_secondary": ("#f3f3f7", "#22242c"),
    "block_background_fill": ("#ffffff", "#1a1b21"),
    "block_border_color": ("#e2e2ea", "#2a2c35"),
    "block_info_text_color": ("#5d5d6b", "#a3a5b3"),
    "block_title_text_color": ("#1c1c24", "#ebebf0"),
    "body_background_fill": ("#f4f4f7", "#121317"),
    "body_text_color": ("#1c1c24", "#ebebf0"),
    "body_text_color_subdued": ("#5d5d6b", "#a3a5b3"),
    "border_color_primary": ("#e2e2ea", "#2a2c35"),
    "button_primary_background_fill": ("#5450c9", "#8f8bf5"),
    "button_primary_background_fill_hover": ("#4642b3", "#a5a2f8"),
    "button_primary_border_color": ("#5450c9", "#8f8bf5"),
    "button_primary_text_color": ("#ffffff", "#14132b"),
    "button_secondary_background_fill": ("#ffffff", "#1a1b21"),
    "button_secondary_background_fill_hover": ("#f3f3f7", "#22242c"),
    "button_secondary_border_color": ("#cfcfda", "#3b3e4a"),
    "button_secondary_text_color": ("#1c1c24", "#ebebf0"),
    "checkbox_background_color": ("#ffffff", "#121317"),
    "checkbox_background_color_selected": ("#5450c9", "#8f8bf5"),
    "checkbox_border_color_selected": ("#5450c9", "#8f8bf5"),
    "color_accent_soft": ("#eceafc", "#26254a"),
    "input_background_fill": ("#ffffff", "#121317"),
    "input_background_fill_focus": ("#ffffff", "#121317"),
    "input_border_color": ("#cfcfda", "#3b3e4a"),
    "input_border_color_focus": ("#5450c9", "#8f8bf5"),
    "input_placeholder_color": ("#6c6e7c", "#8587a0"),
    "input_shadow_focus": ("0 0 0 3px #5450c926", "0 0 0 3px #8f8bf533"),
    "loader_color": ("#5450c9", "#8f8bf5"),
    "slider_color": ("#5450c9", "#8f8bf5"),
}


def theme() -> gr.themes.Base:
    """Gradio's own parts in miLLM's colours, light and dark, with fonts from this machine only."""
    local = gr.themes.utils.fonts.LocalFont  # regular and bold: the weights between are cut subsets
    iris, ink = gr.themes.Color(*IRIS, name="iris"), gr.themes.Color(*INK, name="ink")
    base = gr.themes.Base(
        primary_hue=iris,
        secondary_hue=iris,
        neutral_hue=ink,
        font=(local("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=(local("IBM Plex Mono", weights=(400,)), "ui-monospace", "Menlo", "monospace"),
        radius_size=gr.themes.sizes.radius_lg,
    )
    light = {name: pair[0] for name, pair in COLOURS.items()}
    dark = {f"{name}_dark": pair[1] for name, pair in COLOURS.items()}
    return base.set(**SHAPE, **light, **dark, color_accent="#5450c9")
