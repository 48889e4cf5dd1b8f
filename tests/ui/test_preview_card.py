"""The HTML of a preview: every fact that a person decides on."""

from dataclasses import replace

import pytest

from millm.errors import GatedModel, InvalidRequest, InvalidToken, InvalidUrl, MiLLMError, RemoteUnavailable
from millm.estimate import Estimate
from millm.records import ModelRecord, ModelType, Quantization, Source, Status
from millm.sources.base import Origin, Plan, PlannedFile
from millm.ui.preview_card import looking, preview_card, problem_mark, refused
from millm.views import Preview, Sizes

EVIL = "<script>alert(1)</script>"
PLAN = Plan(
    origin=Origin(Source.HUGGINGFACE, repo_id="acme/gemma"),
    title="acme/gemma",
    suggested_name="gemma",
    files=(PlannedFile("config.json", 1_000), PlannedFile("model.safetensors", 5_000_000_000)),
    commit="c5ebcd40d208330abc697524c919956e692655cf",
    param_count=2_506_172_416,
    config={"architectures": ["Gemma2ForCausalLM"], "max_position_embeddings": 8192},
    license="gemma",
    link="https://hub.example/acme/gemma",
)
MEMORY = Estimate(5_000_000_000, 400_000_000, 100_000_000, 0, 4096, "from parameter count")
SIZES = Sizes(5_000_001_000, 5_000_001_000, 5_000_001_000, MEMORY, True, "ok")
PREVIEW = Preview(PLAN, {Quantization.FP16: SIZES}, disk_free=120_000_000_000, memory_free=24_000_000_000)


def test_all_facts_are_there() -> None:
    html = preview_card(PREVIEW)
    for fact in ("acme/gemma", "gemma", "2.5B", "Gemma2ForCausalLM", "8K tokens", "c5ebcd40", "2 files", "120 GB"):
        assert fact in html, fact
    assert "<dt>Download</dt><dd>5.0 GB</dd>" in html
    assert "Memory with <b data-context>4K</b> tokens of context" in html
    assert "Fits in memory" in html
    assert "24.0 GB free" in html


def test_too_little_memory_or_disk_is_said() -> None:
    short = preview_card(replace(PREVIEW, disk_free=1_000_000_000))
    assert "Insufficient disk space. Need 5.0 GB, only 1.0 GB available." in short
    assert "Insufficient" not in preview_card(PREVIEW)


def test_gated_and_custom_code_are_warned_of() -> None:
    closed = replace(PLAN, gated=True, refusal=GatedModel("It is gated. Enter an access token."))
    html = preview_card(replace(PREVIEW, plan=closed, requires_remote_code=True))
    assert "Enter an access token. <a href=" in html
    assert "which you have not allowed" in html
    trusted = replace(PLAN, origin=replace(PLAN.origin, trust_remote_code=True))
    assert "which you have allowed" in preview_card(replace(PREVIEW, plan=trusted, requires_remote_code=True))
    assert "open to the access token" in preview_card(replace(PREVIEW, plan=replace(PLAN, gated=True)))


def test_good_news_is_one_line() -> None:
    plan = replace(PLAN, chat_template=True, cached_bytes=2_000_000_000)
    html = preview_card(replace(PREVIEW, plan=plan, known_architecture=True))
    line = "Safetensors, chat template, architecture known to transformers, 2.0 GB in the HuggingFace cache already"
    assert line in html
    assert "<dt>Download</dt><dd>3.0 GB</dd>" in html
    assert "mi-note" not in html
    assert "mi-good" not in preview_card(replace(PREVIEW, plan=replace(PLAN, files=())))


def test_problems_are_notes() -> None:
    html = preview_card(
        replace(
            PREVIEW,
            plan=replace(PLAN, files=(PlannedFile("pytorch_model.bin", 9),), chat_template=False),
            known_architecture=False,
            existing=ModelRecord(name="mine", status=Status.ERROR),
            quantized_as="gptq",
        )
    )
    for said in ("Pickle only", "no chat template", "does not know this architecture", "quantized already (gptq)"):
        assert said in html, said
    assert "This is &#x27;mine&#x27; of your list already (error)." in html
    assert html.count("mi-note") == 4


def test_own_code_is_named_and_explains_an_unknown_architecture() -> None:
    plan = replace(PLAN, code_files=("modeling_x.py", "tokenizer_x.py"))
    html = preview_card(replace(PREVIEW, plan=plan, known_architecture=False, requires_remote_code=True))
    assert "Loading it runs modeling_x.py, tokenizer_x.py, which you have not allowed." in html
    assert "does not know this architecture" not in html


def test_a_type_for_other_programs_is_not_judged_as_a_language_model() -> None:
    plan = replace(PLAN, chat_template=False)
    html = preview_card(replace(PREVIEW, plan=plan, known_architecture=False), ModelType.MUSIC)
    for said in ("mi-cost ", "chat template", "does not know"):
        assert said not in html, said


def test_an_embedding_model_needs_memory_and_no_chat_template() -> None:
    plan = replace(PLAN, chat_template=False)
    html = preview_card(replace(PREVIEW, plan=plan, known_architecture=None), ModelType.EMBEDDING)
    assert "mi-cost " in html
    assert "chat template" not in html


def test_a_single_file_has_no_rows_that_say_nothing() -> None:
    plan = replace(
        PLAN, origin=Origin(Source.URL, url="https://x/m"), config={}, param_count=None, license=None, commit=None
    )
    assert "not stated" not in preview_card(replace(PREVIEW, plan=plan))


def test_what_ollama_holds_is_not_estimated_as_half_precision() -> None:
    plan = replace(PLAN, origin=Origin(Source.OLLAMA, repo_id="llama3:8b"), config={}, warnings=("It has it.",))
    html = preview_card(replace(PREVIEW, plan=plan))
    assert '<p class="mi-note is-plain">' in html
    assert "<dt>In Ollama already</dt><dd>5.0 GB</dd>" in html
    assert "mi-cost " not in html


def test_download_and_peak_disk_stand_against_what_is_free() -> None:
    sizes = replace(SIZES, peak_disk_bytes=8_000_000_000)
    html = preview_card(replace(PREVIEW, sizes={Quantization.FP16: sizes}))
    assert "<dt>Disk while it comes</dt><dd>8.0 GB of 120 GB free</dd>" in html


def test_a_gated_model_leads_to_its_page() -> None:
    gated = preview_card(replace(PREVIEW, plan=replace(PLAN, gated=True, refusal=GatedModel("It is gated."))))
    page = '<a href="https://hub.example/acme/gemma" target="_blank" rel="noopener noreferrer">'
    assert f"It is gated. {page}Open its page</a>" in gated
    assert page in refused(GatedModel("It is gated.", link="https://hub.example/acme/gemma"))
    assert "href" not in refused(GatedModel("It is gated.", link="javascript:alert(1)"))
    assert "href" not in refused(InvalidToken("No.", link="https://hub.example/acme/gemma"))


def test_a_warning_of_the_source_is_shown_once() -> None:
    plan = replace(PLAN, warnings=("Only .bin weights.", "Only .bin weights."))
    assert preview_card(replace(PREVIEW, plan=plan)).count("Only .bin weights.") == 1


def test_what_is_unknown_is_said_to_be() -> None:
    bare = replace(PLAN, param_count=None, config={}, license=None, commit=None)
    html = preview_card(replace(PREVIEW, plan=bare))
    assert html.count("not stated") == 4
    assert "Commit" not in html


@pytest.mark.parametrize("link", ["javascript:alert(1)", None, ""])
def test_only_web_addresses_become_links(link: str | None) -> None:
    assert "href" not in preview_card(replace(PREVIEW, plan=replace(PLAN, link=link)))
    assert 'href="https://hub.example/acme/gemma"' in preview_card(PREVIEW)


def test_whatever_comes_from_outside_is_text() -> None:
    plan = replace(
        PLAN,
        title=EVIL,
        suggested_name=EVIL,
        license=EVIL,
        commit=EVIL,
        link=f'https://"{EVIL}',
        warnings=(EVIL,),
        code_files=(EVIL,),
        refusal=GatedModel(EVIL),
        config={"architectures": [EVIL]},
    )
    preview = replace(PREVIEW, plan=plan, existing=ModelRecord(name=EVIL), quantized_as=EVIL)
    html = preview_card(replace(preview, requires_remote_code=True))
    html += looking(EVIL) + refused(GatedModel(EVIL, link=f'https://"{EVIL}'))
    assert "<script" not in html
    assert 'https://"' not in html


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (RemoteUnavailable("It asks for a key.", field="server_key"), "remote-key"),
        (InvalidRequest("It has 2 models.", field="repo_id"), "remote-model"),
        (InvalidUrl("It is none."), "remote-input"),
        (RemoteUnavailable("It does not answer."), ""),
    ],
)
def test_what_a_server_says_stands_under_the_field_it_is_about(error: MiLLMError, field: str) -> None:
    mark = problem_mark(error, Source.REMOTE, asked=True)
    assert f'data-field="{field}"' in mark if field else mark == ""


def test_a_servers_model_shows_neither_memory_nor_alarm() -> None:
    origin = Origin(Source.REMOTE, repo_id="tiny", url="http://box/v1")
    plan = replace(PLAN, origin=origin, config={}, files=(), warnings=("It has: <b>.",))
    html = preview_card(replace(PREVIEW, plan=plan))
    assert "It has: &lt;b&gt;." in html
    assert "is-warning" not in html
    assert "mi-cost" not in html
