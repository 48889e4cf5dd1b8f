"""Two forms of a model read the same text: how far apart they are is what the mathematics says."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from millm.comparison import measure
from millm.engines.quality import TEXT, compare
from millm.engines.quantize import quantize
from millm.errors import InvalidRequest
from millm.events import Event
from millm.records import Quantization

pytestmark = pytest.mark.slow

Tiny = Callable[..., Path]
WORDS = "The harbour was quiet when the first boat came in, and three men tied it to the wall."


def silent(event: Event) -> None:
    pass


def test_a_model_is_like_itself(tiny: Tiny) -> None:
    found = compare(tiny("llama"), tiny("llama"), WORDS, False, silent)
    assert (found["kl_divergence"], found["top1_agreement"]) == (pytest.approx(0, abs=1e-6), 1.0)
    assert found["reference"]["perplexity"] == found["model"]["perplexity"]
    assert found["model"]["tokens_per_s"] > 0


def test_figures_are_those_of_the_formulas(tiny: Tiny) -> None:
    one, other = tiny("llama", dtype="float32"), tiny("mistral", dtype="float32")
    found = compare(one, other, WORDS, False, silent)
    tokenizer = transformers.AutoTokenizer.from_pretrained(one)
    ids = tokenizer(WORDS, return_tensors="pt").input_ids
    with torch.no_grad():
        p, q = (
            transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)(ids)
            .logits[0, :-1]
            .float()
            .softmax(-1)
            for folder in (one, other)
        )
    expected = float((p * (p.log() - q.log())).sum(-1).mean())
    assert found["kl_divergence"] == pytest.approx(expected, rel=0.05)
    assert found["top1_agreement"] == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).float().mean()), abs=0.1)
    likelihood = p.gather(1, ids[0, 1:, None]).log().mean()
    assert found["reference"]["perplexity"] == pytest.approx(math.exp(-likelihood), rel=0.05)
    assert found["tokens"] == ids.shape[1] - 1


def test_quantizing_costs_something_and_saves_memory(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("qwen3", size="bigger")
    found = {}
    for form in (Quantization.Q4, Quantization.Q8):
        folder = tmp_path / form
        folder.mkdir()
        quantize(source, folder, form, False, silent)
        found[form] = measure(str(source), str(folder), None, False, silent)
    q4, q8 = found[Quantization.Q4], found[Quantization.Q8]
    assert q4["kl_divergence"] > q8["kl_divergence"] > 0
    assert q4["model"]["memory_bytes"] < q8["model"]["memory_bytes"] < q8["reference"]["memory_bytes"]
    assert 0 < q4["top1_agreement"] <= 1


def test_a_text_that_is_too_short_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidRequest, match="too short"):
        compare(tiny("llama"), tiny("llama"), "Hi", False, silent)
    assert len(TEXT.read_text("utf-8")) > 3000
