"""A hub with one small model, for the tests of the sources."""

import os

# huggingface_hub reads these while it is imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ["NO_PROXY"] = "localhost,127.0.0.1"

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import Hub
from making import CONFIG, content, make_repo, safetensors


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The folder of acme/tiny, whose weights are 300 kB."""
    return make_repo(
        tmp_path / "repos" / "acme" / "tiny",
        config__json=CONFIG,
        tokenizer__json="{}",
        README__md="---\nlicense: mit\n---\nA model.",
        model__safetensors=safetensors(content(300_000)),
    )


@pytest.fixture
def hub(repo: Path) -> Iterator[Hub]:
    with Hub(repo.parent.parent) as running:
        yield running
