"""The System drawer: what it says, and that it says no secret."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import make_manager

from millm.devices import Device
from millm.engines.base import Replica
from millm.history import Point
from millm.manager import Manager
from millm.settings import read_settings
from millm.ui import build_ui
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.system_drawer import draw, draw_plots, draw_replicas, draw_settings, draw_versions  # noqa: E402

GPU = Device("cuda", "A <GPU>", 24 * 10**9, 10**9)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path, devices=(GPU,))
    yield manager
    manager.close(1)


def test_gpus_stand_beside_the_ram_with_their_names(manager: Manager) -> None:
    devices = draw(manager)["devices"]
    assert "A &lt;GPU&gt;" in devices
    assert "23.0 GB<span" in devices
    assert "Processor" in devices
    assert devices.count('role="progressbar"') == 2


def test_problems_are_said_in_full(manager: Manager) -> None:
    assert draw(manager)["problems"] == ""
    manager.auto_load("<nothing>")
    assert "no model called &#x27;&lt;nothing&gt;&#x27;" in draw(manager)["problems"]


def test_replicas_stand_there_with_what_they_do(manager: Manager) -> None:
    assert draw(manager)["replicas"] == ""
    there = (Replica("a on <10.0.0.4>", "running", 3), Replica("b", "starting", None))
    html = draw_replicas(replace(manager.system(), replicas=there))
    assert "<dt>a on &lt;10.0.0.4&gt;</dt><dd>running, 3 answers in the making</dd>" in html
    assert "<dt>b</dt><dd>starting</dd>" in html


def test_plots_name_the_memory_they_show() -> None:
    points = (Point(ago=5, tokens_per_s=44.8, requests=2, process_bytes=5 * 10**9, device_bytes=9 * 10**9),)
    html = draw_plots(points, (GPU,))
    assert html.count('role="img"') == 4
    assert "GPU memory in use" in html
    assert "<b>44.8</b>" in html
    assert "GPU" not in draw_plots(points, ())


def test_versions_of_what_is_installed_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millm.ui.system_drawer.PACKAGES", ("gradio", "no-such-package"))
    html = draw_versions()
    assert "6." in html
    assert "<dt>no-such-package</dt><dd>not installed</dd>" in html


def test_settings_say_where_they_came_from_and_keep_secrets(manager: Manager) -> None:
    environ = {"HF_TOKEN": "hf_secret", "HF_ENDPOINT": "https://me:pass@hub.example/x"}
    settings = read_settings(["--port", "1234"], environ)
    html = draw_settings(settings)
    assert "<code>PORT</code></th><td>1234</td><td>flag</td>" in html
    assert "<code>HF_TOKEN</code></th><td>set</td><td>environment</td>" in html
    assert "<code>MILLM_API_KEY</code></th><td>not set</td><td>default</td>" in html
    assert "<td>https://hub.example/x</td>" in html
    page = str(build_ui(manager, settings).get_config_file())
    assert "<td>1234</td>" in page
    for secret in ("hf_secret", "pass@"):
        assert secret not in page
