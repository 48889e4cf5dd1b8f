"""The bar on every tab: model, memory, requests."""

from millm.devices import Device
from millm.records import ModelRecord
from millm.ui.gradio_import import import_gradio
from millm.views import SystemState

import_gradio()

from millm.ui.status_bar import draw  # noqa: E402

GB = 10**9


def system(
    requests: int = 0,
    speed: float = 0.0,
    free: int = 10 * GB,
    kind: str = "cuda",
    waiting: int = 0,
    problems: tuple[str, ...] = (),
) -> SystemState:
    devices = (Device(kind, "A GPU", 16 * GB, free), Device(kind, "A GPU", 8 * GB, 0))
    return SystemState("0.1.0", devices, GB, None, requests, waiting, speed, (), 100 * GB, problems)


def test_nothing_is_loaded() -> None:
    assert '<b id="status-bar-model">No model loaded</b>' in draw(system(), None, None)


def test_a_model_on_its_way_stands_before_the_one_it_replaces() -> None:
    html = draw(system(), ModelRecord(name="old"), ModelRecord(name="<new>"))
    assert '<b id="status-bar-model">&lt;new&gt;</b>' in html
    assert "loading" in html
    assert "old" not in html


def test_memory_of_all_devices_is_added_up() -> None:
    html = draw(system(), None, None)
    assert "GPU memory" in html
    assert "14.0 GB used" in html
    assert "10.0 GB free" in html
    assert 'aria-valuenow="58"' in html
    assert "GPU" not in draw(system(kind="cpu"), None, None).replace("A GPU", "")


def test_memory_that_runs_out_changes_its_colour() -> None:
    assert "is-hot" in draw(system(free=0), None, None)
    assert "is-hot" not in draw(system(), None, None)


def test_requests_and_their_speed() -> None:
    assert "1 request in flight" in draw(system(1), None, None)
    assert "tok/s" not in draw(system(1), None, None)
    assert "44.8 tok/s" in draw(system(2, 44.8), None, None)
    assert "2 requests in flight, 3 waiting" in draw(system(2, waiting=3), None, None)


def test_what_went_wrong_at_start_is_said() -> None:
    assert "mi-status-problem" not in draw(system(), None, None)
    assert "no model called &#x27;&lt;x&gt;&#x27;" in draw(system(problems=("no model called '<x>'",)), None, None)
