"""The same request as a program: what stands in it, and that it runs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import make_manager
from running import PATIENCE_S, App, Client
from serving import load, serving

from millm.api import GuardPolicy, create_app
from millm.engines.base import ChatRequest, Message, Sampling
from millm.records import ModelRecord
from millm.ui.answers import Controls, chat_request
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.request_code import body, draw  # noqa: E402

AWKWARD = 'It\'s "quoted" $HOME `id` \\ é\n<script>{}</script>'
RECORD = ModelRecord(name="tiny", context_length=4096)


def request(**changes: object) -> ChatRequest:
    controls = Controls(system="Be brief.", top_p=0.9, top_k=7, stops="END", seed=3)
    return chat_request([{"role": "user", "content": AWKWARD}], replace(controls, **changes))


def test_fields_that_change_nothing_are_left_out() -> None:
    neutral = ChatRequest((Message("user", "Hi"),), sampling=Sampling(temperature=0.7, max_tokens=5))
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.7, "max_tokens": 5}
    assert body(neutral, "m") == asked
    assert body(neutral, "m", frozenset({"top_k"})) == {**asked, "top_k": 0}, "the model's own would step in"


def test_what_the_openai_client_does_not_know_goes_into_extra_body() -> None:
    shown = json.loads(draw(request(min_p=0.1), RECORD, "http://here/v1", False))["python"]
    assert "extra_body={'top_k': 7, 'min_p': 0.1}" in shown
    assert "top_p=0.9" in shown
    compile(shown, "shown", "exec")


def test_tokens_that_may_not_fit_are_not_asked_for() -> None:
    for context, kept in ((4096, True), (512, False)):
        shown = json.loads(draw(request(), replace(RECORD, context_length=context), "http://here/v1", False))
        assert ("max_tokens" in shown["curl"]) is kept


def test_without_a_model_its_name_is_left_to_the_person() -> None:
    shown = json.loads(draw(request(), None, "http://here/v1", True))
    assert "No model is loaded" in shown["said"]
    assert "Bearer $MILLM_API_KEY" in shown["curl"]


def run_both(shown: dict[str, str], **environ: str) -> tuple[str, str]:
    """What the programs print: curl's answer taken out of its JSON, and Python's."""
    commands = (["sh", "-c", shown["curl"]], [sys.executable, "-c", shown["python"]])
    by_curl, by_python = (
        subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=PATIENCE_S)
        for command in commands
    )
    assert by_python.stderr == ""
    return json.loads(by_curl.stdout)["choices"][0]["message"]["content"], by_python.stdout.removesuffix("\n")


@pytest.mark.slow
def test_both_programs_run_and_send_what_was_written(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    load(manager)
    with serving(create_app(manager, GuardPolicy())) as url:
        shown = json.loads(draw(request(), RECORD, f"{url}/v1", False))
        said = run_both(shown)
    manager.close(1)
    assert said[0] == said[1]
    assert said[0].split() == AWKWARD.split(), "the fake model says what it hears"


@pytest.mark.slow
def test_both_programs_run_with_a_key_and_a_schema(run_app: Callable[..., App]) -> None:
    app = run_app("--api-key", "a-key", first=True)
    client = Client(app)
    client.http.headers["authorization"] = "Bearer a-key"
    (record,) = client.ask("GET", "/api/models", 200)
    client.ask("POST", f"/api/models/{record['id']}/load", 202)
    client.wait(record["id"], "loaded")
    guide = ModelRecord(name=record["name"], context_length=record["context_length"])
    schema = '{"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}'
    asked = request(structured=True, schema=schema, min_p=0.05, presence_penalty=0.1, max_tokens=64)
    shown = json.loads(draw(asked, guide, f"{app.url}/v1", True))
    by_curl, by_python = run_both(shown, MILLM_API_KEY="a-key")
    assert by_curl == by_python, "with a seed both get the same"
    assert isinstance(json.loads(by_curl)["sure"], bool)
