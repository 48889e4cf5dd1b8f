"""The local hub against the clients it stands in for."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import GRANTED, PLAIN, Hub
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from running import PATIENCE_S


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for folder, weights in (("acme/tiny", b"main"), ("acme/tiny@v1", b"first")):
        (tmp_path / "repos" / folder).mkdir(parents=True)
        (tmp_path / "repos" / folder / "config.json").write_text('{"model_type": "llama"}')
        (tmp_path / "repos" / folder / "model.safetensors").write_bytes(weights)
    with Hub(tmp_path / "repos") as running:
        yield running


def test_huggingface_hub_downloads_from_it(hub: Hub, tmp_path: Path) -> None:
    for revision, weights in (("main", b"main"), ("v1", b"first")):
        folder = snapshot_download(
            "acme/tiny", revision=revision, endpoint=hub.url, cache_dir=tmp_path / "cache", token=False
        )
        assert (Path(folder) / "model.safetensors").read_bytes() == weights
    assert {request.kind for request in hub.requests} == {"api", "resolve", "cdn"}
    assert {request.outcome for request in hub.requests} == {"complete"}


def test_huggingface_hub_knows_its_errors(hub: Hub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url, token=False)
    assert api.whoami(token=PLAIN)["name"] == "plain"
    with pytest.raises(HfHubHTTPError):
        api.whoami(token="unknown")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("acme/tiny", revision="v9")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("acme/tiny", "nothing", cache_dir=tmp_path)
    hub.gated.add("acme/tiny")
    assert api.model_info("acme/tiny").gated == "manual"
    for token in (False, PLAIN):
        with pytest.raises(GatedRepoError):
            api.hf_hub_download("acme/tiny", "config.json", cache_dir=tmp_path, token=token)
    api.hf_hub_download("acme/tiny", "config.json", cache_dir=tmp_path, token=GRANTED)
    hub.private.add("acme/tiny")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/tiny", token=PLAIN)


def test_it_lists_huge_files_without_reading_them(hub: Hub) -> None:
    with (hub.repos.root / "acme" / "tiny" / "model-2.safetensors").open("wb") as file:
        file.truncate(10**12)
    info = HfApi(endpoint=hub.url, token=False).model_info("acme/tiny", files_metadata=True)
    assert 10**12 in [sibling.size for sibling in info.siblings or ()]


def test_it_runs_by_hand(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    command = [sys.executable, str(Path(__file__).parent / "hub.py"), str(tmp_path), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().split()[0].removeprefix("HF_ENDPOINT=")
        with urllib.request.urlopen(f"{url}/api/models/a/b", timeout=PATIENCE_S) as answer:
            assert json.load(answer)["id"] == "a/b"
        process.terminate()


LOAD = """
from transformers import AutoConfig, AutoTokenizer
assert AutoConfig.from_pretrained("acme/tiny").model_type == "llama"
assert AutoTokenizer.from_pretrained("acme/tiny").decode([5, 6])
"""


@pytest.mark.slow
def test_transformers_loads_from_it(hub: Hub, tmp_path: Path) -> None:
    from tiny_models import make_tokenizer

    make_tokenizer().save_pretrained(hub.repos.root / "acme" / "tiny")
    environ = {"PATH": os.environ["PATH"], "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "DO_NOT_TRACK": "1"}
    run = subprocess.run([sys.executable, "-c", LOAD], env=environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
