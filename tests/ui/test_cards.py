"""The HTML of a model's card: the right buttons in every state, and nothing that came from outside as markup."""

import re

import pytest

from millm.events import Event, Stage
from millm.records import ModelRecord, ModelType, Source, Status
from millm.ui.cards import bar, card, empty, verify_button

SHEETS = ("settings", "details")
EVIL = "<img src=x onerror=alert(1)>\"'&"


def ids(html: str) -> set[str]:
    return set(re.findall(r' id="([^"]+)"', html))


def buttons(html: str) -> set[str]:
    return {name.removesuffix("-btn-7") for name in ids(html) if name.endswith("-btn-7")}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.AVAILABLE, {"start", "delete", *SHEETS}),
        (Status.QUEUED, {"cancel"}),
        (Status.DOWNLOADING, {"cancel"}),
        (Status.READY, {"load", "delete", *SHEETS}),
        (Status.LOADING, {"cancel"}),
        (Status.LOADED, {"unload", *SHEETS}),
        (Status.ERROR, {"retry", "delete", *SHEETS}),
    ],
)
def test_a_card_offers_what_its_state_allows(status: Status, expected: set[str]) -> None:
    html = card(ModelRecord(id=7, name="m", status=status))
    assert buttons(html) == expected
    assert f'data-status="{status}"' in html
    assert {"model-card-7", "model-status-7"} <= ids(html)


def test_every_state_is_a_word_and_not_only_a_colour() -> None:
    words = [card(ModelRecord(id=7, status=status)).split("</i>")[1].split("<")[0] for status in Status]
    assert words == ["Available", "Queued", "Downloading", "Ready", "Loading", "Loaded", "Error"]


def test_a_model_that_is_being_unloaded_cannot_be_unloaded_again() -> None:
    html = card(ModelRecord(id=7, status=Status.LOADED), Event(Stage.DRAINING, pending=2))
    assert buttons(html) == set()
    assert "Waiting for 2 pending requests to complete..." in html


def test_a_type_that_is_not_served_here_has_no_load_button() -> None:
    record = ModelRecord(id=7, status=Status.READY, model_type=ModelType.MUSIC)
    assert buttons(card(record)) == {"activate", "delete", *SHEETS}


def test_an_embedding_model_is_loaded_here_or_activated_for_others() -> None:
    record = ModelRecord(id=7, status=Status.READY, model_type=ModelType.EMBEDDING)
    assert buttons(card(record)) == {"load", "activate", "delete", *SHEETS}
    assert buttons(card(record.with_(active=True))) == {"load", "deactivate", "delete", *SHEETS}
    assert buttons(card(record.with_(status=Status.LOADED))) == {"unload", *SHEETS}


def test_other_types_are_activated_one_at_a_time_of_each() -> None:
    record = ModelRecord(id=7, status=Status.READY, model_type=ModelType.MUSIC)
    assert ">Active<" not in card(record)
    active = card(record.with_(active=True))
    assert buttons(active) == {"deactivate", "delete", *SHEETS}
    assert ">Ready</span>" in active
    assert ">Active</span>" in active


@pytest.mark.parametrize(
    ("source", "there"),
    [
        (Source.HUGGINGFACE, True),
        (Source.URL, True),
        (Source.LOCAL, False),
        (Source.OLLAMA, False),
        (Source.REMOTE, False),
    ],
)
def test_files_that_miLLM_keeps_can_be_verified(source: Source, there: bool) -> None:
    record = ModelRecord(id=7, status=Status.READY, source=source, cache_path="/cache/m")
    assert bool(verify_button(record)) is there
    assert not verify_button(record.with_(cache_path=None))


def test_a_load_shows_its_steps_and_where_it_is() -> None:
    record = ModelRecord(id=7, name="m", status=Status.LOADING)
    html = card(record, Event(Stage.LOADING_WEIGHTS, 40))
    assert html.index("Make room</li>") < html.index("Load weights</li>") < html.index("Warm up</li>")
    assert '<li class="is-done">Make room' in html
    assert '<li class="is-now" aria-current="step">Load weights' in html
    assert 'aria-current="step">Load weights' in card(record, Event(Stage.MOVING_TO_GPU, 90))
    assert "aria-current" not in card(record, Event(Stage.QUEUED))
    assert "mi-stages" not in card(record.with_(status=Status.DOWNLOADING), Event(Stage.DOWNLOADING, 5))


def test_changed_settings_offer_a_reload() -> None:
    html = card(ModelRecord(id=7, name="m", status=Status.LOADED), outdated=True)
    assert "Its settings have changed." in html
    assert buttons(html) == {"unload", "reload", *SHEETS}


def test_a_model_that_makes_room_says_for_whom_and_offers_nothing() -> None:
    html = card(ModelRecord(id=7, name="old", status=Status.LOADED), leaving="Makes room for <new>.")
    assert "Makes room for &lt;new&gt;." in html
    assert buttons(html) == set()


def test_a_check_of_files_shows_its_progress_and_can_be_cancelled() -> None:
    record = ModelRecord(id=7, status=Status.READY, cache_path="/cache/m")
    html = card(record, Event(Stage.VERIFYING, 30.0))
    assert buttons(html) == {"cancel"}
    assert "<b>30%</b>" in html


def test_an_error_says_what_is_kept_for_retry() -> None:
    record = ModelRecord(id=7, status=Status.ERROR, error_message="Network error.", size_bytes=5_000_000_000)
    assert "Retry resumes at 1.20 of 5.00 GB." in card(record.with_(downloaded_bytes=1_200_000_000))
    assert "mi-kept" not in card(record)


def test_an_ollama_model_can_be_removed_in_two_ways() -> None:
    html = card(ModelRecord(id=7, name="m", status=Status.READY, source=Source.OLLAMA))
    assert 'data-ok="Remove from the list"' in html
    assert 'data-also="Remove from Ollama too" data-also-act="delete-everywhere"' in html
    assert "data-also" not in card(ModelRecord(id=7, name="m", status=Status.READY))


def test_a_servers_model_can_only_be_taken_from_the_list() -> None:
    html = card(ModelRecord(id=7, name="m", status=Status.READY, source=Source.REMOTE, url="http://<b>/v1"))
    assert 'data-ok="Remove from the list"' in html
    assert "data-also" not in html
    assert "served by &lt;b&gt;" in html


def test_progress_is_readable_for_people_and_screen_readers() -> None:
    event = Event(Stage.DOWNLOADING, 62.4, 2_850_000_000, 4_600_000_000, 48_300_000, 31)
    html = card(ModelRecord(id=7, name="gemma", status=Status.DOWNLOADING), event)
    assert 'role="progressbar" aria-label="Progress of gemma"' in html
    assert 'aria-valuenow="62"' in html
    for text in ("<b>62%</b>", "Downloading", "2.85 of 4.60 GB", "48.3 MB/s", "0:31 left"):
        assert text in html


@pytest.mark.parametrize(("percent", "shown"), [(-3.0, "0"), (250.0, "100"), (49.6, "50")])
def test_a_bar_stays_within_its_bounds(percent: float, shown: str) -> None:
    assert f'aria-valuenow="{shown}"' in bar(percent, "x")
    assert f"width:{shown}%" in bar(percent, "x")


def test_an_error_is_shown_also_on_a_model_that_is_ready() -> None:
    record = ModelRecord(id=7, status=Status.READY, error_message="Out of memory loading model.")
    assert "Out of memory loading model." in card(record)
    assert buttons(card(record)) == {"load", "delete", *SHEETS}


def test_delete_asks_first_and_says_how_many_bytes_go() -> None:
    html = card(ModelRecord(id=7, name="gemma", status=Status.READY), frees=4_100_000_000)
    assert 'data-question="Delete gemma?"' in html
    assert "frees 4.1 GB" in html
    local = card(ModelRecord(id=7, name="gemma", status=Status.READY, source=Source.LOCAL), frees=0)
    assert "The files stay where they are." in local


def test_whatever_comes_from_outside_is_text() -> None:
    record = ModelRecord(
        id=7, name=EVIL, repo_id=EVIL, local_path=EVIL, params=EVIL, status=Status.ERROR, error_message=EVIL
    )
    html = card(record) + card(record, Event(Stage.DOWNLOADING)) + empty("models", EVIL, EVIL, EVIL, "models")
    assert "<img" not in html
    assert re.findall(r"""onerror=alert\(1\)>["']""", html) == []


def test_code_of_its_own_is_marked() -> None:
    assert "runs its own code" in card(ModelRecord(id=7, trust_remote_code=True))
    assert "runs its own code" not in card(ModelRecord(id=7))


def test_an_empty_place_leads_on_only_where_there_is_a_way() -> None:
    assert 'data-tab="download"' in empty("models", "No models yet", "", "Get a model", "download")
    assert "<button" not in empty("search", "Nothing here", "")
