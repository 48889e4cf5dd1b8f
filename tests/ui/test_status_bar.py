"""The bar on every tab: model, memory, requests."""

from millm.devices import Device
from millm.events import Event, Stage
from millm.records import ModelRecord, Status
from millm.ui.gradio_import import import_gradio
from millm.views import SystemState

import_gradio()

from millm.ui.status_bar import draw_bar  # noqa: E402

GB = 10**9
LOADED = ModelRecord(name="<old>", status=Status.LOADED)


def system(
    requests: int = 0,
    speed: float = 0.0,
    free: int = 10 * GB,
    kind: str = "cuda",
    waiting: int = 0,
    problems: tuple[str, ...] = (),
) -> SystemState:
    devices = (Device(kind, "A GPU", 16 * GB, free), Device(kind, "A GPU", 8 * GB, 0))
    ram = Device("cpu", "RAM", 64 * GB, 40 * GB)
    return SystemState("0.1.0", devices, GB, None, requests, waiting, speed, (), 100 * GB, problems, ram=ram)


def test_nothing_is_loaded() -> None:
    assert '<b id="status-bar-model">No model loaded</b>' in draw_bar(system(), None)


def test_a_model_says_its_state_in_words() -> None:
    html = draw_bar(system(), LOADED)
    assert '<b id="status-bar-model">&lt;old&gt;</b>' in html
    assert ">Loaded</span>" in html
    assert "is-moving" not in html
    html = draw_bar(system(), LOADED, Event(Stage.LOADING_WEIGHTS, 43.4))
    assert '<span>Loading weights</span><span aria-hidden="true"> 43%</span>' in html
    assert "is-moving" in html
    assert "Waiting for 3 pending requests" in draw_bar(system(), LOADED, Event(Stage.DRAINING, pending=3))


def test_each_gpu_and_the_ram_have_a_gauge() -> None:
    html = draw_bar(system(), None)
    for words in ("6.0 GB", " of 16.0 GB", "10.0 GB free", 'aria-valuenow="38"', "24.0 GB", " of 64.0 GB"):
        assert words in html
    assert html.count('class="mi-meter is-cuda"') == 2
    assert html.count('class="mi-meter is-cpu"') == 1


def test_memory_that_runs_out_changes_its_colour() -> None:
    assert "is-hot" in draw_bar(system(free=0), None)
    one = SystemState("0.1.0", (), GB, None, 0, 0, 0.0, (), GB, (), ram=Device("cpu", "RAM", 8 * GB, 7 * GB))
    assert "is-hot" not in draw_bar(one, None)


def test_requests_and_their_speed() -> None:
    assert "No requests" in draw_bar(system(), None)
    assert "1 request running" in draw_bar(system(1), None)
    assert "tok/s" not in draw_bar(system(1), None)
    assert "44.8 tok/s" in draw_bar(system(2, 44.8), None)
    assert "2 requests running, 3 waiting" in draw_bar(system(2, waiting=3), None)


def test_what_went_wrong_at_start_is_said_and_opens_the_drawer() -> None:
    assert "mi-status-problem" not in draw_bar(system(), None)
    html = draw_bar(system(problems=("no model called '<x>'",)), None)
    assert "no model called &#x27;&lt;x&gt;&#x27;" in html
    assert "data-system" in html
