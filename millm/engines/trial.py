"""What a loaded network is tried for: whether rows may step together, and whether a prompt may be read in pieces.

Some architectures compute other answers in company than alone, or forget when a prompt comes in pieces, and nothing
but trying tells which: both ways are run on two short prompts and their logits compared.
"""

import logging
import math
from collections.abc import Callable
from random import Random
from statistics import median
from typing import Any

import torch

from millm.engines.forward import Forward
from millm.engines.memory import out_of_memory
from millm.engines.prefixes import cache_bytes
from millm.errors import UnsupportedModel

log = logging.getLogger(__name__)

LENGTHS = (5, 9)  # tokens of the two prompts
STEPS = 3  # that both take together
# All in standard deviations of the logits.
EXACT, ROUNDED = 1e-3, 0.01  # what rounding may change in float32, and in less
NOISE = 4  # times what it changes of a token read alone, if that is more
FORGOTTEN = 0.5  # with a difference like this the cache is of no use

Trial = Callable[[Forward, list[list[int]]], float]


@torch.inference_mode()  # type: ignore[untyped-decorator]
def tried(network: Any) -> Forward:
    """The network's forward pass, set up as it can be used.

    Raises:
        UnsupportedModel: it cannot go on from its cache.
    """
    forward = Forward(network)
    prompts = [_prompt(forward.vocabulary, length) for length in LENGTHS]
    noise = _difference_in(_by_token, forward, prompts)
    fine = EXACT if network.dtype == torch.float32 else max(ROUNDED, NOISE * noise)
    if noise > FORGOTTEN:
        name = type(network).__name__
        raise UnsupportedModel(f"Architecture '{name}' cannot go on from a cache.", architecture=name)
    forward.together = _difference_in(_together, forward, prompts) <= fine
    forward.pieces = _difference_in(_in_pieces, forward, prompts) <= fine
    short, long = (cache_bytes(forward.read(prompt, forward.new_cache())[1]) for prompt in prompts)
    forward.token_bytes = (long - short) / (LENGTHS[1] - LENGTHS[0])
    return forward


def _difference_in(trial: Trial, forward: Forward, prompts: list[list[int]]) -> float:
    """What a trial finds; infinity if it fails."""
    try:
        difference = trial(forward, prompts)
    except Exception as error:
        if out_of_memory(error):
            raise
        log.info("%s failed: %s: %s", trial.__name__, type(error).__name__, error)
        return math.inf
    log.debug("%s: %.2g", trial.__name__, difference)
    return difference


def _by_token(forward: Forward, prompts: list[list[int]]) -> float:
    """How far the logits after a prompt's last token alone are from those after the whole prompt."""
    return _read_apart(forward, prompts[-1], -1)


def _in_pieces(forward: Forward, prompts: list[list[int]]) -> float:
    """How far the logits after a prompt in two pieces are from those after the whole prompt."""
    return _read_apart(forward, prompts[-1], LENGTHS[0])


def _read_apart(forward: Forward, prompt: list[int], place: int) -> float:
    whole, _ = forward.read(prompt, forward.new_cache())
    _, cache = forward.read(prompt[:place], forward.new_cache())
    apart, _ = forward.read(prompt[place:], cache, len(prompt[:place]))
    return _difference(whole[0], apart[0])


def _together(forward: Forward, prompts: list[list[int]]) -> float:
    """How far a row's logits in company are from those alone, at worst; at the end the first row leaves.

    Of several steps the middle one counts: rounding can send a token to another expert now and then.
    """
    slots = forward.new_slots()
    if slots is None:
        return math.inf
    alone = [forward.read(prompt, forward.new_cache()) for prompt in prompts]
    for (_, cache), prompt in zip(alone, prompts, strict=True):
        slots.join(cache, len(prompt))
    found: list[list[float]] = [[] for _ in prompts]
    for _ in range(STEPS):
        lengths = list(slots.lengths)
        tokens = [int(logits.argmax()) for logits, _ in alone]
        company = forward.step(tokens, slots)
        alone = [
            forward.read([token], cache, length)
            for token, (_, cache), length in zip(tokens, alone, lengths, strict=True)
        ]
        for differences, (logits, _), beside in zip(found, alone, company, strict=True):
            differences.append(_difference(logits[0], beside))
    slots.leave(0)
    logits, cache = alone[-1]
    token = int(logits.argmax())
    expected, _ = forward.read([token], cache, slots.lengths[0])
    found.append([_difference(expected[0], forward.step([token], slots)[0])])
    return max(map(median, found))


def _difference(expected: Any, found: Any) -> float:
    expected, found = expected.float(), found.float()
    return float((expected - found).abs().mean() / expected.std())


def _prompt(vocabulary: int, length: int) -> list[int]:
    """Tokens from all over the vocabulary, the same on every load."""
    rng = Random(length)
    return [rng.randrange(vocabulary) for _ in range(length)]
