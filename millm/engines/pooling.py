"""From the hidden states of a text's tokens to its one vector, as the files of sentence-transformers say.

`modules.json` lists the steps after the network, each in a folder with its own config.json. A model without these
files gets the mean of the states, of length 1.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from millm.errors import UnsupportedModel

MODES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls": lambda states: states[0],
    "max": lambda states: states.amax(0),
    "mean": lambda states: states.mean(0),
    "mean_sqrt_len_tokens": lambda states: states.sum(0) / math.sqrt(len(states)),
    "weightedmean": lambda states: _rising(states) @ states,
    "lasttoken": lambda states: states[-1],
}
FLAGS = {  # how earlier versions of sentence-transformers write the same
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
NETWORK = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")

Step = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pooling:
    """The steps from the states of one text, float32 of shape [tokens, hidden], to its vector.

    lower: whether texts are put into lower case before. memory_bytes: of the weights that steps have.
    """

    steps: tuple[Step, ...]
    lower: bool = False
    memory_bytes: int = 0

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """The vector of a text."""
        return reduce(lambda vector, step: step(vector), self.steps, states)


def normalized(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of the same direction and of length 1."""
    return torch.nn.functional.normalize(vectors, dim=-1)


MEAN = Pooling((MODES["mean"], normalized))


def read_pooling(folder: Path, device: torch.device) -> Pooling:
    """What a model's folder says. device: where the weights of steps are put.

    Raises:
        UnsupportedModel: a step is of a kind that is not known here.
    """
    if not (folder / "modules.json").is_file():
        return MEAN
    modules = [(module["type"].rpartition(".")[2], module["path"]) for module in _read(folder / "modules.json")]
    steps: list[Step] = []
    for kind, path in modules[1:]:
        if kind not in STEPS or Path(path).is_absolute() or ".." in Path(path).parts:
            raise UnsupportedModel(f"Its modules.json asks for a step '{kind}' that is not known here.")
        steps.append(STEPS[kind](folder / path, device))
    if not steps or "Pooling" not in modules[1][0]:
        raise UnsupportedModel("Its modules.json does not say how the states of the tokens become one vector.")
    size = sum(step.memory_bytes for step in steps if isinstance(step, Dense))
    return Pooling(tuple(steps), bool(_network_settings(folder).get("do_lower_case")), size)


def stated_length(folder: Path) -> int | None:
    """The tokens that the model's author lets it read at most; None where no file says."""
    stated = _network_settings(folder).get("max_seq_length")
    return stated if isinstance(stated, int) and stated > 0 else None


@dataclass(frozen=True)
class Dense:
    """A layer that pooled vectors go through."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    activation: Step

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        return self.activation(torch.nn.functional.linear(vector.to(self.weight.device), self.weight, self.bias))

    @property
    def memory_bytes(self) -> int:
        """Bytes of its weights."""
        return int(self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes))


def _network_settings(folder: Path) -> Mapping[str, Any]:
    found = next((folder / name for name in NETWORK if (folder / name).is_file()), None)
    return _read(found) if found else {}


def _pool(folder: Path, device: torch.device) -> Step:  # noqa: ARG001  (it has no weights)
    config = _read(folder / "config.json")
    flagged = [mode for flag, mode in FLAGS.items() if config.get(flag)] or ["mean"]
    asked = config.get("pooling_mode", flagged)
    modes = [asked] if isinstance(asked, str) else list(asked)
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise UnsupportedModel(f"Its states are to be pooled by '{unknown[0]}', which is not known here.")
    return lambda states: torch.cat([MODES[mode](states) for mode in modes])


def _dense(folder: Path, device: torch.device) -> Step:
    config = _read(folder / "config.json")
    name = config.get("activation_function", "Tanh").rpartition(".")[2]
    if name not in ACTIVATIONS or config.get("use_residual"):
        raise UnsupportedModel(f"A layer behind its pooling, with '{name}', is not known here.")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights = {key.rpartition(".")[2]: tensor.to(device, torch.float32) for key, tensor in weights.items()}
    return Dense(weights["weight"], weights.get("bias"), getattr(torch.nn, name)())


def _normalize(folder: Path, device: torch.device) -> Step:  # noqa: ARG001  (it has neither settings nor weights)
    return normalized


STEPS: dict[str, Callable[[Path, torch.device], Step]] = {"Pooling": _pool, "Dense": _dense, "Normalize": _normalize}


def _rising(states: torch.Tensor) -> torch.Tensor:
    """Weights that grow from token to token, 1 in all."""
    weights = torch.arange(1, len(states) + 1, device=states.device, dtype=states.dtype)
    return weights / weights.sum()


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
