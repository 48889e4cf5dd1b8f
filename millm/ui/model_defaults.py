"""What the controls beside the conversation start from: what a model's own settings and files say."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from millm.details import SUGGESTED, read_json
from millm.generation import GENERATION, generation_of, system_prompt_of
from millm.records import ModelRecord
from millm.ui.answers import Controls

# field: (least, most); what a model asks for beyond them is brought to the nearer end
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "max_tokens": (1, 1_000_000),
    "top_p": (0.0, 1.0),
    "top_k": (0, 200),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.5, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
}


def defaults(record: ModelRecord | None) -> Controls:
    """The controls as a model wants them; None stands for no model.

    What `settings` say goes before the model's generation_config.json, and that before what we choose ourselves.
    Values that are none are passed over: strangers write these files.
    """
    if record is None:
        return Controls()
    told: dict[str, Any] = _numbers(_published(record)) | _numbers(generation_of(record.settings))
    return Controls(**told, system=system_prompt_of(record.settings))


def _published(record: ModelRecord) -> dict[str, Any]:
    """The model's generation_config.json in our names; empty where there is none that can be read."""
    written = read_json(Path(record.cache_path) / SUGGESTED) if record.cache_path else {}
    greedy = {"temperature": 0.0} if written.get("do_sample") is False else {}
    return {**written, "max_tokens": written.get("max_new_tokens"), **greedy}


def _numbers(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in GENERATION:
        value = given.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            least, most = RANGES[name]
            found[name] = min(max(value, least), most)
    return found
