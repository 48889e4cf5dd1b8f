"""What the pages under /docs show as answers of the management API."""

from millm.records import ModelRecord, Quantization, Status

RECORD = ModelRecord(
    id=1,
    name="gemma-2-2b",
    repo_id="google/gemma-2-2b",
    revision="c5ebcd40d208330abc697524c919956e692655cf",
    params="2.6B",
    param_count=2_614_341_888,
    architecture="Gemma2ForCausalLM",
    hidden_size=2304,
    num_layers=26,
    num_heads=8,
    vocab_size=256_000,
    context_length=8192,
    quantization=Quantization.FP16,
    disk_size_mb=5264.52,
    downloaded_bytes=5_264_520_000,
    size_bytes=5_264_520_000,
    estimated_memory_mb=5985.13,
    estimated_weights_mb=5228.68,
    measured_memory_mb=5228.68,
    batching=True,
    cache_path="data/models/huggingface/google--gemma-2-2b--FP16",
    config={"model_type": "gemma2"},
    status=Status.LOADED,
    created_at="2026-01-01T12:00:00.000000Z",
    updated_at="2026-01-01T12:05:00.000000Z",
    loaded_at="2026-01-01T12:06:00.000000Z",
).to_dict()

DOWNLOADING = RECORD | {
    "status": "downloading",
    "download_progress": 42.0,
    "downloaded_bytes": 2_211_098_400,
    "cache_path": None,
    "measured_memory_mb": None,
    "batching": None,
    "loaded_at": None,
}
LOADING = RECORD | {"status": "loading", "loaded_at": None}
READY = RECORD | {"status": "ready", "loaded_at": None}

PREVIEW = {
    "name": "google/gemma-2-2b",
    "suggested_name": "gemma-2-2b",
    "revision": RECORD["revision"],
    "link": "https://huggingface.co/google/gemma-2-2b",
    "params": "2.6B",
    "param_count": 2_614_341_888,
    "architecture": "Gemma2ForCausalLM",
    "hidden_size": 2304,
    "num_layers": 26,
    "num_heads": 8,
    "vocab_size": 256_000,
    "context_length": 8192,
    "is_gated": True,
    "access": "token_needed",
    "requires_trust_remote_code": False,
    "license": "gemma",
    "files": [{"path": "model-00001-of-00002.safetensors", "size": 4_988_025_760}],
    "estimated_sizes": {
        "FP16": {
            "download_mb": 5264.52,
            "disk_mb": 5264.52,
            "peak_disk_mb": 5264.52,
            "memory_mb": 5985.13,
            "memory_parts": {
                "weights": 5_228_683_776,
                "kv_cache": 436_207_616,
                "activations": 320_238_592,
                "overhead": 0,
            },
            "context_length": 4096,
            "provenance": "from parameter count",
            "fits": True,
        }
    },
    "warnings": [],
}

STORAGE = {
    "total_bytes": 5_264_520_000,
    "free_bytes": 812_000_000_000,
    "staging_bytes": 0,
    "by_type": {"llm": 5_264_520_000},
    "models": {"1": 5_264_520_000},
    "orphans": {},
    "unfinished": {},
}

SYSTEM = {
    "version": "0.1.0",
    "devices": [{"kind": "cpu", "name": "RAM", "total": 34_359_738_368, "free": 21_474_836_480}],
    "process_bytes": 5_600_000_000,
    "loaded": RECORD,
    "requests_running": 1,
    "requests_waiting": 0,
    "tokens_per_s": 24.5,
    "jobs": [{"id": "8b0c", "kind": "download", "model_id": 2, "stage": "downloading", "progress": 42.0}],
    "disk_free": 812_000_000_000,
    "problems": [],
    "batch_width": 1,
    "rows_waiting": 0,
    "model_bytes": 5_228_683_776,
    "ram": {"kind": "cpu", "name": "RAM", "total": 34_359_738_368, "free": 21_474_836_480},
    "replicas": [],
}

METRICS = """# HELP millm_requests_total Requests that ended, by how
# TYPE millm_requests_total counter
millm_requests_total{outcome="ok"} 12.0
# HELP millm_generated_tokens_total Tokens generated
# TYPE millm_generated_tokens_total counter
millm_generated_tokens_total 3480.0
"""

HEALTH = {"status": "ok", "version": "0.1.0"}

FAILED = {
    "success": False,
    "data": None,
    "error": {"code": "MODEL_NOT_FOUND", "message": "There is no model with id 7.", "details": {"id": 7}},
}

EVENTS = """event: model:download:progress
data: {"model_id":2,"stage":"downloading","progress":42.0,"bytes_downloaded":2211098400,"total_bytes":5264520000,\
"speed_mbps":112.4,"eta_s":27.2}

event: model:load:progress
data: {"model_id":1,"stage":"loading_weights","progress":60.0}

event: model:unload:progress
data: {"model_id":1,"pending_requests":1}

event: model:deleted
data: {"model_id":3}
"""

NEEDS = {
    "memory": {
        "weights": 5_228_683_776,
        "kv_cache": 436_207_616,
        "activations": 262_144_000,
        "overhead": 0,
        "context_length": 4096,
        "provenance": "from parameter count",
        "total": 5_927_035_392,
    },
    "disk_bytes": 5_264_520_000,
    "missing_bytes": 0,
    "packages": ["torch", "transformers", "accelerate"],
}
FITS = {"fits": True, "warnings": [], "requirements": NEEDS}
SUGGESTION: dict[str, object] = {
    "id": "qwen3-0.6b",
    "title": "Qwen3 0.6B",
    "model_type": "llm",
    "source": "huggingface",
    "good_for": "Quick answers with optional reasoning on a laptop",
    "repo_id": "Qwen/Qwen3-0.6B",
    "ollama_name": None,
    "url": None,
    "params": "0.6B",
    "param_count": 596_049_920,
    "download_mb": 1520,
    "gated": False,
    "requires": [],
    "fits": True,
}

FOUND = {"repo_id": "google/gemma-2-2b", "downloads": 512_000, "gated": True}

CLEANED = {"freed_bytes": 4_988_025_760}
