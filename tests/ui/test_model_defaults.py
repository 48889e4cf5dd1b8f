"""What the controls start from: the settings of a model before its files, and those before our own."""

import json
from pathlib import Path
from typing import Any

import pytest

from millm.records import ModelRecord
from millm.ui.answers import Controls
from millm.ui.model_defaults import defaults


def record(tmp_path: Path, published: object = None, **settings: Any) -> ModelRecord:
    if published is not None:
        text = published if isinstance(published, str) else json.dumps(published)
        (tmp_path / "generation_config.json").write_text(text)
    return ModelRecord(cache_path=str(tmp_path), settings=settings)


def test_without_a_model_or_files_they_are_our_own(tmp_path: Path) -> None:
    assert defaults(None) == Controls()
    assert defaults(record(tmp_path)) == Controls()
    assert defaults(ModelRecord()) == Controls()


def test_settings_go_before_the_models_files(tmp_path: Path) -> None:
    files = {"temperature": 0.6, "top_k": 20, "top_p": 0.8, "max_new_tokens": 2048, "do_sample": True}
    found = defaults(
        record(tmp_path, files, generation={"temperature": 0.1, "min_p": 0.05}, system_prompt="Be kind.")
    )
    assert (found.temperature, found.min_p, found.system) == (0.1, 0.05, "Be kind.")
    assert (found.top_k, found.top_p, found.max_tokens) == (20, 0.8, 2048)
    assert found.repetition_penalty == Controls().repetition_penalty


def test_a_model_that_is_not_to_be_sampled_is_greedy(tmp_path: Path) -> None:
    assert defaults(record(tmp_path, {"do_sample": False, "temperature": 0.6})).temperature == 0


def test_values_out_of_range_come_to_the_nearer_end(tmp_path: Path) -> None:
    found = defaults(record(tmp_path, {"temperature": 7, "top_k": 5000, "repetition_penalty": 0.1}))
    assert (found.temperature, found.top_k, found.repetition_penalty) == (2.0, 200, 0.5)


@pytest.mark.parametrize(
    "published",
    ["{", "[]", '{"temperature": NaN}', "[" * 100_000, {"temperature": True, "top_k": "many", "top_p": None}],
)
def test_what_strangers_write_there_does_no_harm(tmp_path: Path, published: object) -> None:
    found = defaults(record(tmp_path, published, generation=["no"], system_prompt=3))
    assert found == Controls()
