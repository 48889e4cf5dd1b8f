"""Real servers of other people, attached to a real miLLM: what they say directly is what comes through it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import tiny_models
from running import PATIENCE_S, App, Client, free_port

pytestmark = pytest.mark.slow

Run = Callable[..., App]
KEY = "sesame"
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
GREEDY: dict[str, Any] = {"messages": HELLO, "max_tokens": 12, "temperature": 0}


@contextmanager
def other(command: list[str], port: int, log: Path, key: str = "", **environ: str) -> Iterator[str]:
    """A server in a process of its own; gives its address once it answers at all."""
    process = subprocess.Popen(
        command, env={**os.environ, **environ}, stdout=log.open("w"), stderr=subprocess.STDOUT, cwd=log.parent
    )
    url, deadline = f"http://127.0.0.1:{port}/v1", time.monotonic() + PATIENCE_S
    try:
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {key or 'none'}"}, timeout=PATIENCE_S)
                break
            except (httpx.ConnectError, httpx.ReadError, httpx.TimeoutException):
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait(20)


def attach(app: App, **body: object) -> openai.OpenAI:
    """Attaches and loads a server's model, called "far"; gives the program that asks for it."""
    client = Client(app)
    record = client.ask("POST", "/api/models", 202, {"source": "remote", "custom_name": "far", **body})
    client.wait(record["id"], "ready")
    client.ask("POST", f"/api/models/{record['id']}/load", 202)
    client.wait(record["id"], "loaded")
    return openai.OpenAI(base_url=f"{app.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S)


def streamed(program: openai.OpenAI, name: str) -> tuple[str, str | None]:
    """What a stream says, and why it ended."""
    stream = program.chat.completions.create(model=name, stream=True, **GREEDY)
    choices = [choice for chunk in stream for choice in chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason


def compare(through: openai.OpenAI, direct: openai.OpenAI, name: str) -> str:
    """The same conversation whole, streamed, and asked for directly; gives what was said."""
    said, reason = streamed(through, "far")
    assert (said, reason) == streamed(direct, name)
    whole = through.chat.completions.create(model="far", **GREEDY).choices[0]
    assert (whole.message.content, whole.finish_reason) == (said, reason)
    return said


def test_transformers_serve(run_app: Run, tmp_path: Path) -> None:
    folder, port = tiny_models.build("qwen3", tmp_path / "tiny"), free_port()
    (tmp_path / "hub").mkdir()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--host", "127.0.0.1"]
    environ = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    with other([*command, "--port", str(port)], port, tmp_path / "serve.log", **environ) as url:
        through = attach(run_app(), url=url, repo_id=str(folder))
        direct = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE_S)
        assert compare(through, direct, str(folder))
        usage = through.chat.completions.create(model="far", messages=HELLO, max_tokens=3).usage
        assert usage is not None
        assert (usage.completion_tokens, usage.prompt_tokens > 3) == (3, True)
        with pytest.raises(openai.BadRequestError, match="Unexpected fields.*top_k"):
            through.chat.completions.create(model="far", messages=HELLO, extra_body={"top_k": 5})
        with pytest.raises(openai.BadRequestError, match="gave 1 of 2 answers"):
            through.chat.completions.create(model="far", messages=HELLO, n=2, max_tokens=3)
        with pytest.raises(openai.UnprocessableEntityError, match="makes no embeddings"):
            through.embeddings.create(model="far", input="hello")
    with pytest.raises(openai.InternalServerError, match="does not answer"):
        through.chat.completions.create(model="far", messages=HELLO)


def test_llama_cpp(run_app: Run, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp.server", reason="llama-cpp-python[server] is not installed: it must be compiled")
    tiny_gguf = pytest.importorskip("tiny_gguf", reason="gguf is not installed", exc_type=ImportError)
    model, port = tiny_gguf.build(tmp_path / "tiny.gguf"), free_port()
    command = [
        sys.executable,
        "-m",
        "llama_cpp.server",
        "--model",
        str(model),
        "--model_alias",
        "tiny",
        "--n_ctx",
        "256",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api_key", KEY]
    with other(command, port, tmp_path / "llama.log", key=KEY) as url:
        app = run_app()
        refused = Client(app).ask("POST", "/api/models", 503, {"source": "remote", "url": url})
        assert "asks for a key" in refused["message"]
        through = attach(app, url=url, server_key=KEY)
        direct = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=PATIENCE_S)
        said = compare(through, direct, "tiny")
        told = (
            through.chat.completions.create(model="far", logprobs=True, top_logprobs=2, **GREEDY).choices[0].logprobs
        )
        assert told is not None
        assert said.startswith("".join(each.token for each in told.content or [])[:5])
        assert max(len(each.top_logprobs) for each in told.content or []) == 2
        text = through.completions.create(model="far", prompt="Once", max_tokens=5, temperature=0)
        assert text.choices[0].text == direct.completions.create(
            model="tiny", prompt="Once", max_tokens=5, temperature=0
        ).choices[0].text  # fmt: skip
        with pytest.raises(openai.APIError, match="broke off|could not answer|refuses"):
            through.chat.completions.create(model="far", messages=[{"role": "user", "content": "word " * 300}])


def test_another_millm(run_app: Run, tmp_path: Path) -> None:
    far = run_app(
        "--api-key", KEY, "--host", "127.0.0.1", first=True, cache=tmp_path / "far", AUTO_LOAD_MODEL="millm-guide"
    )
    direct = openai.OpenAI(base_url=f"{far.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while not direct.models.list().data:
        assert time.monotonic() < deadline, far.log
        time.sleep(0.1)
    through = attach(run_app(cache=tmp_path / "near"), url=far.url, server_key=KEY)
    assert compare(through, direct, "millm-guide")
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "What does Q4 mean?"}], "temperature": 0}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer", "maximum": 9}}}
    for more in (
        {"n": 2, "seed": 3, "temperature": 1.0, "max_tokens": 8},
        {"logprobs": True, "top_logprobs": 3, "max_tokens": 8},
        {"response_format": form},
        {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.3, "max_tokens": 8},
    ):
        extra = {name: more.pop(name) for name in ("top_k", "min_p", "repetition_penalty") if name in more}
        answers = [
            program.chat.completions.create(model=name, extra_body=extra, **{**asked, **more}).choices
            for program, name in ((direct, "millm-guide"), (through, "far"))
        ]
        assert answers[0] == answers[1], more
    texts = [
        program.completions.create(model=name, prompt=["Q4", [5, 6]], max_tokens=4, temperature=0, logprobs=1).choices
        for program, name in ((direct, "millm-guide"), (through, "far"))
    ]
    assert texts[0] == texts[1]
    vectors = [
        program.embeddings.create(model=name, input=["a", "b"]).data
        for program, name in ((direct, "millm-guide"), (through, "far"))
    ]
    assert vectors[0] == vectors[1]
    with pytest.raises(openai.BadRequestError) as caught:
        through.chat.completions.create(model="far", messages=[{"role": "user", "content": "word " * 5000}])
    assert caught.value.code == "context_length_exceeded"
    far.stop()
    with pytest.raises(openai.InternalServerError, match="does not answer"):
        through.chat.completions.create(model="far", messages=HELLO)
