"""The steps of sentence-transformers from the states of tokens to one vector, each against its definition."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from millm.engines.pooling import MEAN, read_pooling, stated_length
from millm.errors import UnsupportedModel

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
STATES = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 1.0]])
EXPECTED = {
    "cls": [1.0, -2.0],
    "max": [5.0, 4.0],
    "mean": [3.0, 1.0],
    "mean_sqrt_len_tokens": [9 / 3**0.5, 3 / 3**0.5],
    "weightedmean": [(1 + 6 + 15) / 6, (-2 + 8 + 3) / 6],
    "lasttoken": [5.0, 1.0],
}
FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def made(folder: Path, *steps: tuple[str, dict[str, Any]]) -> Path:
    """A folder with these steps after the network."""
    modules = [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (kind, config) in enumerate(steps, start=1):
        path = f"{number}_{kind}"
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
        modules.append({"idx": number, "path": path, "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def pooled(folder: Path) -> list[float]:
    return read_pooling(folder, CPU)(STATES).tolist()


@pytest.mark.parametrize("mode", EXPECTED)
def test_every_mode_is_what_it_says(tmp_path: Path, mode: str) -> None:
    for number, config in enumerate(({"pooling_mode": mode}, {flag: flag == FLAGS[mode] for flag in FLAGS.values()})):
        (tmp_path / str(number)).mkdir()
        assert pooled(made(tmp_path / str(number), ("Pooling", config))) == pytest.approx(EXPECTED[mode])


def test_several_modes_stand_one_behind_another(tmp_path: Path) -> None:
    config = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    assert pooled(made(tmp_path, ("Pooling", config))) == [1.0, -2.0, 3.0, 1.0]


def test_without_a_mode_it_is_the_mean(tmp_path: Path) -> None:
    assert pooled(made(tmp_path, ("Pooling", {"word_embedding_dimension": 2}))) == [3.0, 1.0]


def test_vectors_have_length_one_where_the_files_or_nobody_says(tmp_path: Path) -> None:
    expected = [3 / 10**0.5, 1 / 10**0.5]
    assert MEAN(STATES).tolist() == pytest.approx(expected)
    assert pooled(tmp_path) == pytest.approx(expected)
    assert pooled(made(tmp_path, ("Pooling", {}), ("Normalize", {}))) == pytest.approx(expected)


@pytest.mark.parametrize(("activation", "function"), [("Tanh", torch.tanh), ("Identity", lambda x: x)])
def test_a_layer_behind_the_pooling(tmp_path: Path, activation: str, function: Any) -> None:
    folder = made(tmp_path, ("Pooling", {}), ("Dense", {"activation_function": f"torch.nn.modules.x.{activation}"}))
    weight, bias = torch.tensor([[0.5, 0.25], [-1.0, 2.0], [0.0, 0.1]]), torch.tensor([0.1, 0.2, 0.3])
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    pooling = read_pooling(folder, CPU)
    assert pooling(STATES).tolist() == pytest.approx(function(weight @ torch.tensor([3.0, 1.0]) + bias).tolist())
    assert pooling.memory_bytes == 4 * (6 + 3)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([("Pooling", {}), ("WeightedLayerPooling", {})], "WeightedLayerPooling"),
        ([("Pooling", {"pooling_mode": "attention"})], "attention"),
        ([("Pooling", {}), ("Dense", {"activation_function": "os.system"})], "system"),
        ([("Normalize", {})], "one vector"),
        ([], "one vector"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, steps: list[Any], said: str) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        read_pooling(made(tmp_path, *steps), CPU)


@pytest.mark.parametrize("path", ["../1_Pooling", "/1_Pooling", "a/../../1_Pooling"])
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    made(tmp_path, ("Pooling", {}))
    (tmp_path / "inner").mkdir()
    modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": path}]
    (tmp_path / "inner" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModel):
        read_pooling(tmp_path / "inner", CPU)


def test_what_the_author_says_of_lengths_and_case(tmp_path: Path) -> None:
    assert stated_length(tmp_path) is None
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256, "do_lower_case": true}')
    assert stated_length(tmp_path) == 256
    assert read_pooling(made(tmp_path, ("Pooling", {})), CPU).lower
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": null}')
    assert stated_length(tmp_path) is None
