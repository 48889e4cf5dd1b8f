"""Preview and Download, from the click to the end, as the page is told about them."""

import threading
import time
from collections.abc import Callable
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeFetcher, make_manager

from millm.sources.base import Origin, Plan
from millm.ui.gradio_import import import_gradio

import_gradio()

import gradio as gr  # noqa: E402

from millm.ui.download_form import Asked  # noqa: E402
from millm.ui.download_tab import Lookups  # noqa: E402

PAGE = gr.Request(session_hash="page")


def fields(repo: str = "acme/tiny", token: str = "", name: str = "") -> tuple[Any, ...]:
    return ("huggingface", repo, "", "FP16", token, name, False)


class SlowFetcher(FakeFetcher):
    """A source that takes a while to answer."""

    def plan(self, origin: Origin, token: str | None) -> Plan:
        time.sleep(0.4)
        return super().plan(origin, token)


def test_a_form_becomes_an_origin() -> None:
    asked = Asked("huggingface", " acme/tiny ", "/x", "FP16", "", "", True)
    assert (asked.origin.repo_id, asked.origin.path, asked.origin.trust_remote_code) == ("acme/tiny", None, True)
    local = Asked("local", "acme/tiny", " /models/x ", "FP16", "", "", False)
    assert (local.origin.repo_id, local.origin.path, local.title) == (None, "/models/x", "/models/x")


@pytest.mark.parametrize("ask", [Lookups.preview, Lookups.download])
def test_something_is_said_at_once_and_then_every_beat(tmp_path: Path, ask: Callable[..., Any]) -> None:
    manager = make_manager(tmp_path, SlowFetcher())
    began = time.monotonic()
    told = ask(Lookups(manager), PAGE, *fields())
    first = next(told)
    assert "Looking up acme/tiny" in first[0]
    assert time.monotonic() - began < 0.2
    assert [button for button in first if getattr(button, "interactive", None) is False]
    gaps = []
    for _ in told:
        gaps.append(time.monotonic() - began)
        began = time.monotonic()
    assert max(gaps) < 1
    manager.close(1)


def test_a_preview_ends_with_the_facts_or_the_reason(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    lookups = Lookups(manager)
    *_, (card, button) = lookups.preview(PAGE, *fields())
    assert "LlamaForCausalLM" in card
    assert button.interactive
    *_, (card, button) = lookups.preview(PAGE, *fields("nobody/nothing"))
    assert "does not exist on HuggingFace" in card
    assert button.interactive
    manager.close(1)


def test_a_suggestion_fills_the_form_and_is_previewed(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    entry = next(each.entry for each in manager.catalog() if each.entry.repo_id)
    first, *_, last = Lookups(manager).pick(gr.EventData(None, {"entry": entry.id}), PAGE, "FP16", "hf_mine")
    assert first[:5] == ("huggingface", entry.repo_id, "", "FP16", "hf_mine")
    assert f"Looking up {entry.repo_id}" in first[-2]
    assert last[:-2] == (gr.skip(),) * len(fields_of(Asked)), "what was typed meanwhile stays"
    assert "does not exist on HuggingFace" in last[-2]
    assert last[-1].interactive
    manager.close(1)


@pytest.mark.parametrize("nonsense", [{"entry": "rm -rf"}, {"entry": ["x"]}, {}])
def test_a_suggestion_that_is_none_is_refused(tmp_path: Path, nonsense: dict[str, Any]) -> None:
    manager = make_manager(tmp_path)
    with pytest.warns(UserWarning, match="does not exist"):
        assert list(Lookups(manager).pick(gr.EventData(None, nonsense), PAGE, "FP16", "")) == []
    manager.close(1)


def test_the_type_and_the_revision_reach_the_manager(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    list(Lookups(manager).download(PAGE, *fields(), "", "", "", "v1", "music"))
    record = manager.records()[0]
    assert (record.model_type, record.requested_revision) == ("music", "v1")
    manager.close(1)


def test_the_token_and_the_name_reach_the_manager(tmp_path: Path) -> None:
    fetcher = FakeFetcher()
    manager = make_manager(tmp_path, fetcher)
    list(Lookups(manager).download(PAGE, *fields(token="hf_secret", name=" mine ")))
    assert fetcher.tokens[0] == "hf_secret"
    assert manager.find("mine") is not None
    manager.close(1)


def test_a_download_is_told_to_its_end(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, FakeFetcher(chunks=10, pause_s=0.03))
    told = list(Lookups(manager).download(PAGE, *fields()))
    drawn = [running for _, running, *_ in told if isinstance(running, str)]
    assert any("download-progress" in running for running in drawn)
    assert drawn[-1] == ""
    assert "tiny is ready" in told[-1][0]
    manager.close(1)


def test_a_download_that_cannot_begin_says_why(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with pytest.warns(UserWarning, match="does not exist"):  # the toast, which is a warning outside of a page
        *_, last = Lookups(manager).download(PAGE, *fields("nobody/nothing"))
    assert "does not exist on HuggingFace" in last[0]
    assert last[3].interactive
    manager.close(1)


def test_leaving_the_page_does_not_stop_the_download(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, FakeFetcher(chunks=10, pause_s=0.02))
    told = Lookups(manager).download(PAGE, *fields())
    while not manager.records():
        next(told)
    told.close()
    record = manager.records()[0]
    job = manager.job(record.id)
    assert job is None or job.wait(5)
    assert manager.record(record.id).status == "ready"
    manager.close(1)


@pytest.mark.parametrize("ask", [Lookups.preview, Lookups.download])
def test_what_a_source_does_not_answer_can_be_cancelled(tmp_path: Path, ask: Callable[..., Any]) -> None:
    gate = threading.Event()
    manager = make_manager(tmp_path, FakeFetcher(gate=gate))
    lookups = Lookups(manager)
    told = ask(lookups, PAGE, *fields())
    assert "lookup-cancel-btn" in next(told)[0]
    next(told)
    lookups.stop(gr.Request(session_hash="another page"))
    assert next(told)[-1] == gr.skip()
    lookups.stop(PAGE)
    began = time.monotonic()
    *_, last = told
    assert time.monotonic() - began < 1
    assert (last[0], last[-1].interactive) == ("", True)
    gate.set()
    assert manager.records() == []
    manager.close(1)
