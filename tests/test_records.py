"""Records and the facts read from a config.json."""

import pytest

from millm.records import (
    NAME,
    ModelRecord,
    ModelType,
    Status,
    architecture_facts,
    is_plain,
    now,
    safe_name,
    short_count,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (2_506_172_416, "2.5B"),
        (134_515_008, "135M"),
        (70_553_706_496, "71B"),
        (1_500, "2K"),
        (12, "12"),
        (None, None),
    ],
)
def test_parameter_counts_are_written_as_people_write_them(count: int | None, text: str | None) -> None:
    assert short_count(count) == text


def test_a_record_survives_the_way_through_json_values() -> None:
    record = ModelRecord(id=4, name="x", model_type=ModelType.TTS, status=Status.READY, config={"a": [1]})
    assert ModelRecord.from_dict(record.to_dict()) == record
    assert ModelRecord.from_dict({**record.to_dict(), "field_of_a_later_version": 1}) == record
    with pytest.raises(ValueError, match="nonsense"):
        ModelRecord.from_dict({"status": "nonsense"})


def test_times_are_utc_and_sort_as_text() -> None:
    first, second = now(), now()
    assert first.endswith("Z")
    assert first <= second


def test_facts_of_plain_composite_and_old_configs() -> None:
    plain = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 9}
    assert architecture_facts(plain)["architecture"] == "LlamaForCausalLM"
    assert architecture_facts({"architectures": ["G"], "text_config": plain})["hidden_size"] == 64
    gpt2 = architecture_facts({"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024})
    assert (gpt2["hidden_size"], gpt2["num_layers"], gpt2["num_heads"], gpt2["context_length"]) == (768, 12, 12, 1024)
    assert architecture_facts({})["architecture"] is None


@pytest.mark.parametrize(
    "odd",
    [{"architectures": {"a": 1}}, {"architectures": [{"b": 2}]}, {"hidden_size": 10**400}, {"num_hidden_layers": -1},
     {"max_position_embeddings": True}, {"text_config": 3, "hidden_size": "many"}],
)  # fmt: skip
def test_strange_configs_state_nothing(odd: dict[str, object]) -> None:
    assert set(architecture_facts(odd).values()) == {None}


def test_what_can_be_stored_and_read_by_everybody() -> None:
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    assert is_plain({"a": [1, 2.5, None, True, {"b": "ü"}]})
    for value in (deep, {"x": "\ud800"}, {"\ud800": 1}, 2**63, [10**400]):
        assert not is_plain(value)


@pytest.mark.parametrize(
    ("text", "name"),
    [("my model (1)", "my-model-1"), ("<img src=x>", "img-src-x"), ("..", "model"), ("a.b_c-1", "a.b_c-1")],
)
def test_names_are_made_of_what_names_may_have(text: str, name: str) -> None:
    assert safe_name(text) == name
    assert NAME.fullmatch(safe_name(text))
    assert not NAME.fullmatch("..")
