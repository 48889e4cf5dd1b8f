"""How long a context can be, and the lengths to choose from."""

import pytest

from millm.contexts import context_steps, context_tokens, longest_context


@pytest.mark.parametrize(
    ("longest", "steps"),
    [
        (128, (128,)),
        (256, (256,)),
        (512, (256, 512)),
        (5000, (256, 512, 1024, 2048, 3072, 4096, 5000)),
        (8192, (256, 512, 1024, 2048, 3072, 4096, 6144, 8192)),
    ],
)
def test_lengths_double_and_end_with_what_the_model_takes(longest: int, steps: tuple[int, ...]) -> None:
    assert context_steps(longest) == steps


def test_the_usual_length_is_always_one_of_them() -> None:
    for longest in (300, 4096, 40_960, 131_072, 1_000_000):
        config = {"text_config": {"max_position_embeddings": longest}}
        assert longest_context(config) == longest
        assert context_tokens(config, None) in context_steps(longest)
