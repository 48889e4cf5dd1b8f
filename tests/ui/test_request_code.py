"""The same request as a program: what stands in it, and that it runs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from running import App, Client

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


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", "a-key"], ids=["open", "keyed"])
def test_both_programs_run(run_app: Callable[..., App], key: str) -> None:
    app = run_app(*(("--api-key", key) if key else ()), first=True)
    client = Client(app)
    client.http.headers["authorization"] = f"Bearer {key}"
    (record,) = client.ask("GET", "/api/models", 200)
    client.ask("POST", f"/api/models/{record['id']}/load", 202)
    loaded = ModelRecord(name=client.wait(record["id"], "loaded")["name"], context_length=record["context_length"])
    schema = '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}'
    asked = request(structured=True, schema=schema, temperature=0, min_p=0.05, presence_penalty=0.1)
    keyed = httpx.get(f"{app.url}/v1/models").status_code == 401
    assert keyed is bool(key)
    shown = json.loads(draw(asked, loaded, f"{app.url}/v1", keyed))
    environ = {**os.environ, "MILLM_API_KEY": key or "unused"}
    by_curl = subprocess.run(["sh", "-c", shown["curl"]], capture_output=True, text=True, env=environ, timeout=60)
    by_python = subprocess.run(
        [sys.executable, "-c", shown["python"]], capture_output=True, text=True, env=environ, timeout=60
    )
    said = json.loads(by_curl.stdout)["choices"][0]["message"]["content"]
    assert by_python.stderr == ""
    assert by_python.stdout.rstrip("\n") == said, "with a seed both ask for the same"
