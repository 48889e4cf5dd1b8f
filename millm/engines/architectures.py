"""Which architectures the installed transformers knows, told without importing it or torch."""

import ast
import logging
from collections.abc import Container, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

TABLE_FILE = Path("models/auto/modeling_auto.py")
TABLE = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
OTHER_HEADS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def known_model_types() -> frozenset[str]:
    """The `model_type`s of causal language models that transformers has classes for.

    Read from its source, which takes some 20 ms where an import would take seconds. Empty where it is not
    installed, or keeps its table elsewhere: then nothing can be told.
    """
    spec = find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    path = Path(spec.submodule_search_locations[0]) / TABLE_FILE
    try:
        return _read_table(path)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError) as error:
        log.warning("cannot tell which architectures transformers knows: %s", error)
        return frozenset()


def is_language_model(config: Mapping[str, Any], known: Container[str]) -> bool:
    """Whether a config.json describes a causal language model, native (`known`) or with its own code."""
    own_code = config.get("auto_map")
    custom = isinstance(own_code, Mapping) and "AutoModelForCausalLM" in own_code
    return (custom or _is_native(config, known)) and not architecture_name(config).endswith(OTHER_HEADS)


def needs_own_code(config: Mapping[str, Any], known: Container[str]) -> bool:
    """Whether only the repository's own Python code can load the model.

    Many repositories still carry code that transformers has meanwhile taken over; that is not run.
    """
    return "auto_map" in config and not _is_native(config, known)


def stored_quantization(config: Mapping[str, Any]) -> str | None:
    """The method that the weights are quantized with as they are stored ("gptq", "mxfp4"); None if they are not."""
    stored = config.get("quantization_config")
    if not isinstance(stored, Mapping):
        return None
    return str(stored.get("quant_method") or "unknown")


def architecture_name(config: Mapping[str, Any]) -> str:
    """How a config.json calls its architecture; "unknown" if it does not."""
    names = config.get("architectures")
    return str((names[0] if isinstance(names, list) and names else None) or config.get("model_type") or "unknown")


def _is_native(config: Mapping[str, Any], known: Container[str]) -> bool:
    model_type = config.get("model_type")
    return isinstance(model_type, str) and model_type in known


def _read_table(path: Path) -> frozenset[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(args=[pairs])) if name == TABLE:
                return frozenset(model_type for model_type, _ in ast.literal_eval(pairs))
    raise LookupError(f"{path.name} has no {TABLE}")
