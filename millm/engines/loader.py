"""Opening a model: from a folder on disk to an engine that answers, or to a clear error and nothing in memory."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from millm.engines.base import Engine, LoadOptions
from millm.engines.embeddings import EmbeddingEngine
from millm.engines.kernels import quicken
from millm.engines.loop import DecodeEngine
from millm.engines.memory import out_of_memory, release_memory
from millm.engines.pooling import read_pooling, stated_length
from millm.errors import LoadFailed, MiLLMError, RemoteCodeRequired, UnsupportedModel
from millm.events import Event, Report, Stage
from millm.jobs import Lane, forget_frames
from millm.records import ModelRecord, ModelType

log = logging.getLogger(__name__)

WEIGHTS_BAR = "Loading weights"  # how transformers names its progress bar
WEIGHTS_DONE = 90.0  # percent of the load when every weight is in place; the first forward is the rest
OTHER_HEADS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
POOLER = "pooler"  # of BERT and its kin; what they are pooled with here is another thing
UNKNOWN_CONTEXT = 4096  # tokens, for a model that states none


def open_model(record: ModelRecord, options: LoadOptions, report: Report) -> Engine:
    """Brings a model to life; see `Opener`. Loads must not overlap: transformers reports progress process-wide.

    It happens on a thread that ends with it: OpenMP's helpers of a thread stay while it lives, and with more of them
    than cores nobody may spin for the next piece of work, which makes every step a third slower.
    """
    lane = Lane("open")
    try:
        with _translated(record):
            return lane.call(lambda: _open(record, options, report))
    finally:
        lane.close()


def _open(record: ModelRecord, options: LoadOptions, report: Report) -> Engine:
    report(Event(Stage.LOADING_WEIGHTS))
    folder = options.folder
    embeds = record.model_type is ModelType.EMBEDDING
    if not embeds:
        check_kind(json.loads((folder / "config.json").read_text("utf-8")))
    if record.trust_remote_code:
        log.warning("loading '%s' with Python code from its repository, as allowed for it", record.name)
    source = {"trust_remote_code": record.trust_remote_code, "local_files_only": True}
    config = transformers.AutoConfig.from_pretrained(folder, **source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **source)
    family = _embedding_family(config) if embeds else transformers.AutoModelForCausalLM
    network = load_weights(folder, config, report, family=family, **source)
    if options.adapter:
        _apply_adapter(network, options.adapter)
    if network.device.type == "cuda":
        report(Event(Stage.MOVING_TO_GPU, WEIGHTS_DONE))
        torch.cuda.synchronize()
    report(Event(Stage.WARMING_UP, WEIGHTS_DONE))
    if options.fast_cpu:
        speed_up(network, folder, config)
    tokenizer("a")  # a truncation setting of its file is dropped by this first call, before threads share it
    most = context_length(record, options, config)
    engine: Engine
    if embeds:
        engine = _embedding_engine(network, tokenizer, most, options)
    else:
        engine = DecodeEngine(network, tokenizer, most, options.cache_bytes)
    report(Event(Stage.WARMING_UP, 100.0))
    return engine


def _embedding_family(config: Any) -> Any:
    """The classes without a head; of models that also decode, the encoder alone."""
    return transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel


def _embedding_engine(network: Any, tokenizer: Any, most: int, options: LoadOptions) -> Engine:
    """The engine of a network without a head. It reads what its author says, or up to `most` tokens if asked to."""
    if getattr(network, POOLER, None) is not None:
        network.pooler = None
    most = min(most, tokenizer.model_max_length, _positions(network) or most)
    stated = None if options.context_length else stated_length(options.folder)
    pooling = read_pooling(options.folder, network.device)
    return EmbeddingEngine(network, tokenizer, min(most, stated or most), pooling)


def _positions(network: Any) -> int | None:
    """How many places the network's table of positions has for tokens; some architectures begin after the padding."""
    table = getattr(getattr(network, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return None if table is None or padding is None else int(table.num_embeddings - padding - 1)


def check_kind(config: Mapping[str, Any]) -> None:
    """Raises `UnsupportedModel` unless a config.json describes a causal language model, native or custom."""
    architecture = (config.get("architectures") or [None])[0] or config.get("model_type") or "unknown"
    custom = "AutoModelForCausalLM" in (config.get("auto_map") or {})
    native = config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not (custom or native) or architecture.endswith(OTHER_HEADS):
        raise UnsupportedModel(
            f"Architecture '{architecture}' is not a causal language model that this program knows.",
            architecture=architecture,
        )


def context_length(record: ModelRecord, options: LoadOptions, config: Any) -> int:
    """The tokens that prompt and answer may have together: what was asked for, within what the model can."""
    text_config = config.get_text_config(decoder=True)
    own = getattr(text_config, "max_position_embeddings", None) or record.context_length
    asked = options.context_length
    if asked and own and asked > own:
        log.warning("'%s' has a context of %d tokens; %d were asked for", record.name, own, asked)
        return int(own)
    return int(asked or own or UNKNOWN_CONTEXT)


def half_dtype(stored: torch.dtype, device: str) -> torch.dtype:
    """The number format of `FP16` for a checkpoint stored as `stored` on a device ("cpu" or "cuda")."""
    if device == "cpu":
        vectors = torch.backends.cpu.get_cpu_capability().startswith("AVX")  # `matmul` does without units for it
        fast = vectors or getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if stored == torch.bfloat16 and torch.cuda.is_bf16_supported() else torch.float16


def read_headers(folder: Path) -> dict[str, tuple[str, int]]:
    """Format and bytes of every tensor in the folder's safetensors files; empty where there are none."""
    tensors = {}
    for path in weight_files(folder):
        try:
            header = _header(path)
        except ValueError as error:
            raise LoadFailed(f"The file '{path.name}' is damaged: {error}. Download the model again.") from error
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            begin, end = tensor["data_offsets"]
            tensors[name] = (tensor["dtype"], end - begin)
    return tensors


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        header: dict[str, Any] = json.loads(file.read(length))
    return header


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model: the single one, or those that the index names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists() or not index.exists():
        return sorted(folder.glob("model.safetensors"))
    return [folder / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]


def stored_dtype(config: Any, headers: Mapping[str, tuple[str, int]]) -> torch.dtype:
    """The number format that most bytes of the checkpoint are stored in, or were before they were quantized."""
    sizes: Counter[str] = Counter()
    for name, size in headers.values():
        sizes[name] += size
    if not sizes or getattr(config, "quantization_config", None):
        return config.get_text_config(decoder=True).dtype or torch.float32
    return STORED.get(sizes.most_common(1)[0][0], torch.float16)


def load_weights(
    folder: Path, config: Any, report: Report, *, quantize: Any = None, family: Any = None, **source: Any
) -> Any:
    """The network of a folder with its weights, in the number format that suits the device.

    quantize: bitsandbytes' settings to quantize the weights with on their way; None takes them as they are stored.
    family: the auto class of transformers that makes it; None for language models. source: passed on to transformers.

    Raises:
        LoadFailed: the files lack weights, or are damaged.
    """
    headers = read_headers(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    whole = quantize or getattr(config, "quantization_config", None)
    alone = whole and torch.cuda.device_count() == 1  # accelerate would leave a tenth of its memory empty
    more = {"quantization_config": quantize} if quantize else {}
    with _progress(report, {name: size for name, (_, size) in headers.items()}):
        network, found = (family or transformers.AutoModelForCausalLM).from_pretrained(
            folder,
            config=config,
            dtype=half_dtype(stored_dtype(config, headers), device),
            device_map=None if device == "cpu" else {"": 0} if alone else "auto",
            use_safetensors=True if headers else None,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **more,
            **source,
        )
    check_complete(found)
    return network.eval()


def speed_up(network: Any, folder: Path, config: Any) -> None:
    """Swaps layers for faster ones where the network computes on a CPU."""
    quicken(network, mapped=stored_dtype(config, read_headers(folder)) == torch.bfloat16)


def _apply_adapter(network: Any, adapter: Path) -> None:
    """Lays an adapter over a network. Raises `LoadFailed` if it does not go with it."""
    try:
        found = network.load_adapter(str(adapter), use_safetensors=True)
    except Exception as error:
        raise LoadFailed(f"The adapter {adapter.name} cannot be applied: {error}") from error
    if found.unexpected_keys or found.missing_keys or found.mismatched_keys:
        raise LoadFailed(f"The adapter {adapter.name} was made for another model: its weights have no place in this.")
    network.eval()


def check_complete(found: Mapping[str, Any]) -> None:
    """Raises `LoadFailed` if weights were made up, because the files lack them or hold them in another shape.

    What is pooled with in BERT's own way may be missing: nothing here uses it.
    """
    if missing := sorted(name for name in found["missing_keys"] if not name.startswith(f"{POOLER}.")):
        raise LoadFailed(f"The model's files lack {len(missing)} of its weights, '{missing[0]}' among them.")
    if mismatched := sorted(found["mismatched_keys"]):
        name, stored, expected = mismatched[0]
        raise LoadFailed(
            f"{len(mismatched)} weights have another shape than config.json says: "
            f"'{name}' is {tuple(stored)} instead of {tuple(expected)}."
        )


@contextmanager
def _progress(report: Report, sizes: Mapping[str, int]) -> Iterator[None]:
    """Turns the progress bar of transformers into reports. An error from `report` ends the load."""

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("desc") == WEIGHTS_BAR and args:
            return _reported(args[0], report, sizes)
        return factory(*args, **kwargs)

    earlier = transformers.logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers.logging.set_tqdm_hook(earlier)


def _reported(
    steps: Iterable[tuple[str, Any]], report: Report, sizes: Mapping[str, int]
) -> Iterator[tuple[str, Any]]:
    """Yields each step of a load and reports the bytes that are in place, twice for every percent at most."""
    steps = list(steps)
    weights = [_bytes_of(conversion, sizes) for _, conversion in steps]
    total = sum(weights)
    done, said = 0, 0.0
    for number, (step, weight) in enumerate(zip(steps, weights, strict=True), 1):
        yield step
        done += weight
        percent = WEIGHTS_DONE * (done / total if total else number / len(steps))
        if percent >= said + 0.5 or number == len(steps):
            said = percent
            report(Event(Stage.LOADING_WEIGHTS, percent, bytes_done=done, bytes_total=total))


def _bytes_of(conversion: Any, sizes: Mapping[str, int]) -> int:
    """Bytes of the stored tensors that a step makes parameters of."""
    return sum(sizes.get(name, 0) for name in set().union(*conversion.layer_targets.values()))


@contextmanager
def _translated(record: ModelRecord) -> Iterator[None]:
    """Lets only `MiLLMError` and what is no `Exception` out, after everything half loaded is gone."""
    try:
        yield
    except BaseException as error:
        forget_frames(error)
        release_memory()
        if isinstance(error, MiLLMError) or not isinstance(error, Exception):
            raise
        raise _translation(error, record) from error


def _translation(error: Exception, record: ModelRecord) -> MiLLMError:
    if out_of_memory(error):
        return LoadFailed("Out of memory loading model. Try a smaller model or higher quantization (Q4).")
    if "trust_remote_code" in str(error):
        return RemoteCodeRequired(
            f"'{record.name}' needs Python code from its repository. Allow that, if you trust its author."
        )
    return LoadFailed(f"'{record.name}' cannot be loaded: {error or type(error).__name__}")
