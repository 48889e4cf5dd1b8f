"""Programs as people have them ask a real process that runs a real model: openai, LiteLLM, LangChain, llm, curl."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # read when litellm is imported; it asks the network otherwise
os.environ["LANGSMITH_TRACING"] = "false"

import openai
import pytest
import tiny_models
from pydantic import BaseModel, ConfigDict, Field
from running import PATIENCE_S, App, Client, start_app, wait_until_up

pytestmark = pytest.mark.slow

GUIDE = "millm-guide"
CALLER = "caller"
HELLO: list[Any] = [{"role": "user", "content": "What does Q4 mean?"}]
COUNT: list[Any] = [{"role": "user", "content": "Count from 3 to 9"}]
COUNTED = "3, 4, 5, 6, 7, 8, 9"
TOOLS_TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{# calls look like <tool_call>{...}</tool_call> #}" + tiny_models.TEMPLATE
)


class Server(BaseModel):
    """A server that listens."""

    name: str = Field(max_length=10)
    port: int = Field(ge=1, le=65535)
    mode: Literal["Q4", "Q8"]


class Weather(BaseModel):
    """The weather in a town. A model of random weights would not end names of its own."""

    model_config = ConfigDict(extra="forbid")

    town: Literal["Köln", "Bonn"]
    days: int = Field(ge=1, le=9)


TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Asks.", "parameters": Weather.model_json_schema()},
    }
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("clients")
    started = start_app(folder / "cache", folder / "log", first=True, AUTO_LOAD_MODEL=GUIDE, HF_HUB_OFFLINE="1")
    try:
        wait_until_up(started)
        (record,) = Client(started).ask("GET", "/api/models", 200)
        Client(started).wait(record["id"], "loaded")
        yield started
    finally:
        started.process.kill()
        started.process.wait(PATIENCE_S)


@pytest.fixture
def program(app: App) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{app.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def say(program: openai.OpenAI, messages: list[Any] = COUNT, **asked: Any) -> Any:
    return program.chat.completions.create(model=GUIDE, messages=messages, **{"temperature": 0, **asked})


def text_of(program: openai.OpenAI, messages: list[Any] = COUNT, **asked: Any) -> str:
    return str(say(program, messages, **asked).choices[0].message.content)


# openai


def test_openai_gets_an_answer_whole_and_streamed(program: openai.OpenAI) -> None:
    whole = say(program)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (COUNTED, "stop")
    chunks = list(say(program, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == COUNTED
    said = chunks[-1].usage
    assert said.total_tokens == whole.usage.total_tokens == said.prompt_tokens + said.completion_tokens
    text = program.completions.create(model=GUIDE, prompt="miLLM is", max_tokens=5, temperature=0)
    assert text.usage is not None
    assert text.usage.completion_tokens <= 5


def test_openai_asks_several_at_once(app: App) -> None:
    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{app.url}/v1", api_key="none", max_retries=0) as client:

            async def one(last: int) -> str:
                asked: list[Any] = [{"role": "user", "content": f"Count from 3 to {last}"}]
                stream = await client.chat.completions.create(model=GUIDE, messages=asked, stream=True, temperature=0)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*(one(last) for last in (5, 6, 7, 8, 9)))

    assert asyncio.run(many()) == [", ".join(map(str, range(3, last + 1))) for last in (5, 6, 7, 8, 9)]


def test_openai_gets_several_answers_and_how_likely_they_were(program: openai.OpenAI) -> None:
    answer = say(program, n=3, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        told = choice.logprobs.content
        assert "".join(token.token for token in told) == choice.message.content == COUNTED
        assert all(token.top_logprobs[0].token == token.token for token in told)
        assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in told)


def test_stop_strings_end_an_answer(program: openai.OpenAI) -> None:
    assert text_of(program, stop=["7", "nothing"]) == "3, 4, 5, 6, "


def test_penalties_and_biases_are_taken(program: openai.OpenAI) -> None:
    assert text_of(program, frequency_penalty=0.1, presence_penalty=0.1, logit_bias={"0": -100}) == COUNTED
    assert text_of(program, extra_body={"repetition_penalty": 5.0}, max_tokens=20) != COUNTED


def test_openai_parses_structured_answers(program: openai.OpenAI) -> None:
    answer = program.chat.completions.parse(
        model=GUIDE, messages=HELLO, response_format=Server, temperature=1.5, seed=1
    )
    assert isinstance(answer.choices[0].message.parsed, Server)
    asked: list[Any] = [{"role": "user", "content": "Give me a JSON object with name Nadia and port 8080"}]
    said = text_of(program, asked, response_format={"type": "json_object"})
    assert json.loads(said) == {"name": "Nadia", "port": 8080}
    with program.chat.completions.stream(model=GUIDE, messages=HELLO, response_format=Server, seed=2) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Server)


def test_openai_raises_its_own_errors(program: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        program.chat.completions.create(model="gpt-5", messages=HELLO)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    for param, asked in {
        "temperature": {"temperature": 3},
        "reasoning_effort": {"reasoning_effort": "low"},
        "response_format": {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "?"}}}
        },
    }.items():
        with pytest.raises(openai.BadRequestError) as refused:
            say(program, **asked)
        assert refused.value.param == param
    with pytest.raises(openai.BadRequestError) as long:
        say(program, [{"role": "user", "content": "word " * 3000}])
    assert long.value.code == "context_length_exceeded"


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_model_that_knows_no_tools_says_so(program: openai.OpenAI, choice: str) -> None:
    with pytest.raises(openai.BadRequestError, match="no place for tools") as refused:
        say(program, tools=TOOLS, tool_choice=choice)
    assert refused.value.param == "tools"
    assert text_of(program, tools=TOOLS, tool_choice="none") == COUNTED


# others


def test_litellm(app: App) -> None:
    import litellm

    asked: dict[str, Any] = {"model": f"openai/{GUIDE}", "messages": COUNT, "temperature": 0}
    asked |= {"api_base": f"{app.url}/v1", "api_key": "none", "num_retries": 0}
    whole = litellm.completion(**asked)
    assert whole.choices[0].message.content == COUNTED
    pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**asked, stream=True)]
    assert "".join(pieces) == COUNTED
    assert len(pieces) > 5
    parsed = litellm.completion(**asked, response_format=Server)
    Server.model_validate_json(parsed.choices[0].message.content)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**asked, "model": "openai/other"})


def langchain(app: App, model: str, **asked: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=model, base_url=f"{app.url}/v1", api_key="none", max_retries=0, **asked)


def test_langchain(app: App) -> None:
    chat = langchain(app, GUIDE, temperature=0)
    said = chat.invoke("Count from 3 to 9")
    assert said.content == COUNTED
    assert said.usage_metadata["output_tokens"] > 5
    assert "".join(chunk.content for chunk in chat.stream("Count from 3 to 9")) == COUNTED
    assert isinstance(chat.with_structured_output(Server).invoke("A server, please"), Server)


def test_llm_from_the_command_line(app: App, tmp_path: Path) -> None:
    model = [{"model_id": "mine", "model_name": GUIDE, "api_base": f"{app.url}/v1"}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(model))  # JSON is YAML
    command = [sys.executable, "-m", "llm", "-m", "mine", "-o", "temperature", "0", "Count from 3 to 9"]
    environ = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    environ["LLM_USER_PATH"] = str(tmp_path)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.stdout.strip(), done.returncode) == (COUNTED, 0), done.stderr


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_sees_events_that_end_with_done(app: App) -> None:
    body = json.dumps({"model": GUIDE, "messages": COUNT, "temperature": 0, "stream": True})
    command = ["curl", "-sN", f"{app.url}/v1/chat/completions", "-H", "content-type: application/json", "-d", body]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S).stdout
    *events, done, end = said.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == COUNTED


# calls of tools; from here on another model is loaded


@pytest.fixture(scope="module")
def caller(app: App, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of random weights, whose template knows tools."""
    folder = tiny_models.build("qwen3", tmp_path_factory.mktemp("models") / CALLER)
    config = folder / "tokenizer_config.json"
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": TOOLS_TEMPLATE}))
    client = Client(app)
    wish = {"source": "local", "local_path": str(folder), "quantization": "FP16"}
    record = client.ask("POST", "/api/models", 202, wish)
    client.wait(record["id"], "ready")
    (guide,) = (one for one in client.ask("GET", "/api/models", 200) if one["name"] == GUIDE)
    client.ask("POST", f"/api/models/{guide['id']}/unload", 202)
    client.wait(guide["id"], "ready")
    with openai.OpenAI(base_url=f"{app.url}/v1", api_key="none", max_retries=0) as program:
        with pytest.raises(openai.InternalServerError) as nothing:
            say(program)
        assert (nothing.value.status_code, nothing.value.code) == (503, "model_not_loaded")
    client.ask("POST", f"/api/models/{record['id']}/load", 202)
    client.wait(record["id"], "loaded")
    return str(record["name"])


def test_openai_gets_a_call_that_was_forced(program: openai.OpenAI, caller: str) -> None:
    by_name = {"type": "function", "function": {"name": "weather"}}
    asked: dict[str, Any] = {"model": caller, "messages": HELLO, "tools": TOOLS, "seed": 3}
    answer = program.chat.completions.create(**asked, tool_choice=by_name)
    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("tool_calls", None)
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "weather"
    Weather.model_validate_json(call.function.arguments)
    with program.chat.completions.stream(**asked, tool_choice="required") as stream:
        streamed = stream.get_final_completion().choices[0]
    (again,) = streamed.message.tool_calls or ()
    assert (streamed.finish_reason, again.function.name) == ("tool_calls", "weather")
    assert again.function.arguments == call.function.arguments
    turns = [*HELLO, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Rain"}]
    after = program.chat.completions.create(**{**asked, "messages": turns}, max_tokens=5)
    assert after.usage is not None
    assert after.usage.completion_tokens <= 5


def test_a_seed_repeats_an_answer(program: openai.OpenAI, caller: str) -> None:
    def said(seed: int) -> list[str | None]:
        wish: dict[str, Any] = {"model": caller, "messages": HELLO, "n": 2, "max_tokens": 8, "seed": seed}
        return [choice.message.content for choice in program.chat.completions.create(**wish).choices]

    assert said(7) == said(7)
    assert len({*said(7), *said(17)}) == 4


def test_langchain_binds_tools(app: App, caller: str) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage

    chat = langchain(app, caller, seed=5).bind_tools([Weather], tool_choice="Weather")
    said = chat.invoke("Will it rain?")
    (call,) = said.tool_calls
    Weather.model_validate(call["args"])
    turns = [HumanMessage("Will it rain?"), said, ToolMessage("Rain", tool_call_id=call["id"])]
    assert chat.invoke(turns).tool_calls[0]["name"] == "Weather"
    structured = langchain(app, caller, seed=5).with_structured_output(Weather, method="function_calling")
    assert isinstance(structured.invoke("Will it rain?"), Weather)


def test_litellm_calls_tools(app: App, caller: str) -> None:
    import litellm

    answer = litellm.completion(
        model=f"openai/{caller}",
        messages=HELLO,
        tools=TOOLS,
        tool_choice="required",
        api_base=f"{app.url}/v1",
        api_key="none",
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == TOOLS[0]["function"]["name"]
    Weather.model_validate_json(call.function.arguments)
