"""A model opens with true progress, or fails with a clear reason; either way nothing stays behind."""

import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from running import PATIENCE_S

from millm.engines.base import ChatRequest, Engine, LoadOptions, Message, Sampling
from millm.engines.loader import context_length, half_dtype, open_model, read_headers, stored_dtype
from millm.engines.quantize import quantize
from millm.errors import Cancelled, LoadFailed, RemoteCodeRequired, UnsupportedModel
from millm.events import Event, Stage
from millm.records import ModelRecord, Quantization

pytestmark = pytest.mark.slow

Tiny = Callable[..., Path]
ROOT = Path(__file__).parent.parent.parent
RECORD = ModelRecord(id=1, name="tiny")
HELLO = ChatRequest((Message("user", "Hello"),), sampling=Sampling(temperature=0, max_tokens=5))


def silent(event: Event) -> None:
    pass


def opened(folder: Path, report: Callable[[Event], None] = silent, **changes: Any) -> Engine:
    return open_model(RECORD.with_(**changes), LoadOptions(folder), report)


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Path:
    """A llama that a test may damage."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "copy"))


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_every_architecture_opens_and_answers(tiny: Tiny, name: str) -> None:
    engine = opened(tiny(name))
    answer = engine.chat(HELLO, silent)
    engine.close()
    assert answer.completion_tokens
    weights = sum(size for _, size in read_headers(tiny(name)).values())
    assert engine.memory_bytes == pytest.approx(weights * on_this_cpu().itemsize / 2, rel=0.01)


def test_the_thread_of_a_load_ends_with_it(tiny: Tiny) -> None:
    threads = set()
    engine = opened(tiny("llama"), lambda _: threads.add(threading.current_thread()))
    assert threading.current_thread() not in threads
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not [thread for thread in threads if thread.is_alive()]
    engine.close()


def on_this_cpu() -> torch.dtype:
    return half_dtype(torch.bfloat16, "cpu")


@pytest.mark.parametrize("shard_mb", [5000, 4], ids=["one file", "shards"])
def test_progress_is_told_in_bytes_and_ends_at_a_hundred(tiny: Tiny, shard_mb: float) -> None:
    folder = tiny("phi3", size="bigger", shard_mb=shard_mb)
    events: list[Event] = []
    opened(folder, events.append).close()
    percents = [event.progress for event in events]
    assert (percents[0], percents[-1]) == (0, 100)
    assert percents == sorted(percents)
    assert list(dict.fromkeys(event.stage for event in events)) == [Stage.LOADING_WEIGHTS, Stage.WARMING_UP]
    total = sum(size for _, size in read_headers(folder).values())
    weights = [event for event in events if event.bytes_total]
    assert len(weights) > 10
    assert {event.bytes_total for event in weights} == {total}
    assert weights[-1].bytes_done == total
    assert all(event.progress == pytest.approx(90 * event.bytes_done / total) for event in weights)


def test_the_largest_weights_move_the_progress_most(tiny: Tiny) -> None:
    folder = tiny("llama", size="bigger", vocab_size=20480)  # embedding and head are two thirds of the bytes
    events: list[Event] = []
    opened(folder, events.append).close()
    done = [0, *(event.bytes_done for event in events if event.bytes_total)]
    steps = sorted(later - earlier for earlier, later in itertools.pairwise(done))
    assert steps[-2] == 20480 * 512 * 2
    assert steps[-3] < steps[-2] / 10


def test_weights_in_pickle_files_are_loaded_where_there_are_no_others(copy: Path) -> None:
    network = transformers.AutoModelForCausalLM.from_pretrained(copy)
    torch.save(network.state_dict(), copy / "pytorch_model.bin")
    with_safetensors = opened(copy)
    expected = with_safetensors.chat(HELLO, silent).text
    with_safetensors.close()
    (copy / "model.safetensors").unlink()
    events: list[Event] = []
    engine = opened(copy, events.append)
    assert engine.chat(HELLO, silent).text == expected
    engine.close()
    assert len([event for event in events if 0 < event.progress < 90]) > 10


def test_the_progress_hook_is_put_back(tiny: Tiny, copy: Path) -> None:
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-5000])

    def mine(factory: Any, args: Any, kwargs: Any) -> Any:
        return factory(*args, **kwargs)

    before = transformers.logging.set_tqdm_hook(mine)
    try:
        opened(tiny("llama")).close()
        with pytest.raises(LoadFailed):
            opened(copy)
        assert transformers.logging.set_tqdm_hook(mine) is mine
    finally:
        transformers.logging.set_tqdm_hook(before)


def cancel_at(percent: float) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if event.progress >= percent:
            raise Cancelled

    return report


@pytest.mark.parametrize("percent", [0, 30, 90, 100])
def test_a_load_can_be_cancelled_at_any_time(tiny: Tiny, percent: float) -> None:
    with pytest.raises(Cancelled):
        opened(tiny("llama"), cancel_at(percent))
    engine = opened(tiny("llama"))
    assert engine.chat(HELLO, silent).completion_tokens
    engine.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closed_cancelled_and_failed_loads_leave_no_memory(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny("llama", dtype="float32", size="bigger")
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    change_config(broken, num_hidden_layers=5)
    told = subprocess.run(
        [sys.executable, Path(__file__).with_name("memory_cycles.py"), folder, broken],
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    held = json.loads(told.stdout)
    assert held["weights"] > 20
    if on_this_cpu() == torch.bfloat16:  # cast from the float32 of the file, so not mapped from it
        assert min(held["opened"]) > 0.9 * held["weights"]
    assert max(held["closed"]) < 3
    assert held["failed"] < 3


def test_damaged_files_are_a_load_failure(copy: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5000])
    with pytest.raises(LoadFailed, match=r"'tiny' cannot be loaded: .+"):
        opened(copy)
    weights.write_bytes(b"\xff" * 5000)
    with pytest.raises(LoadFailed, match=r"'model.safetensors' is damaged: its header is longer than the file"):
        opened(copy)
    weights.write_bytes((100).to_bytes(8, "little") + b"x" * 5000)
    with pytest.raises(LoadFailed, match=r"'model.safetensors' is damaged"):
        opened(copy)
    weights.write_bytes(whole)
    opened(copy).close()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_a_load_failure(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(LoadFailed, match=r"'tiny' cannot be loaded: .+"):
        opened(copy)


def test_a_missing_shard_is_a_load_failure(tiny: Tiny, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny("phi3", size="bigger", shard_mb=4), tmp_path / "copy"))
    sorted(copy.glob("*.safetensors"))[2].unlink()
    with pytest.raises(LoadFailed, match="model-00003-of"):
        opened(copy)


def test_missing_weights_are_a_load_failure(copy: Path) -> None:
    change_config(copy, num_hidden_layers=3)
    with pytest.raises(LoadFailed, match=r"lack 9 of its weights, 'model\.layers\.2\."):
        opened(copy)


def test_weights_of_another_shape_are_a_load_failure(copy: Path) -> None:
    change_config(copy, intermediate_size=256)
    with pytest.raises(LoadFailed, match=r"6 weights have another shape.*mlp.*is \(64, 128\) instead of \(64, 256\)"):
        opened(copy)


def test_too_little_memory_has_its_own_sentence(copy: Path) -> None:
    change_config(copy, intermediate_size=10**13)  # no longer fits the file, so it is allocated anew
    with pytest.raises(
        LoadFailed, match=r"^Out of memory loading model\. Try a smaller model or higher quantization \(Q4\)\.$"
    ):
        opened(copy)


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import psutil
from millm.engines.base import ChatRequest, LoadOptions, Sampling
from millm.engines.loader import open_model
from millm.errors import LoadFailed
from millm.records import ModelRecord
small, big = (LoadOptions(Path(name)) for name in sys.argv[1:])
record, silent = ModelRecord(id=1, name="m"), lambda event: None
open_model(record, small, silent).close()
process = psutil.Process()
before = process.memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (before + 40 * 2**20, -1))
try:
    open_model(record, big, silent)
    print("loaded")
except LoadFailed as error:
    print(error.message)
assert process.memory_info().vms < before + 10 * 2**20, process.memory_info().vms - before
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
engine = open_model(record, big, silent)
asked = ChatRequest(prompts=("a",), sampling=Sampling(temperature=0, max_tokens=3))
print(engine.chat(asked, silent).completion_tokens)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_a_load_that_runs_out_of_memory_leaves_nothing_behind(tiny: Tiny) -> None:
    big = tiny("llama", size="bigger", dtype="float32", vocab_size=40_960)
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, tiny("llama"), big], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[0].startswith("Out of memory loading model."), done.stdout
    assert done.stdout.splitlines()[1] == "3"


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
        {"model_type": "brand_new", "architectures": ["BrandNewForCausalLM"]},
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
    ],
    ids=lambda config: config["model_type"],
)
def test_other_architectures_are_named(copy: Path, config: dict[str, Any]) -> None:
    change_config(copy, **config)
    with pytest.raises(UnsupportedModel, match=config["architectures"][0]):
        opened(copy)


def test_an_architecture_without_a_cache_is_refused(copy: Path) -> None:
    sizes = {"vocab_size": tiny_models.VOCABULARY, "n_embd": 64, "n_layer": 1, "n_head": 4}
    transformers.AutoModelForCausalLM.from_config(transformers.OpenAIGPTConfig(**sizes)).save_pretrained(copy)
    with pytest.raises(UnsupportedModel, match="'OpenAIGPTLMHeadModel' cannot go on from a cache"):
        opened(copy)


CUSTOM_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({marker!r}).touch()

class OddConfig(LlamaConfig):
    model_type = "odd"

class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig
"""


def test_custom_code_runs_only_with_consent(copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    marker = tmp_path / "ran"
    (copy / "odd.py").write_text(CUSTOM_CODE.format(marker=str(marker)))
    auto_map = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"}
    change_config(copy, model_type="odd", architectures=["OddForCausalLM"], auto_map=auto_map)
    with pytest.raises(RemoteCodeRequired, match="'tiny' needs Python code from its repository"):
        opened(copy)
    assert not marker.exists()
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "millm"):
            engine = opened(copy, trust_remote_code=True)
        assert engine.chat(HELLO, silent).completion_tokens
        engine.close()
        assert [record.getMessage() for record in caplog.records if record.name == "millm.engines.loader"] == [
            "loading 'tiny' with Python code from its repository, as allowed for it"
        ]
    assert marker.exists()


def test_the_context_is_what_was_asked_for_within_what_the_model_has(caplog: pytest.LogCaptureFixture) -> None:
    config, none = transformers.LlamaConfig(max_position_embeddings=2048), transformers.BloomConfig()

    def context(config: Any, asked: int | None, recorded: int | None = None) -> int:
        return context_length(RECORD.with_(context_length=recorded), LoadOptions(Path(), asked), config)

    assert [context(config, asked) for asked in (None, 100, 2048)] == [2048, 100, 2048]
    assert not caplog.records
    assert context(config, 4000) == 2048
    assert "has a context of 2048 tokens; 4000 were asked for" in caplog.text
    assert [context(none, None), context(none, None, 512), context(none, 9000)] == [4096, 512, 9000]


def test_the_context_asked_for_reaches_the_engine(tiny: Tiny) -> None:
    engine = open_model(RECORD, LoadOptions(tiny("llama"), 40), silent)
    answer = engine.chat(ChatRequest(prompts=("Hello",), sampling=Sampling(temperature=0)), silent)
    engine.close()
    assert answer.prompt_tokens + answer.completion_tokens == 40


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_format_of_the_checkpoint_is_read_from_its_files(tiny: Tiny, dtype: str) -> None:
    headers = read_headers(tiny("gpt2", dtype=dtype))
    config = transformers.GPT2Config(dtype="float64")
    assert stored_dtype(config, headers) == getattr(torch, dtype)
    many_small = {"a": ("F32", 10), "b": ("BF16", 100), "c": ("F32", 10)}
    assert stored_dtype(config, many_small) == torch.bfloat16, "bytes count, not tensors"
    assert stored_dtype(config, {}) == torch.float64
    assert stored_dtype(transformers.GPT2Config(), {}) == torch.float32


def test_half_precision_is_what_its_device_computes_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    units = torch.ops.mkldnn._is_mkldnn_bf16_supported
    for capability, fast in (("AVX2", True), ("AVX512", True), ("DEFAULT", units()), ("SVE256", units())):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda told=capability: told)
        for stored in (torch.bfloat16, torch.float16, torch.float32):
            assert half_dtype(stored, "cpu") == (torch.bfloat16 if fast else torch.float32)
    assert half_dtype(torch.float16, "cuda") == torch.float16
    assert half_dtype(torch.float32, "cuda") == torch.float16


def make_adapter(base: Path, folder: Path, **changes: Any) -> Path:
    """A LoRA for a model, with weights that are not zero."""
    import peft

    network = transformers.AutoModelForCausalLM.from_pretrained(base)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **changes}
    torch.manual_seed(1)
    peft.get_peft_model(network, peft.LoraConfig(**settings)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", Quantization)
def test_an_adapter_changes_the_answers(tiny: Tiny, tmp_path: Path, form: Quantization) -> None:
    base = tiny("llama")
    adapter = make_adapter(base, tmp_path / "adapter")
    if form is not Quantization.FP16:
        base = tmp_path / "quantized"
        base.mkdir()
        quantize(tiny("llama"), base, form, False, silent)
    record = RECORD.with_(quantization=form)
    plain, adapted = (open_model(record, LoadOptions(base, adapter=each), silent) for each in (None, adapter))
    answers = [engine.chat(HELLO, silent).text for engine in (plain, adapted)]
    plain.close()
    adapted.close()
    assert answers[0] != answers[1]
    assert adapted.memory_bytes > plain.memory_bytes


def test_an_adapter_is_applied_as_peft_applies_it(tiny: Tiny, tmp_path: Path) -> None:
    import peft

    adapter = make_adapter(tiny("llama"), tmp_path / "adapter")
    engine = open_model(RECORD, LoadOptions(tiny("llama"), adapter=adapter), silent)
    answer = engine.chat(ChatRequest(prompts=("Hello",), sampling=Sampling(temperature=0, max_tokens=8)), silent)
    engine.close()
    network = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=on_this_cpu())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("llama"))
    ids = tokenizer("Hello", return_tensors="pt").input_ids
    with torch.no_grad():
        written = peft.PeftModel.from_pretrained(network, adapter).generate(
            input_ids=ids, max_new_tokens=8, do_sample=False
        )
    assert answer.text == tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def test_an_adapter_for_another_model_is_a_load_failure(tiny: Tiny, tmp_path: Path) -> None:
    adapter = make_adapter(tiny("llama", size="bigger"), tmp_path / "adapter")
    with pytest.raises(LoadFailed, match="The adapter adapter"):
        open_model(RECORD, LoadOptions(tiny("llama"), adapter=adapter), silent)
    (adapter / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(LoadFailed, match="cannot be applied"):
        open_model(RECORD, LoadOptions(tiny("llama"), adapter=adapter), silent)
