"""millm-guide as it ships: its folder, what it knows, and how it runs, quantized too. Trained weights, not noise."""

import json
import os
from pathlib import Path
from random import Random

import openai
import pytest
from running import Client

from tools.guide.corpus import Corpus
from tools.guide.evaluation import answers, held_out, is_right, is_sound, messages_of, perplexity
from tools.guide.tokens import CONTEXT, Encoder

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from millm.engines.base import ChatRequest, LoadOptions, Message, Sampling  # noqa: E402
from millm.engines.loader import open_model  # noqa: E402
from millm.engines.quality import compare  # noqa: E402
from millm.engines.quantize import quantize  # noqa: E402
from millm.events import Event  # noqa: E402
from millm.records import ModelRecord, Quantization  # noqa: E402
from tools.guide.training import train  # noqa: E402

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "models" / "millm-guide"
RECORD = ModelRecord(id=1, name="millm-guide")


def silent(event: Event) -> None:
    pass


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


@pytest.fixture(scope="module")
def network() -> "transformers.PreTrainedModel":
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> "transformers.PreTrainedTokenizerBase":
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[Quantization, Path]:
    found = {Quantization.FP16: FOLDER}
    for form in (Quantization.Q4, Quantization.Q8):
        found[form] = tmp_path_factory.mktemp(form)
        quantize(FOLDER, found[form], form, False, silent)
    return found


def ask(folder: Path, *said: str, form: Quantization = Quantization.FP16, **how: object) -> str:
    """The greedy answer to a conversation whose turns alternate, the person's first."""
    engine = open_model(RECORD.with_(quantization=form), LoadOptions(folder), silent)
    roles = ("user", "assistant")
    messages = tuple(Message(roles[place % 2], text) for place, text in enumerate(said))
    try:
        sampling = Sampling(temperature=0, **how)  # type: ignore[arg-type]
        done = engine.chat(ChatRequest(messages, sampling=sampling), silent)
        assert done.finish_reason == "stop"
        return done.text
    finally:
        engine.close()


def test_the_folder_is_small_and_whole() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(sizes.values()) <= 6_000_000
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} < {
        *sizes,
        "",
    }
    card = (FOLDER / "README.md").read_text()
    for said in (
        "license: apache-2.0",
        "How it was made",
        "How good it is",
        "What it cannot do",
        "tools/train_guide.py",
    ):
        assert said in card
    assert all(os.access(path, os.R_OK) for path in FOLDER.iterdir())


def test_every_matrix_can_be_quantized() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    for name in ("hidden_size", "intermediate_size", "vocab_size"):
        assert config[name] % 64 == 0
    assert (config["model_type"], config["dtype"], config["max_position_embeddings"]) == (
        "qwen3",
        "bfloat16",
        CONTEXT,
    )


def test_training_goes_on_from_what_it_knows(
    corpus: Corpus, tokenizer: "transformers.PreTrainedTokenizerBase"
) -> None:
    _, trained = train(corpus, tokenizer, lambda line: None, steps=2, minutes=60, seed=3, start=FOLDER)
    assert trained.steps == 2
    assert trained.loss < 0.3  # a new network's is above 7


def test_its_chat_template_writes_what_it_was_trained_on(
    corpus: Corpus, tokenizer: "transformers.PreTrainedTokenizerBase"
) -> None:
    rng = Random(4)
    for _ in range(50):
        messages = corpus.dialogue(rng)
        ids, _ = Encoder(tokenizer).encode(messages)
        assert tokenizer.apply_chat_template(messages, return_dict=False) == ids


def test_it_answers_nine_of_ten_questions_that_were_kept_apart(
    corpus: Corpus, network: "transformers.PreTrainedModel", tokenizer: "transformers.PreTrainedTokenizerBase"
) -> None:
    items = Random(6).sample(held_out(corpus), 150)
    given = answers(network, tokenizer, [messages_of(item) for item in items])
    wrong = [
        (item.questions[-1], answer.text)
        for item, answer in zip(items, given, strict=True)
        if not is_right(item, answer.text, corpus)
    ]
    assert len(wrong) <= 20, wrong  # of 150 drawn, where 15 are expected at most
    assert all(is_sound(answer) for answer in given)


def test_quantized_it_is_nearly_as_sure(
    corpus: Corpus, quantized: dict[Quantization, Path], tokenizer: "transformers.PreTrainedTokenizerBase"
) -> None:
    items = Random(7).sample(list(corpus.held_out), 120)
    sure = {}
    for form, folder in quantized.items():
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        sure[form] = perplexity(loaded, tokenizer, items)
    half = sure[Quantization.FP16]
    assert sure[Quantization.Q8] == pytest.approx(half, rel=0.02)
    assert sure[Quantization.Q4] < 1.15 * half


def test_the_quality_report_tells_the_forms_apart(corpus: Corpus, quantized: dict[Quantization, Path]) -> None:
    text = " ".join(intent.answer for intent in corpus.intents.values())
    found = {
        form: compare(FOLDER, quantized[form], text, False, silent) for form in (Quantization.Q4, Quantization.Q8)
    }
    assert 0 < found[Quantization.Q8]["kl_divergence"] < found[Quantization.Q4]["kl_divergence"]
    assert found[Quantization.Q8]["top1_agreement"] > 0.9


@pytest.mark.parametrize("form", Quantization)
def test_it_speaks_json_and_ends_by_itself_in_every_form(
    quantized: dict[Quantization, Path], form: Quantization
) -> None:
    text = ask(quantized[form], "Give me a JSON object with name Nadia and port 8080", form=form)
    assert json.loads(text) == {"name": "Nadia", "port": 8080}
    assert ask(quantized[form], "Count from 3 to 9", form=form) == "3, 4, 5, 6, 7, 8, 9"


def test_a_stop_string_ends_an_answer_that_would_go_on() -> None:
    assert ask(FOLDER, "Count from 3 to 9", stop=("7",)) == "3, 4, 5, 6, "


def test_it_says_that_it_does_not_know(corpus: Corpus) -> None:
    refusals = [corpus.answer(name) for name in ("knowledge", "writing")]
    assert ask(FOLDER, "What is the capital of France?") in refusals
    assert ask(FOLDER, "Write a poem about the sea") in refusals


def test_it_goes_on_with_a_conversation(corpus: Corpus) -> None:
    first = corpus.answer("v1_curl")
    assert ask(FOLDER, "How do I call the API with curl?", first, "And in Python?") == corpus.answer("v1_python")


def test_on_a_machine_without_any_hub_it_is_there_and_answers(run_app: object, tmp_path: Path) -> None:
    app = run_app(HF_ENDPOINT="http://127.0.0.1:9", AUTO_LOAD_MODEL="millm-guide", first=True)  # type: ignore[operator]
    client = Client(app)
    (record,) = client.ask("GET", "/api/models", 200)
    assert (record["name"], record["source"], record["built_in"]) == ("millm-guide", "local", True)
    client.wait(record["id"], "loaded")
    with openai.OpenAI(base_url=f"{app.url}/v1", api_key="none") as api:
        stream = api.chat.completions.create(
            model="millm-guide",
            messages=[{"role": "user", "content": "What does Q4 mean?"}],
            stream=True,
            temperature=0,
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 10
    assert "4 bits" in "".join(pieces)
