"""Previews and starts of downloads, from the question to the end, as the page is told about them."""

import threading
import time
from collections.abc import Callable
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import pytest
from fakes import CONFIG, FakeFetcher, make_manager
from running import PATIENCE_S
from serving import AT_ONCE_S

from millm.errors import GatedModel
from millm.estimate import Estimate
from millm.manager import Manager
from millm.records import Quantization, Source
from millm.sources.base import Origin, Plan
from millm.ui import words
from millm.ui.gradio_import import import_gradio

import_gradio()

import gradio as gr  # noqa: E402

from millm.ui.download_form import Asked  # noqa: E402
from millm.ui.lookups import Lookups  # noqa: E402

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
    gate = threading.Event()
    manager = make_manager(tmp_path, FakeFetcher(gate=gate))
    told = ask(Lookups(manager), PAGE, *fields())
    first = next(told)
    assert "Looking up acme/tiny" in first[0]
    assert [button for button in first if getattr(button, "interactive", None) is False]
    assert len([next(told) for _ in range(3)]) == 3, "while the source is silent"
    gate.set()
    assert list(told)
    manager.close(1)


def test_a_preview_ends_with_the_facts_or_the_reason(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    lookups = Lookups(manager)
    *_, (card, button, *_) = lookups.preview(PAGE, *fields())
    assert "LlamaForCausalLM" in card
    assert button.interactive
    *_, (card, button, *_) = lookups.preview(PAGE, *fields("nobody/nothing"))
    assert "does not exist on HuggingFace" in card
    assert 'data-field="repo-input"' in card
    assert 'role="alert"' in card
    assert button.interactive
    manager.close(1)


def test_a_suggestion_fills_the_form_and_is_previewed(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    entry = next(each.entry for each in manager.catalog() if each.entry.repo_id)
    first, *_, last = Lookups(manager).pick(gr.EventData(None, {"entry": entry.id}), PAGE, "FP16", "hf_mine")
    assert first[:5] == ("huggingface", entry.repo_id, "", "FP16", "hf_mine")
    typed = len(fields_of(Asked))
    assert f"Looking up {entry.repo_id}" in first[typed]
    assert last[:typed] == (gr.skip(),) * typed, "what was typed meanwhile stays"
    assert "does not exist on HuggingFace" in last[typed]
    assert last[typed + 1].interactive
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
    assert job is None or job.wait(PATIENCE_S)
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
    assert next(told)[0] == gr.skip()
    lookups.stop(PAGE)
    began = time.monotonic()
    *_, last = told
    assert time.monotonic() - began < AT_ONCE_S
    assert last[0] == ""
    assert [button for button in last if getattr(button, "interactive", None)]
    gate.set()
    assert manager.records() == []
    manager.close(1)


def test_what_is_typed_is_no_alarm(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    lookups = Lookups(manager)
    *_, (card, *_) = lookups.look(PAGE, *fields("nobody/nothing"))
    assert "does not exist on HuggingFace" in card
    assert 'data-sure=""' in card
    assert "alert" not in card.replace("mi-icon", "")
    *_, (card, *_) = lookups.look(PAGE, "local", "", "not/whole", "FP16", "", "", False)
    assert "Not an absolute path" in card
    assert 'data-field="path-input"' in card
    assert 'data-sure="yes"' in card
    manager.close(1)


def test_the_newest_question_stops_the_older_one_and_is_never_overwritten(tmp_path: Path) -> None:
    gate = threading.Event()
    fetcher = FakeFetcher(gate=gate)
    manager = make_manager(tmp_path, fetcher)
    lookups = Lookups(manager)
    older = lookups.look(PAGE, *fields("acme/older"))
    next(older), next(older)
    newer = lookups.look(PAGE, *fields("acme/newer"))
    next(newer), next(newer)
    assert list(older)[-1] == (gr.skip(),) * 7, "a page shows nothing of what it does not want any more"
    gate.set()
    *_, (card, *_) = newer
    assert "acme/newer" in card
    manager.close(1)


def test_other_pages_are_left_alone(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, SlowFetcher())
    lookups = Lookups(manager)
    mine, other = (lookups.look(gr.Request(session_hash=name), *fields()) for name in ("mine", "other"))
    next(mine), next(other)
    for told in (mine, other):
        *_, (card, *_) = told
        assert "LlamaForCausalLM" in card
    manager.close(1)


def test_a_download_ends_the_preview_that_is_not_needed_any_more(tmp_path: Path) -> None:
    gate = threading.Event()
    manager = make_manager(tmp_path, FakeFetcher(gate=gate))
    lookups = Lookups(manager)
    preview = lookups.look(PAGE, *fields())
    next(preview), next(preview)
    starting = lookups.download(PAGE, *fields())
    next(starting), next(starting)
    *_, (card, *_) = preview
    assert card == ""
    gate.set()
    assert "tiny is ready" in list(starting)[-1][0]
    manager.close(1)


def test_a_context_length_is_counted_anew_without_asking_the_source(tmp_path: Path) -> None:
    fetcher = FakeFetcher()
    manager = make_manager(tmp_path, fetcher)
    lookups = Lookups(manager)
    *_, (card, _, radio, *_) = lookups.look(PAGE, *fields())
    assert 'data-counted="1"' in card
    assert dict(radio.choices).keys() == {f"FP16\n{words.size(sizes(manager).total)} · fits"}
    *_, (card, *_) = lookups.weigh(gr.EventData(None, {"tokens": 256}), PAGE)
    assert 'data-counted="0"' in card
    assert words.size(sizes(manager, 256).total) in card
    assert len(fetcher.tokens) == 3, "twice by this test itself"
    manager.close(1)


def sizes(manager: Manager, tokens: int | None = None) -> Estimate:
    """What the API says of the same."""
    found = manager.plan(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"), None, tokens)
    return found.sizes[Quantization.FP16].memory


@pytest.mark.parametrize("nonsense", [{"tokens": "many"}, {"tokens": -1}, {"tokens": True}, {}])
def test_a_context_length_that_is_none_changes_nothing(tmp_path: Path, nonsense: dict[str, Any]) -> None:
    manager = make_manager(tmp_path)
    lookups = Lookups(manager)
    list(lookups.look(PAGE, *fields()))
    assert list(lookups.weigh(gr.EventData(None, nonsense), PAGE)) == [(gr.skip(),) * 7]
    unknown = gr.Request(session_hash="unknown")
    assert list(lookups.weigh(gr.EventData(None, {"tokens": 256}), unknown)) == [(gr.skip(),) * 7]
    manager.close(1)


def test_a_token_and_trust_are_asked_for_where_they_are_needed(tmp_path: Path) -> None:
    gated = GatedModel("It is gated. Enter an access token.")
    own_code = {**CONFIG, "model_type": "unheard-of", "auto_map": {"AutoModelForCausalLM": "modeling.Model"}}
    for fetcher, opened in (
        (FakeFetcher(), (False, False)),
        (FakeFetcher(refusal=gated), (True, False)),
        (FakeFetcher(config=own_code), (False, True)),
    ):
        manager = make_manager(tmp_path / str(opened), fetcher)
        *_, (_, _, _, token, token_way, trust, trust_way) = Lookups(manager).look(PAGE, *fields())
        shown = [part != gr.skip() and part["visible"] for part in (token, trust)]
        assert tuple(shown) == opened
        assert [part != gr.skip() for part in (token_way, trust_way)] == shown
        manager.close(1)
