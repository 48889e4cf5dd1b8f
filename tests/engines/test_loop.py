"""Many answers at once are the same answers as one at a time, and one that fails fails alone."""

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from running import PATIENCE_S
from serving import until
from small_networks import Numbers

from millm.engines import loop
from millm.engines.base import ChatRequest, Completion, Message, RowCount, Sampling
from millm.engines.loop import DecodeEngine
from millm.engines.memory import weight_bytes
from millm.engines.rows import ending_tokens
from millm.engines.slots import SLACK
from millm.engines.trial import tried
from millm.errors import (
    Cancelled,
    ContextLengthExceeded,
    InsufficientMemory,
    InvalidRequest,
    ModelNotLoaded,
    UnsupportedModel,
)
from millm.events import Event, Stage
from millm.jobs import Job, Lane

pytestmark = pytest.mark.slow

POISON = 13  # a token that makes the forward of its row fail
MUTE = 14  # a token that makes the logits of its row no numbers
CONTEXT = 1000

Ids = list[int]
Report = Callable[[Event], None]


def prompt(length: int, seed: int = 0) -> Ids:
    return torch.randint(100, 2000, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def ask(tokens: Ids, most: int | None = 12, **sampling: Any) -> ChatRequest:
    text = " ".join(map(str, tokens))
    return ChatRequest(prompts=(text,), sampling=Sampling(**{"temperature": 0, "max_tokens": most, **sampling}))


def silent(event: Event) -> None:
    pass


def ids(answer: Completion) -> Ids:
    return [int(word) for word in answer.text.split()]


def load(folder: Path, dtype: str = "float32") -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def generate(network: Any, tokens: Ids, count: int) -> Ids:
    """What `generate` gives alone, without the token that ends the turn."""
    told = network.generate(torch.tensor([tokens]), max_new_tokens=count, do_sample=False)[0, len(tokens) :].tolist()
    return told[:-1] if told[-1] in ending_tokens(network, Numbers()) else told


@pytest.fixture
def engine(tiny: Callable[..., Path]) -> Iterator[DecodeEngine]:
    network = load(tiny("llama"))

    def fail_on_poison(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if (kwargs["input_ids"] == POISON).any():
            raise RuntimeError("poisoned")

    def mute(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if (kwargs["input_ids"] == MUTE).any():
            output.logits.fill_(float("nan"))

    network.register_forward_pre_hook(fail_on_poison, with_kwargs=True)
    network.register_forward_hook(mute, with_kwargs=True)
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    yield engine
    engine.close()


class Company:
    """Answers that run together. `after[i] = (j, n)`: answer i is asked for when answer j has n tokens."""

    def __init__(self, engine: DecodeEngine, requests: list[ChatRequest], after: dict[int, tuple[int, int]]) -> None:
        self.engine, self.requests, self.after = engine, requests, after
        self.gates = [threading.Event() for _ in requests]
        self.reports: list[tuple[int, int]] = []  # (answer, its tokens), in the order of the reports
        self.watch: dict[int, Report] = {}  # what else an answer's report does
        for number, gate in enumerate(self.gates):
            if number not in after:
                gate.set()

    def run(self) -> list[Completion | BaseException]:
        lane = Lane("company", len(self.requests))
        jobs: list[Job[Completion]] = [
            lane.submit(lambda job, number=number: self._one(number)) for number in range(len(self.requests))
        ]
        assert lane.idle(60)
        lane.close()
        return [job.error or job.result() for job in jobs]

    def _one(self, number: int) -> Completion:
        assert self.gates[number].wait(30)
        try:
            return self.engine.chat(self.requests[number], lambda event: self._report(number, event))
        finally:
            self._open_gates(number, CONTEXT)

    def _report(self, number: int, event: Event) -> None:
        self.reports.append((number, event.tokens))
        self._open_gates(number, event.tokens)
        self.watch.get(number, silent)(event)

    def _open_gates(self, number: int, tokens: int) -> None:
        for other, (awaited, count) in self.after.items():
            if awaited == number and tokens >= count:
                self.gates[other].set()


STAGGERED = {1: (0, 3), 2: (1, 2), 3: (0, 9)}
LENGTHS = ((40, 30), (3, 12), (70, 25), (9, 6))  # tokens of the prompts and of the answers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_greedy_answers_equal_generate_alone_and_in_company(tiny: Callable[..., Path], name: str, dtype: str) -> None:
    network = load(tiny(name), dtype)
    prompts = [prompt(length, seed) for seed, (length, _) in enumerate(LENGTHS)]
    expected = [generate(network, tokens, count) for tokens, (_, count) in zip(prompts, LENGTHS, strict=True)]
    assert sum(map(len, expected)) > 40, "the answers must be long enough to mean something"
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    requests = [ask(tokens, count) for tokens, (_, count) in zip(prompts, LENGTHS, strict=True)]
    assert engine.batching
    assert [ids(engine.chat(request, silent)) for request in requests] == expected
    if dtype == "float32":  # in less, rounding depends on the company
        assert [ids(answer) for answer in Company(engine, requests, STAGGERED).run()] == expected
    engine.close()


def test_a_long_prompt_equals_generate(tiny: Callable[..., Path]) -> None:
    network = load(tiny("mistral"))
    tokens = prompt(700)
    expected = generate(network, tokens, 10)
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    assert ids(engine.chat(ask(tokens, 10), silent)) == expected
    engine.close()


def test_answers_take_turns(engine: DecodeEngine) -> None:
    company = Company(engine, [ask(prompt(5, 1), 60), ask(prompt(5, 2), 10)], {1: (0, 3)})
    company.run()
    seconds = [place for place, (number, tokens) in enumerate(company.reports) if number == 1 and tokens]
    between = company.reports[seconds[0] : seconds[-1]]
    assert abs(sum(number == 0 for number, _ in between) - 9) <= 1


def test_it_tells_how_many_answers_are_in_the_making(engine: DecodeEngine) -> None:
    assert engine.rows() == RowCount()
    told: list[RowCount] = []
    company = Company(engine, [ask(prompt(5, 1), 40), ask(prompt(5, 2), 10)], {1: (0, 3)})
    company.watch = dict.fromkeys((0, 1), lambda _: told.append(engine.rows()))
    company.run()
    assert {RowCount(0, 1), RowCount(1, 0), RowCount(1, 1), RowCount(2, 0)} <= set(told)
    assert max(rows.stepping for rows in told) == 2


def test_a_seed_gives_the_same_answer_whatever_else_runs(engine: DecodeEngine) -> None:
    wild = ask(prompt(8), 20, temperature=1.5, top_p=0.95, seed=3)
    alone = ids(engine.chat(wild, silent))
    harmless = ((POISON, -100.0), (MUTE, -100.0))
    others = [ask(prompt(8, seed), 30, temperature=1.0, logit_bias=harmless) for seed in range(3)]
    company = Company(engine, [*others, wild], {3: (0, 4)}).run()
    assert ids(company[3]) == alone
    assert ids(engine.chat(ask(prompt(8), 20, temperature=1.5, top_p=0.95, seed=4), silent)) != alone


def test_a_cancelled_answer_leaves_at_once_and_changes_no_other(engine: DecodeEngine) -> None:
    requests = [ask(prompt(6, seed), 25) for seed in range(3)]
    expected = [ids(engine.chat(request, silent)) for request in requests]
    company = Company(engine, requests, {})

    def leave(event: Event) -> None:
        if event.tokens == 5:
            raise Cancelled

    company.watch[1] = leave
    first, cancelled, third = company.run()
    assert isinstance(cancelled, Cancelled)
    assert [ids(first), ids(third)] == [expected[0], expected[2]]
    assert max(tokens for number, tokens in company.reports if number == 1) == 5


def test_an_answer_cancelled_while_it_waits_is_never_begun(engine: DecodeEngine) -> None:
    def stop(event: Event) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):  # reading this prompt would raise another error
        engine.chat(ask([POISON]), stop)


@pytest.mark.parametrize(
    ("bad", "kind"), [(POISON, RuntimeError), (MUTE, UnsupportedModel)], ids=["forward fails", "no numbers"]
)
def test_an_answer_that_fails_fails_alone(engine: DecodeEngine, bad: int, kind: type[Exception]) -> None:
    good = [ask(prompt(6, seed), 25) for seed in range(2)]
    expected = [ids(engine.chat(request, silent)) for request in good]
    first, second, failed = Company(engine, [*good, ask([bad, 200])], {2: (0, 4)}).run()
    assert [ids(first), ids(second)] == expected
    assert isinstance(failed, kind)
    assert ids(engine.chat(good[0], silent)) == expected[0]


def test_a_report_that_fails_ends_its_answer_alone(engine: DecodeEngine) -> None:
    company = Company(engine, [ask(prompt(6), 20), ask(prompt(7), 20)], {})
    company.watch[1] = lambda event: [][event.tokens]
    first, failed = company.run()
    assert isinstance(failed, IndexError)
    assert len(ids(first)) == 20


def test_too_little_memory_for_the_cache_says_so(engine: DecodeEngine) -> None:
    def full(module: Any, args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    engine._forward._network.register_forward_pre_hook(full)
    with pytest.raises(InsufficientMemory, match="Out of memory while answering"):
        engine.chat(ask(prompt(4)), silent)


def test_memory_that_earlier_caches_took_is_freed_and_the_piece_read_again(tiny: Callable[..., Path]) -> None:
    network = load(tiny("llama"))
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    engine.chat(ask(prompt(40, 1), 5), silent)
    expected = generate(network, prompt(60, 2), 10)
    failed: list[int] = []

    def full(module: Any, args: Any) -> None:
        if args[0].shape[1] == 60 and not failed:
            failed.append(engine._prefixes.size)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    network.model.layers[1].register_forward_pre_hook(full)  # the first layer has written its keys already
    assert ids(engine.chat(ask(prompt(60, 2), 10), silent)) == expected
    engine.close()
    assert failed[0] > 0


def test_events_carry_the_text_and_the_completion_the_counts(engine: DecodeEngine) -> None:
    events: list[Event] = []
    answer = engine.chat(ask(prompt(6), 8), events.append)
    assert [event.stage for event in events] == [Stage.READING_PROMPT] + [Stage.GENERATING] * 8
    assert [event.tokens for event in events[1:]] == list(range(1, 9))
    assert "".join(event.text for event in events) == answer.text
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("length", 6, 8)
    assert answer.first_token_s > 0
    assert answer.tokens_per_s > 0


@pytest.mark.parametrize("stated", ["a number", "a list", "the tokenizer"])
def test_the_turn_ends_with_an_ending_token(tiny: Callable[..., Path], stated: str) -> None:
    network, numbers = load(tiny("llama")), Numbers()
    said = generate(network, prompt(6), 10)
    place = next(n for n in range(3, 10) if said[n] not in said[:n])
    network.generation_config.eos_token_id = {"a number": said[place], "a list": [5, said[place]]}.get(stated)
    numbers.eos_token_id = said[place] if stated == "the tokenizer" else None
    engine = DecodeEngine(network, numbers, CONTEXT)
    answer = engine.chat(ask(prompt(6), 10), silent)
    engine.close()
    assert (ids(answer), answer.finish_reason, answer.completion_tokens) == (said[:place], "stop", place + 1)


def test_a_stop_string_ends_the_answer(engine: DecodeEngine) -> None:
    said = ids(engine.chat(ask(prompt(6), 10), silent))
    stop = f"{said[4]} {said[5]} "
    answer = engine.chat(ask(prompt(6), 10, stop=(stop,)), silent)
    assert (ids(answer), answer.finish_reason, answer.completion_tokens) == (said[:4], "stop", 6)


def test_text_that_waited_for_a_stop_string_is_not_lost(engine: DecodeEngine) -> None:
    said = engine.chat(ask(prompt(6), 10), silent)
    events: list[Event] = []
    answer = engine.chat(ask(prompt(6), 10, stop=(f"{ids(said)[-1]} and more",)), events.append)
    assert (answer.text, answer.finish_reason) == (said.text, "length")
    assert "".join(event.text for event in events) == said.text


def test_prompt_and_answer_must_fit_the_context(engine: DecodeEngine) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"1000 tokens, but the prompt has 1000 tokens\.") as caught:
        engine.chat(ask(prompt(CONTEXT), None), silent)
    assert caught.value.details == {"context_length": 1000, "prompt_tokens": 1000, "max_tokens": None}
    with pytest.raises(ContextLengthExceeded, match="has 990 tokens and 11 tokens of answer"):
        engine.chat(ask(prompt(990), 11), silent)
    fits = [engine.chat(ask(prompt(990), count), silent) for count in (10, None)]
    assert [answer.completion_tokens for answer in fits] == [10, 10]


def test_a_token_that_the_model_does_not_know_is_refused(engine: DecodeEngine) -> None:
    with pytest.raises(InvalidRequest, match="token 2048, but the model knows only 2048"):
        engine.chat(ask([5, 2048]), silent)


def test_a_wrong_value_is_refused_before_anything_runs(engine: DecodeEngine) -> None:
    with pytest.raises(InvalidRequest, match="top_p"):
        engine.chat(ask(prompt(3), top_p=2.0), silent)


def test_many_arrivals_do_not_pile_up_while_one_answer_goes_on(engine: DecodeEngine) -> None:
    waiting: list[int] = []
    company = Company(engine, [ask(prompt(4), 120), *[ask(prompt(4), 2)] * 12], {n: (n - 1, 2) for n in range(1, 13)})
    company.watch[0] = lambda event: waiting.append(len(engine._lane.jobs))
    company.run()
    assert len(waiting) == 121
    assert max(waiting) <= 3, "runs that were queued for earlier answers are still there"


def test_weights_that_share_memory_count_once(tiny: Callable[..., Path]) -> None:
    network = load(tiny("qwen3"))
    assert network.get_input_embeddings().weight is network.get_output_embeddings().weight
    parts = [*network.parameters(), *network.buffers()]
    assert weight_bytes(network) == sum(part.numel() * part.element_size() for part in parts)
    views = torch.nn.ParameterList([torch.nn.Parameter(half) for half in torch.zeros(2, 10).detach()])
    assert weight_bytes(views) == 80


def test_closing_cancels_what_runs_and_forgets_the_weights(tiny: Callable[..., Path]) -> None:
    network = load(tiny("llama"))
    engine, seen = DecodeEngine(network, Numbers(), CONTEXT), weakref.ref(network)
    del network
    company = Company(engine, [ask(prompt(4), 900), ask(prompt(5), 900)], {})
    closer = threading.Thread(target=engine.close)
    company.watch[0] = lambda event: closer.start() if event.tokens == 3 else None
    assert all(isinstance(end, Cancelled) for end in company.run())
    closer.join(PATIENCE_S)
    gc.collect()
    assert seen() is None
    with pytest.raises(ModelNotLoaded):
        engine.chat(ask(prompt(3)), silent)


def test_a_real_tokenizer_talks(tiny: Callable[..., Path]) -> None:
    folder = tiny("qwen3")
    network, tokenizer = load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    engine = DecodeEngine(network, tokenizer, CONTEXT)
    messages = (Message("system", "Be brief."), Message("user", "What is a list?"))
    answer = engine.chat(ChatRequest(messages, sampling=Sampling(temperature=0, max_tokens=30)), silent)
    turns = [{"role": m.role, "content": m.content} for m in messages]
    tokens = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    said = generate(network, tokens, 30)
    engine.close()
    assert (answer.text, answer.prompt_tokens) == (tokenizer.decode(said, skip_special_tokens=True), len(tokens))


# company: pieces, earlier turns, several answers, too little memory


class Reads:
    """Notes how many tokens each forward of a network reads, and for how many rows."""

    def __init__(self, network: Any) -> None:
        self.shapes: list[tuple[int, int]] = []
        network.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.shapes.append(tuple(kwargs["input_ids"].shape))


def test_rows_step_as_one_batch(tiny: Callable[..., Path]) -> None:
    network = load(tiny("llama"))
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    reads = Reads(network)
    Company(engine, [ask(prompt(5, seed), 40) for seed in range(4)], {}).run()
    engine.close()
    assert max(rows for rows, _ in reads.shapes) == 4
    assert len(reads.shapes) < 80


@pytest.mark.parametrize(("length", "sizes"), [(900, [200] * 4 + [100]), (640, [200, 200, 240])])
def test_a_long_prompt_comes_in_pieces_between_the_steps_of_others(
    tiny: Callable[..., Path], length: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PIECE", 200)
    network = load(tiny("llama"))
    expected = generate(network, prompt(length, 7), 5)
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    reads = Reads(network)
    company = Company(engine, [ask(prompt(5), 60), ask(prompt(length, 7), 5)], {1: (0, 3)})
    _, long = company.run()
    engine.close()
    assert ids(long) == expected
    pieces = [place for place, (_, tokens) in enumerate(reads.shapes) if tokens > 5]
    assert [reads.shapes[place][1] for place in pieces] == sizes
    assert all(later - earlier == 2 for earlier, later in itertools.pairwise(pieces)), "a step between two pieces"


def test_a_prompt_is_not_begun_with_the_little_that_is_left_of_a_piece(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PIECE", 200)
    engine = DecodeEngine(network := load(tiny("llama")), Numbers(), CONTEXT)
    reads = Reads(network)
    longer = [ask(prompt(length, length), 5) for length in (150, 40, 120)]
    company = Company(engine, [ask(prompt(5), 60), *longer], {1: (0, 3), 2: (0, 3), 3: (0, 3)})
    company.watch[0] = lambda event: until(lambda: len(engine._arrivals) == 3) if event.tokens == 3 else None
    company.run()
    engine.close()
    assert sorted(tokens for _, tokens in reads.shapes if tokens > 5) == [40, 120, 150]


def test_a_prompt_can_be_cancelled_between_its_pieces(engine: DecodeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LONG_PIECE", 100)
    seen: list[float] = []

    def leave(event: Event) -> None:
        seen.append(event.progress)
        if len(seen) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.chat(ask(prompt(900)), leave)
    assert seen == [0, pytest.approx(100 / 9), pytest.approx(200 / 9)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma"])
def test_a_second_turn_reads_only_what_is_new_and_answers_the_same(tiny: Callable[..., Path], name: str) -> None:
    network = load(tiny(name))
    first = prompt(200)
    said = generate(network, first, 20)
    second = [*first, *said, *prompt(30, 5)]
    expected = generate(network, second, 12)
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    engine.chat(ask(first, 20), silent)
    reads = Reads(network)
    answer = engine.chat(ask(second, 12), silent)
    engine.close()
    assert ids(answer) == expected
    assert answer.cached_tokens == 219  # all but the last token said, which was never read
    assert reads.shapes[0] == (1, len(second) - 219)


def test_a_sliding_window_remembers_only_what_continues(tiny: Callable[..., Path]) -> None:
    network = load(tiny("mistral"))
    first = prompt(100)
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    said = ids(engine.chat(ask(first, 10), silent))
    second = [*first, *said, *prompt(30, 5)]
    changed = [*first[:90], *prompt(30, 6)]
    again, other = (engine.chat(ask(tokens, 12), silent) for tokens in (second, changed))
    engine.close()
    assert (again.cached_tokens, other.cached_tokens) == (109, 0)
    assert [ids(again), ids(other)] == [generate(network, tokens, 12) for tokens in (second, changed)]


def test_several_answers_to_one_prompt_read_it_once(tiny: Callable[..., Path]) -> None:
    network = load(tiny("llama"))
    engine = DecodeEngine(network, Numbers(), CONTEXT)
    reads = Reads(network)
    events: list[Event] = []
    answer = engine.chat(ask(prompt(100), 8, count=3, temperature=1.0, seed=5), events.append)
    answers = (answer, *answer.others)
    assert [shape for shape in reads.shapes if shape[1] > 1] == [(1, 100)]
    assert len({a.text for a in answers}) == 3
    for index, one in enumerate(answers):
        assert "".join(event.text for event in events if event.index == index) == one.text
    again = engine.chat(ask(prompt(100), 8, count=3, temperature=1.0, seed=5), silent)
    engine.close()
    assert [again.text, *(a.text for a in again.others)] == [a.text for a in answers]


def test_one_of_several_answers_that_fails_ends_the_request(engine: DecodeEngine) -> None:
    requests = ChatRequest(prompts=("100 200 300", f"{POISON} 5"), sampling=Sampling(temperature=0, max_tokens=400))
    with pytest.raises(RuntimeError, match="poisoned"):
        engine.chat(requests, silent)
    reads = Reads(engine._forward._network)
    assert engine._lane.idle(30)
    assert len(reads.shapes) < 100, "the other answer went on for nobody"


def test_too_little_memory_ends_the_newest_row_and_the_others_go_on(tiny: Callable[..., Path]) -> None:
    network = load(tiny("llama"))
    requests = [ask(prompt(6, seed), 40) for seed in range(3)]
    expected = [generate(network, prompt(6, seed), 40) for seed in range(2)]
    engine = DecodeEngine(network, Numbers(), CONTEXT)

    def full(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[0] == 3 and kwargs["past_key_values"].get_seq_length() > 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    network.model.layers[1].register_forward_pre_hook(
        lambda module, args, kwargs: full(module, args, {**kwargs, "input_ids": args[0]}), with_kwargs=True
    )
    first, second, third = Company(engine, requests, {1: (0, 2), 2: (1, 2)}).run()
    engine.close()
    assert [ids(first), ids(second)] == expected
    assert isinstance(third, InsufficientMemory)


def test_rows_wait_until_their_caches_fit(tiny: Callable[..., Path]) -> None:
    network = load(tiny("llama"))
    expected = [generate(network, prompt(50, seed), 20) for seed in range(6)]
    needed = 2 * 32 * 4 * 2 * 2 * (70 + SLACK)  # bytes of one row: layers, head size, float32, heads, keys and values
    engine = DecodeEngine(network, Numbers(), CONTEXT, cache_bytes=int(2.5 * needed))
    reads = Reads(network)
    answers = Company(engine, [ask(prompt(50, seed), 20) for seed in range(6)], {}).run()
    engine.close()
    assert [ids(answer) for answer in answers] == expected
    assert max(rows for rows, _ in reads.shapes) == 2


def test_what_cannot_be_batched_is_answered_in_turn(tiny: Callable[..., Path]) -> None:
    network = load(tiny("llama"))
    prompts = [prompt(length, length) for length in (40, 7, 90)]
    expected = [generate(network, tokens, 15) for tokens in prompts]
    forward = tried(network)
    forward.together = forward.pieces = False
    engine = DecodeEngine(network, Numbers(), CONTEXT, forward=forward)
    reads = Reads(network)
    assert not engine.batching
    found = Company(engine, [ask(tokens, 15) for tokens in prompts], {1: (0, 3)}).run()
    failed = Company(engine, [ask(prompts[0], 15), ask([2000], 5)], {1: (0, 3)})
    failed.watch[1] = lambda event: [][event.tokens]
    assert [ids(answer) for answer in found] == expected
    assert ids(failed.run()[0]) == expected[0]
    engine.close()
    assert {rows for rows, _ in reads.shapes} == {1}
