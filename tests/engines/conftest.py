"""Tiny models on disk, built once for all tests of the engines."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small_networks
import tiny_models

# Where transformers copies custom code to before it runs it; read when transformers is imported.
CODE_CACHE = tempfile.TemporaryDirectory()
os.environ["HF_MODULES_CACHE"] = CODE_CACHE.name

IMPORT_TORCH = {
    "test_embeddings.py",
    "test_grammar.py",
    "test_kernels.py",
    "test_loader.py",
    "test_loop.py",
    "test_own_cache.py",
    "test_parsing.py",
    "test_pooling.py",
    "test_prefixes.py",
    "test_quality.py",
    "test_quantize.py",
    "test_rows.py",
    "test_sampling.py",
    "test_slots.py",
    "test_text.py",
    "test_trial.py",
}

Tiny = Callable[..., Path]
Network = Callable[..., Any]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Keeps the seconds that importing torch takes out of the fast part."""
    return True if config.option.markexpr == "not slow" and collection_path.name in IMPORT_TORCH else None


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Builds a tiny model, or finds the one built before with the same arguments."""
    built: dict[Any, Path] = {}

    def find(name: str, **arguments: Any) -> Path:
        key = (name, *sorted(arguments.items()))
        if key not in built:
            built[key] = tiny_models.build(name, tmp_path_factory.mktemp(name), **arguments)
        return built[key]

    return find


@pytest.fixture
def network(tiny: Tiny) -> Network:
    """Makes a network that `tiny_models` or `small_networks` knows by name, ready to answer."""

    def make(kind: str, dtype: str = "float32") -> Any:
        import torch
        import transformers

        if kind in small_networks.KINDS:
            return small_networks.small(kind).to(getattr(torch, dtype))
        return transformers.AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=getattr(torch, dtype)).eval()

    return make


@pytest.fixture
def load(network: Network) -> Callable[[str], Any]:
    """Makes the forward pass of a network known by name."""
    from millm.engines.forward import Forward

    return lambda kind: Forward(network(kind))


@pytest.fixture
def inference() -> Iterator[None]:
    """Computes without gradients, as the decode loop does."""
    import torch

    with torch.inference_mode():
        yield
