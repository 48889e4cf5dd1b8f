"""How things read on screen: sizes, speeds, times, states. Plain text; whoever builds HTML escapes it."""

from urllib.parse import urlsplit

from millm.events import Event, Stage
from millm.records import ELSEWHERE, SERVED, ModelRecord, ModelType, Quantization, Source, Status

STATUS = {
    Status.AVAILABLE: "Available",
    Status.QUEUED: "Queued",
    Status.DOWNLOADING: "Downloading",
    Status.READY: "Ready",
    Status.LOADING: "Loading",
    Status.LOADED: "Loaded",
    Status.ERROR: "Error",
}

STAGE = {
    Stage.QUEUED: "Waiting for its turn",
    Stage.RESOLVING: "Looking up files",
    Stage.DOWNLOADING: "Downloading",
    Stage.VERIFYING: "Verifying",
    Stage.QUANTIZING: "Quantizing",
    Stage.SAVING: "Saving",
    Stage.MEASURING: "Measuring quality",
    Stage.DRAINING: "Unloading...",
    Stage.UNLOADING_PREVIOUS: "Unloading previous model...",
    Stage.LOADING_WEIGHTS: "Loading weights",
    Stage.MOVING_TO_GPU: "Moving to GPU",
    Stage.WARMING_UP: "Warming up",
    Stage.READING_PROMPT: "Reading the prompt",
    Stage.GENERATING: "Writing",
}

MODEL_TYPE = {
    ModelType.LLM: "Language",
    ModelType.EMBEDDING: "Embedding",
    ModelType.IMAGE_GEN: "Image",
    ModelType.ANIMATION: "Animation",
    ModelType.TTS: "Speech",
    ModelType.MUSIC: "Music",
    ModelType.LIP_SYNC: "Lip sync",
}

SOURCE = {
    Source.HUGGINGFACE: "HuggingFace",
    Source.LOCAL: "Local path",
    Source.URL: "URL",
    Source.OLLAMA: "Ollama",
    Source.REMOTE: "Server",
}

ORIGIN = {
    Source.HUGGINGFACE: "Repository",
    Source.LOCAL: "Path",
    Source.URL: "Address",
    Source.OLLAMA: "Ollama model",
    Source.REMOTE: "Model at the server",
}

QUANTIZATION_NOTE = {
    Quantization.Q4: "Q4: 4 bits a weight, the smallest; recommended.",
    Quantization.Q8: "Q8: 8 bits a weight, close to the original.",
    Quantization.FP16: "FP16: half precision, the weights as they were published.",
}

FORM_HINT = {Quantization.Q4: "recommended", Quantization.Q8: "8 bits", Quantization.FP16: "as published"}
FIT_SHORT = {"ok": "fits", "tight": "just fits", "exceeds": "too big"}

UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: float) -> str:
    """Bytes in decimal units: 1_840_000_000 -> "1.8 GB", 245_300_000 -> "245 MB"."""
    for unit, name in UNITS:
        # what would round up to 1000 of a unit is shown as 1.0 of the next
        if count >= unit * 0.9995:
            value = count / unit
            return f"{value:.1f} {name}" if value < 99.95 and name in ("TB", "GB") else f"{value:.0f} {name}"
    return f"{count:.0f} B"


def size_of_mb(megabytes: float) -> str:
    """Megabytes of 10^6 bytes, as records hold them: 1840.2 -> "1.8 GB"."""
    return size(megabytes * 1e6)


def share(done: int, total: int) -> str:
    """Bytes done of all bytes: "3.07 of 4.60 GB"; both in the unit of the total."""
    for unit, name in UNITS:
        if total >= unit:
            digits = 2 if name in ("TB", "GB") else 0
            return f"{done / unit:.{digits}f} of {total / unit:.{digits}f} {name}"
    return f"{done} of {total} B"


def speed(rate: float) -> str:
    """Bytes a second: "48.3 MB/s"; "" while nothing flows."""
    if rate <= 0:
        return ""
    return f"{rate / 1e6:.1f} MB/s" if rate >= 1e5 else f"{rate / 1e3:.0f} kB/s"


def time_left(seconds: float | None) -> str:
    """Seconds to go: "0:31 left", "1:02:05 left"; "" while unknown."""
    if seconds is None:
        return ""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{clock} left"


def tokens(count: int) -> str:
    """A context length as people say it: 131072 -> "128K", 32000 -> "32K", 2048 -> "2K"."""
    for thousand in (1024, 1000):
        if count >= thousand and count % thousand == 0:
            return f"{count // thousand}K"
    return f"{count:,}"


def several(count: int, noun: str) -> str:
    """A count with its noun: "1 model", "3 models"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def type_of_model(kind: ModelType) -> str:
    """A type as a choice: "Language model"."""
    return f"{MODEL_TYPE[kind]} model"


def facts(record: ModelRecord) -> str:
    """The line under a model's name: "2.5B params • FP16 quantization • 1.8 GB memory"."""
    parts = [f"{record.params} params"] if record.params else []
    if record.source in ELSEWHERE:
        parts.append(served_by(record))
    elif record.model_type in SERVED:
        parts.append(quantization(record))
    else:
        parts.append(type_of_model(record.model_type))
    if record.estimated_memory_mb:
        parts.append(f"{size_of_mb(record.estimated_memory_mb)} memory")
    return " • ".join(parts)


def served_by(record: ModelRecord) -> str:
    """Who runs a model that does not run here: "served by Ollama", "served by gpu-box:8000"."""
    server = urlsplit(record.url or "").netloc if record.source is Source.REMOTE else SOURCE[record.source]
    return f"served by {server}"


def quantization(record: ModelRecord) -> str:
    """How the weights are held: "Q4 quantization", "GPTQ, as published"."""
    stored = record.config.get("quantization_config")
    if record.quantization is not Quantization.FP16:
        return f"{record.quantization} quantization"
    if isinstance(stored, dict):
        return f"{str(stored.get('quant_method') or 'quantized').upper()}, as published"
    return "FP16 quantization"


def more_facts(record: ModelRecord) -> str:
    """The second line: disk, context, and what the weights really took when the model was loaded last."""
    parts = []
    if record.disk_size_mb:
        saved = (record.original_size_mb or 0) - record.disk_size_mb
        less = f", {size_of_mb(saved)} less than downloaded" if saved > 0 else ""
        parts.append(f"{size_of_mb(record.disk_size_mb)} on disk{less}")
    if record.context_length:
        parts.append(f"{tokens(record.context_length)} context")
    if record.measured_memory_mb:
        parts.append(f"{size_of_mb(record.measured_memory_mb)} of weights measured{against_estimate(record)}")
    if record.batching is not None:
        parts.append("answers requests together" if record.batching else "answers requests in turn")
    return " • ".join(parts)


def against_estimate(record: ModelRecord) -> str:
    """How far the measured weights are from what was estimated: ", as estimated", ", 3% more than estimated"."""
    if not record.estimated_weights_mb or not record.measured_memory_mb:
        return ""
    off = round(100 * (record.measured_memory_mb / record.estimated_weights_mb - 1))
    return f", {abs(off)}% {'more' if off > 0 else 'less'} than estimated" if off else ", as estimated"


def origin(record: ModelRecord) -> str:
    """Where a model came from: its repository, path or address."""
    return record.repo_id or record.local_path or record.url or ""


def doing(event: Event) -> str:
    """What a job is doing: "Loading weights", "Waiting for 3 pending requests to complete..."."""
    if event.pending:
        return f"Waiting for {event.pending} pending requests to complete..."
    return STAGE[event.stage]


def freed(record: ModelRecord, count: int) -> str:
    """What deleting a model does to the disk, as the dialog that asks says it. count: bytes."""
    if record.built_in:
        return "Only the entry goes. The model stays with miLLM, and can be added again."
    if record.source is Source.LOCAL:
        return "Only the entry in miLLM goes. The files stay where they are."
    if record.source is Source.OLLAMA:
        return "Ollama keeps its copy unless you remove it there too."
    if record.source is Source.REMOTE:
        return "Only the entry in miLLM goes. The server keeps the model."
    if count == 0:
        return "Only the entry goes. There are no files of it on disk."
    return f"This frees {size(count)} on disk. You would have to download the model again."


def kept(record: ModelRecord) -> str:
    """What an unfinished download left for Retry: "Retry resumes at 1.20 of 5.00 GB."; "" where there is nothing."""
    if record.status is not Status.ERROR or not record.downloaded_bytes:
        return ""
    done, whole = record.downloaded_bytes, record.size_bytes
    return f"Retry resumes at {share(done, whole) if whole else size(done)}."


def place_in_line(before: int) -> str:
    """Where a waiting download stands. before: how many come first, the running one among them."""
    return "Next in line." if before <= 1 else f"{several(before, 'download')} before it."


def next_step(record: ModelRecord) -> str:
    """What can be done with a model that has just arrived."""
    if record.model_type is ModelType.LLM:
        return "Load it to chat with it and to serve it."
    if record.model_type in SERVED:
        return "Load it to serve it at /v1/embeddings."
    return "Activate it for the programs that ask miLLM for the model of its type."


def verified(record: ModelRecord) -> str:
    """The good outcome of checking a model's files."""
    return f"{record.name}: every file is whole."
