"""How numbers, states and sentences read."""

import pytest

from millm.events import Event, Stage
from millm.records import ModelRecord, ModelType, Quantization, Source, Status
from millm.ui import words


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_500, "2 kB"),
        (245_300_000, "245 MB"),
        (999_900_000, "1.0 GB"),
        (1_840_000_000, "1.8 GB"),
        (120_000_000_000, "120 GB"),
        (3_200_000_000_000, "3.2 TB"),
    ],
)
def test_sizes_are_decimal_and_short(count: int, text: str) -> None:
    assert words.size(count) == text


def test_megabytes_of_a_record_are_shown_in_the_unit_that_fits() -> None:
    assert words.size_of_mb(1840.2) == "1.8 GB"
    assert words.size_of_mb(12.0) == "12 MB"


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (3_070_000_000, 4_600_000_000, "3.07 of 4.60 GB"),
        (4_000, 4_600_000_000, "0.00 of 4.60 GB"),
        (12_000_000, 245_000_000, "12 of 245 MB"),
        (3, 9, "3 of 9 B"),
    ],
)
def test_a_share_is_in_the_unit_of_the_whole(done: int, total: int, text: str) -> None:
    assert words.share(done, total) == text


def test_speed_is_silent_while_nothing_flows() -> None:
    assert words.speed(48_300_000) == "48.3 MB/s"
    assert words.speed(20_000) == "20 kB/s"
    assert words.speed(0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.2, "0:00 left"), (31, "0:31 left"), (3725, "1:02:05 left"), (-1, "0:00 left")],
)
def test_time_left_is_a_clock(seconds: float | None, text: str) -> None:
    assert words.time_left(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(131_072, "128K"), (32_000, "32K"), (2048, "2K"), (512, "512"), (40_961, "40,961")]
)
def test_context_lengths_are_said_in_thousands(count: int, text: str) -> None:
    assert words.tokens(count) == text


def test_the_line_under_a_name_is_the_one_of_the_specification() -> None:
    record = ModelRecord(params="2.5B", quantization=Quantization.Q4, estimated_memory_mb=1800)
    assert words.facts(record) == "2.5B params • Q4 quantization • 1.8 GB memory"


def test_what_the_weights_took_stands_beside_the_estimate_of_the_whole() -> None:
    record = ModelRecord(params="2.5B", estimated_memory_mb=1800, measured_memory_mb=1500)
    assert words.facts(record).endswith("1.8 GB memory")
    assert words.more_facts(record).endswith("1.5 GB of weights measured")
    for estimated, said in ((1500, "as"), (1600, "6% less than"), (1400, "7% more than")):
        measured = record.with_(estimated_weights_mb=estimated)
        assert words.more_facts(measured).endswith(f"measured, {said} estimated")


def test_what_quantizing_saved_on_disk_is_said() -> None:
    record = ModelRecord(disk_size_mb=1600, original_size_mb=5000)
    assert words.more_facts(record) == "1.6 GB on disk, 3.4 GB less than downloaded"
    assert words.more_facts(record.with_(original_size_mb=None)) == "1.6 GB on disk"


def test_how_the_weights_are_held() -> None:
    gptq = ModelRecord(config={"quantization_config": {"quant_method": "gptq"}})
    assert words.quantization(gptq) == "GPTQ, as published"
    assert words.quantization(ModelRecord(quantization=Quantization.Q8)) == "Q8 quantization"
    assert words.quantization(ModelRecord()) == "FP16 quantization"


def test_facts_that_are_unknown_are_left_out() -> None:
    assert words.facts(ModelRecord()) == "FP16 quantization"
    assert words.more_facts(ModelRecord()) == ""


def test_draining_says_how_many_requests_are_waited_for() -> None:
    assert words.doing(Event(Stage.DRAINING, pending=3)) == "Waiting for 3 pending requests to complete..."
    assert words.doing(Event(Stage.UNLOADING_PREVIOUS, pending=1)).startswith("Waiting for 1 pending")
    assert words.doing(Event(Stage.UNLOADING_PREVIOUS)) == "Unloading previous model..."


def test_deleting_says_what_it_frees_and_that_local_files_stay() -> None:
    assert "frees 4.1 GB" in words.freed(ModelRecord(), 4_100_000_000)
    assert "files stay" in words.freed(ModelRecord(source=Source.LOCAL), 4_100_000_000)
    assert "no files" in words.freed(ModelRecord(), 0)


def test_what_is_kept_for_retry_is_said_with_numbers() -> None:
    record = ModelRecord(status=Status.ERROR, downloaded_bytes=1_200_000_000, size_bytes=5_000_000_000)
    assert words.kept(record) == "Retry resumes at 1.20 of 5.00 GB."
    assert words.kept(record.with_(size_bytes=None)) == "Retry resumes at 1.2 GB."
    assert words.kept(record.with_(downloaded_bytes=0)) == ""
    assert words.kept(record.with_(status=Status.READY)) == ""


def test_what_miLLM_does_not_run_itself_has_no_quantization() -> None:
    assert words.facts(ModelRecord(params="8B", source=Source.OLLAMA)) == "8B params • served by Ollama"
    remote = ModelRecord(source=Source.REMOTE, url="http://gpu-box:8000/v1", repo_id="acme/tiny")
    assert words.facts(remote) == "served by gpu-box:8000"
    assert words.origin(remote) == "acme/tiny"
    assert words.facts(ModelRecord(model_type=ModelType.MUSIC)) == "Music model"


def test_the_next_step_depends_on_the_type() -> None:
    assert "Load it" in words.next_step(ModelRecord())
    assert "/v1/embeddings" in words.next_step(ModelRecord(model_type=ModelType.EMBEDDING))
    assert "Activate it" in words.next_step(ModelRecord(model_type=ModelType.TTS))


def test_deleting_an_ollama_model_says_that_ollama_keeps_it() -> None:
    assert "Ollama keeps its copy" in words.freed(ModelRecord(source=Source.OLLAMA), 0)
    assert "The server keeps the model" in words.freed(ModelRecord(source=Source.REMOTE), 0)


def test_every_state_stage_type_source_and_quantization_has_its_word() -> None:
    assert set(words.STATUS) == set(Status)
    assert set(words.STAGE) == set(Stage)
    assert set(words.MODEL_TYPE) == set(ModelType)
    assert set(words.SOURCE) == set(words.ORIGIN) == set(Source)
    assert set(words.QUANTIZATION_NOTE) == set(Quantization)
