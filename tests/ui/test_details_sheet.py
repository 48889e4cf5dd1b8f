"""Everything that is known of a model, and nothing of it as markup."""

import re

from millm.details import Details, FileOnDisk
from millm.events import Event, Stage
from millm.records import ModelRecord, ModelType, Quantization, Source, Status
from millm.ui.details_sheet import details_sheet

EVIL = "<img src=x onerror=alert(1)>\"'&"
RECORD = ModelRecord(
    id=7,
    name="tiny",
    repo_id="acme/tiny",
    revision="c0ffee" + "0" * 34,
    param_count=2_506_172_416,
    architecture="LlamaForCausalLM",
    hidden_size=2304,
    num_layers=26,
    num_heads=8,
    vocab_size=256_000,
    context_length=8192,
    quantization=Quantization.Q4,
    estimated_weights_mb=1000.0,
    measured_memory_mb=1030.0,
    estimated_memory_mb=1800.0,
    license="apache-2.0",
    cache_path="/cache/tiny",
    status=Status.READY,
    created_at="2026-01-02T03:04:05.000000Z",
)
FILES = tuple(FileOnDisk(f"part-{number}", 1_000_000_000, "ab" * 32) for number in range(2))
DETAILS = Details(FILES, "2026-01-02T04:00:00Z", {"transformers": "5.0"})


def rows(html: str) -> dict[str, str]:
    found = re.findall(r"<dt>([^<]+)</dt><dd>(.*?)</dd>", html)
    return {name: re.sub(r"<[^>]+>", "", value) for name, value in found}


def test_dimensions_origin_and_measurements() -> None:
    said = rows(details_sheet(RECORD, DETAILS))
    assert said["Architecture"] == "LlamaForCausalLM"
    assert (said["Parameters"], said["Layers"], said["Hidden size"]) == ("2,506,172,416", "26", "2,304")
    assert (said["Attention heads"], said["Vocabulary"], said["Context"]) == ("8", "256,000", "8,192 tokens")
    assert (said["Repository"], said["Revision"], said["Licence"]) == ("acme/tiny", "c0ffee000000…", "apache-2.0")
    assert (said["Folder"], said["Made with"]) == ("/cache/tiny", "transformers 5.0")
    assert (said["Added"], said["Finished"]) == ("2 Jan 2026, 03:04 UTC", "2 Jan 2026, 04:00 UTC")
    assert said["Weights, estimated"] == "1.0 GB"
    assert said["Weights, measured"] == "1.0 GB, 3% more than estimated"


def test_what_is_cut_can_be_copied_whole() -> None:
    html = details_sheet(RECORD, DETAILS)
    for text in (RECORD.revision, "ab" * 32, "/cache/tiny", "acme/tiny", "tiny"):
        assert f'data-copy="{text}"' in html


def test_files_with_sizes_and_digests() -> None:
    html = details_sheet(RECORD, DETAILS)
    assert "2 files, 2.0 GB" in html
    assert 'id="details-files" open' in html
    assert html.count("abababababab…") == 2
    many = details_sheet(RECORD, Details(FILES * 5))
    assert 'id="details-files">' in many
    local = details_sheet(RECORD, Details((FileOnDisk("model.safetensors", 5, None),)))
    assert "—" in local


def test_what_is_not_known_is_left_out() -> None:
    said = rows(details_sheet(ModelRecord(id=7, name="m", repo_id="a/m"), Details()))
    assert {"Licence", "Layers", "Folder", "Finished", "Weights, measured"} & set(said) == set()


def test_a_check_and_a_comparison_start_here_where_nothing_runs() -> None:
    html = details_sheet(RECORD, DETAILS)
    assert 'data-act="verify"' in html
    assert 'data-act="compare"' in html
    busy = details_sheet(RECORD, DETAILS, Event(Stage.VERIFYING, 30))
    assert 'data-act="verify"' not in busy
    assert 'role="progressbar"' in busy


def test_memory_is_weighed_for_what_is_loaded_here() -> None:
    assert 'data-room="7"' in details_sheet(RECORD, DETAILS)
    assert "data-room" not in details_sheet(RECORD.with_(model_type=ModelType.MUSIC), DETAILS)
    assert "data-room" not in details_sheet(RECORD.with_(source=Source.OLLAMA), DETAILS)
    remote = details_sheet(RECORD.with_(source=Source.REMOTE, url="http://box/v1"), DETAILS)
    assert "data-room" not in remote
    assert "<dt>Server</dt>" in remote
    assert "http://box/v1" in remote


def test_whatever_comes_from_outside_is_text() -> None:
    record = RECORD.with_(
        name=EVIL, repo_id=EVIL, revision=EVIL, architecture=EVIL, license=EVIL, cache_path=EVIL,
        created_at=EVIL, error_message=EVIL, warning=EVIL,
    )  # fmt: skip
    html = details_sheet(record, Details((FileOnDisk(EVIL, 1, EVIL),), EVIL, {EVIL: EVIL}))
    assert "<img" not in html
