"""The suggested models beside the form."""

import re

from millm.catalog import Entry, Suggestion
from millm.records import ModelType, Quantization, Source
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.catalog_list import SHOWN_AT_ONCE, catalog_list  # noqa: E402

GB = 10**9
EVIL = "<img src=x onerror=alert(1)>\"'&"


def entry(name: str = "qwen", **options: object) -> Entry:
    options = {"source": Source.HUGGINGFACE, "model_type": ModelType.LLM, "repo_id": f"acme/{name}", **options}
    return Entry(id=name, title=f"The {name}", good_for=f"What {name} does well", **options)  # type: ignore[arg-type]


def test_a_row_says_what_it_is_for_what_it_costs_and_whether_it_fits() -> None:
    forms = {"form": Quantization.Q4, "fitting": (Quantization.Q4, Quantization.Q8)}
    sizes = {"memory": 6 * GB, "memory_free": 8 * GB, "disk_free": 90 * GB}
    html = catalog_list([Suggestion(entry(params="8B", download_mb=16_400), True, **sizes, **forms)])
    for text in ('data-pick="qwen"', "The qwen", "What qwen does well", "8B params • 16.4 GB download", ">Th<"):
        assert text in html, text
    assert "Q8 fits" in html
    assert "16.4 GB download • about 6.0 GB as Q4<" in html
    assert "8.0 GB of memory free" in html
    assert "Good fits for this computer" in html
    assert "is-ok" in html
    assert "Gated" not in html
    assert "<details>" not in html


def test_what_is_too_large_or_gated_says_so_in_words() -> None:
    html = catalog_list([Suggestion(entry(gated=True), False, memory=9 * GB, memory_free=8 * GB)])
    assert "too big<" in html
    assert "about 9.0 GB of memory, 8.0 GB free" in html
    full = catalog_list([Suggestion(entry(download_mb=9000), False, disk_free=GB)])
    assert "too big for the disk" in full
    assert "9.0 GB of disk needed, 1.0 GB free" in full
    assert "is-bad" in html
    assert "Gated" in html


def test_other_types_and_ollama_are_named() -> None:
    music = entry(model_type=ModelType.MUSIC, params="300M")
    assert "Music • 300M params" in catalog_list([Suggestion(music, True)])
    ollama = entry(source=Source.OLLAMA, repo_id=None, ollama_name="llama3:8b")
    assert "through Ollama" in catalog_list([Suggestion(ollama, True)])


def test_the_order_is_kept_and_only_the_first_are_open() -> None:
    names = [f"m{number}" for number in range(SHOWN_AT_ONCE + 3)]
    html = catalog_list([Suggestion(entry(name), True) for name in names])
    assert re.findall(r'data-pick="([^"]+)"', html) == names
    shown, folded = html.split("<details>")
    assert shown.count("data-pick") == SHOWN_AT_ONCE
    assert "3 more suggestions" in folded
    assert catalog_list([]) == ""


def test_whatever_comes_from_outside_is_text() -> None:
    evil = Entry(EVIL, EVIL, ModelType.LLM, Source.HUGGINGFACE, EVIL, repo_id=EVIL, params=EVIL)
    html = catalog_list([Suggestion(evil, True)])
    assert "<img" not in html
    assert re.findall(r"""onerror=alert\(1\)>["']""", html) == []
