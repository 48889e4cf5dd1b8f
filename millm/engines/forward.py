"""The network as the decode loop uses it: reading a piece of one prompt, stepping many rows at once."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import cache_utils

from millm.engines.own_cache import with_room
from millm.engines.slots import Slots, slotted
from millm.errors import UnsupportedModel

CACHES = ("past_key_values", "cache_params", "state")  # what architectures call the cache they go on from


class Forward:
    """A causal language model's forward pass. It is called on one thread, within `torch.inference_mode`.

    together: whether rows may step as one batch. pieces: whether a prompt may be read piece by piece.
    token_bytes: what one token takes in a cache, at most.
    """

    def __init__(self, network: Any) -> None:
        """Raises `UnsupportedModel` if the network knows no cache."""
        self.together, self.pieces = True, True
        self.token_bytes = 0.0
        self._network = network
        parameters = inspect.signature(network.forward).parameters
        self._positions = "position_ids" in parameters
        # Where the network can, it computes the logits of the last position only.
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._cache_name = next((name for name in CACHES if name in parameters), "")
        if not self._cache_name:
            name = type(network).__name__
            raise UnsupportedModel(f"Architecture '{name}' cannot go on from a cache.", architecture=name)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        device: torch.device = self._network.device
        return device

    @property
    def vocabulary(self) -> int:
        """How many tokens the network knows."""
        return int(self._network.get_input_embeddings().weight.shape[0])

    def new_cache(self) -> Any:
        """An empty cache for one row; None where the network makes its own kind."""
        if not self._network._supports_default_dynamic_cache():
            return None
        return with_room(cache_utils.DynamicCache(config=self._network.config.get_text_config(decoder=True)))

    def new_slots(self) -> Slots | None:
        """Empty slots for rows; None if such caches cannot be put together."""
        layers = [slotted(layer) for layer in getattr(self.new_cache(), "layers", [])]
        return Slots(layers) if layers and None not in layers else None

    def read(self, tokens: Sequence[int], cache: Any, known: int = 0) -> tuple[Any, Any]:
        """Reads one row's tokens. cache: its own; it has read `known` tokens before.

        Returns the logits of what comes next, of shape [1, vocabulary], and the cache.
        """
        seen = self._network(
            input_ids=torch.tensor([tokens], device=self.device),
            use_cache=True,
            **{self._cache_name: cache},
            **self._at([[*range(known, known + len(tokens))]]),
            **self._last_only,
        )
        return seen.logits[:, -1], getattr(seen, self._cache_name)

    def step(self, tokens: Sequence[int], slots: Slots) -> Any:
        """Reads one more token of every row in the slots. Returns logits of shape [rows, vocabulary]."""
        mask = slots.mask()
        seen = self._network(
            input_ids=torch.tensor(tokens, device=self.device)[:, None],
            attention_mask=None if mask is None else mask.to(self.device),
            use_cache=True,
            **{self._cache_name: slots.cache},
            **self._at([[length] for length in slots.lengths]),
            **self._last_only,
        )
        slots.commit()
        return seen.logits[:, -1]

    def _at(self, positions: list[list[int]]) -> dict[str, torch.Tensor]:
        """Where the tokens stand, for networks that want to be told; some work it out wrongly."""
        return {"position_ids": torch.tensor(positions, device=self.device)} if self._positions else {}
