"""The line drawings of the page, as inline SVG and as data addresses for CSS masks."""

SHAPES = {
    "download": '<path d="M12 3v12m0 0 4.5-4.5M12 15l-4.5-4.5"/>'
    '<path d="M4 17v2a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-2"/>',
    "models": '<path d="m12 2.5 8.5 4.75v9.5L12 21.5l-8.5-4.75v-9.5z"/>'
    '<path d="m3.5 7.25 8.5 4.75 8.5-4.75M12 12v9.5"/>',
    "playground": '<path d="M21 12a8.5 8.5 0 0 1-12.3 7.6L3.5 21l1.4-5.2A8.5 8.5 0 1 1 21 12z"/>',
    "play": '<path d="M7 4.5v15l12-7.5z"/>',
    "eject": '<path d="m12 5-7 9h14z"/><path d="M5 18.5h14"/>',
    "trash": '<path d="M4 7h16M9.5 7V4.5h5V7"/>'
    '<path d="m6.5 7 .8 12a1.5 1.5 0 0 0 1.5 1.5h6.4a1.5 1.5 0 0 0 1.5-1.5l.8-12M10 11v5.5M14 11v5.5"/>',
    "copy": '<rect x="8.5" y="8.5" width="11.5" height="11.5" rx="2"/>'
    '<path d="M15.5 8.5V6a2 2 0 0 0-2-2H6a2 2 0 0 0-2 2v7.5a2 2 0 0 0 2 2h2.5"/>',
    "stop": '<rect x="6" y="6" width="12" height="12" rx="2"/>',
    "send": '<path d="M12 20V5m0 0-6.5 6.5M12 5l6.5 6.5"/>',
    "retry": '<path d="M20 5v5h-5"/><path d="M20 10a8 8 0 1 0-.9 5.9"/>',
    "contrast": '<circle cx="12" cy="12" r="8.5"/>'
    '<path d="M12 3.5a8.5 8.5 0 0 1 0 17z" fill="currentColor" stroke="none"/>',
    "close": '<path d="m6 6 12 12M18 6 6 18"/>',
    "check": '<path d="m5 12.5 4.5 4.5L19 7.5"/>',
    "alert": '<path d="M12 8.5v4.5M12 16.5v.1"/><circle cx="12" cy="12" r="9"/>',
    "chip": '<rect x="7" y="7" width="10" height="10" rx="1.5"/>'
    '<path d="M10 3.5V7m4-3.5V7m-4 10v3.5m4-3.5v3.5M3.5 10H7m-3.5 4H7m10-4h3.5M17 14h3.5"/>',
    "search": '<circle cx="11" cy="11" r="6.5"/><path d="m16 16 4.5 4.5"/>',
    "chart": '<path d="M4 20h16"/><path d="M7 16v-5"/><path d="M12 16V6"/><path d="M17 16v-8"/>',
    "sliders": '<path d="M4 7h9m5 0h2M4 17h2m5 0h9"/>'
    '<circle cx="15.5" cy="7" r="2.5"/><circle cx="8.5" cy="17" r="2.5"/>',
    "info": '<circle cx="12" cy="12" r="9"/><path d="M12 11v5.5M12 7.6v.1"/>',
    "list": '<path d="M9 6h11M9 12h11M9 18h11M4.5 6h.1M4.5 12h.1M4.5 18h.1"/>',
    "plus": '<path d="M12 5v14M5 12h14"/>',
    "pencil": '<path d="M4 20l1-4L16.5 4.5a2.1 2.1 0 0 1 3 3L8 19z"/>',
    "code": '<path d="m8.5 7-5 5 5 5M15.5 7l5 5-5 5"/>',
    "save": '<path d="M6.5 3.5h11v17L12 16.5l-5.5 4z"/>',
    "shield": '<path d="M12 3 5 6v5.5c0 4.3 2.9 8 7 9.5 4.1-1.5 7-5.2 7-9.5V6z"/><path d="m9 12 2.2 2.2L15.2 10"/>',
}


def icon(name: str, pixels: int = 18) -> str:
    """An SVG element, hidden from screen readers. theme.css draws it in the colour of the text around it."""
    box = f'width="{pixels}" height="{pixels}" viewBox="0 0 24 24"'
    return f'<svg class="mi-icon" {box} aria-hidden="true">{SHAPES[name]}</svg>'


def mask(name: str) -> str:
    """The same drawing as a CSS `url(...)` for `mask`."""
    stroke = 'fill="none" stroke="black" stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" {stroke}>{SHAPES[name]}</svg>'
    for letter, escaped in (('"', "'"), ("#", "%23"), ("<", "%3C"), (">", "%3E")):
        svg = svg.replace(letter, escaped)
    return f'url("data:image/svg+xml,{svg}")'
