"""The guide's examination: greedy answers to questions it has never seen, each one right or wrong."""

import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from .corpus import OUTSIDE, Corpus, HeldOut, Message
from .tasks import TASKS
from .tokens import Encoder

TASK_ITEMS = {"json": 60, "counting": 30, "sums": 50, "spelling": 30, "repeating": 20}
BUDGET = 320  # tokens an answer may have; the longest right one has fewer
BATCH = 48
SAMPLING_SEEDS = (1, 2)
SYSTEM = "You are a careful assistant in a museum. Greet nobody."  # not among those trained on
GROUPS = {
    "chat": "about itself, small talk",
    "program": "about the program",
    "getting": "getting models",
    "memory": "quantization, memory",
    "running": "running, files, settings",
    "serving": "API, Playground",
    "errors": "error codes",
    "outside": "outside its domain",
    "blind": "all of these, asked by somebody who knew only the answers",
}


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and whether it ended its turn by itself."""

    text: str
    ended: bool


@dataclass(frozen=True)
class Verdict:
    """One examined conversation."""

    kind: str
    question: str
    expected: str
    answer: Answer
    right: bool


@dataclass(frozen=True)
class Report:
    """The examination's outcome. perplexity: of the right answers' tokens in the held-out conversations."""

    verdicts: tuple[Verdict, ...]
    perplexity: float
    with_system: float
    sampled: tuple[float, ...]
    seconds: float

    def share(self, kind: str | None = None) -> float:
        """The share of right answers, of one kind or of all."""
        chosen = [verdict.right for verdict in self.verdicts if kind in (None, verdict.kind)]
        return sum(chosen) / len(chosen)


def held_out(corpus: Corpus) -> list[HeldOut]:
    """Everything to examine the model with: held-out questions, and tasks whose values were never trained on."""
    items = list(corpus.held_out)
    rng = Random(5)
    for kind, make in TASKS.items():
        found: dict[str, str] = {}
        while len(found) < TASK_ITEMS[kind]:
            task = make(rng, held=True)
            found[task.question] = task.answer
        items += [HeldOut(kind, (question,), (answer,)) for question, answer in found.items()]
    return items


def is_right(item: HeldOut, text: str, corpus: Corpus) -> bool:
    """Whether an answer is right.

    JSON must parse to the object asked for. What lies outside the domain must be declined, in one of the fixed
    sentences. Everything else must be the one right answer, blanks aside.
    """
    expected = item.answers[-1]
    if item.kind == "json":
        try:
            return bool(json.loads(text) == json.loads(expected))
        except ValueError:
            return False
    refusals = [corpus.answer(name) for name in OUTSIDE]
    if expected in refusals:
        return text.split() in [refusal.split() for refusal in refusals]
    return text.split() == expected.split()


def messages_of(item: HeldOut, system: str = "") -> list[Message]:
    """The conversation up to its last question."""
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in zip(item.questions, item.answers, strict=True):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages[:-1]


def answers(
    network: Any, tokenizer: Any, prompts: list[list[dict[str, str]]], seed: int | None = None
) -> list[Answer]:
    """What the model answers, greedily, or drawn at temperature 0.7 with a seed."""
    import torch

    tokenizer.padding_side = "left"
    order = sorted(range(len(prompts)), key=lambda place: len(str(prompts[place])))
    found: dict[int, Answer] = {}
    if seed is not None:
        torch.manual_seed(seed)
    way = {"do_sample": False} if seed is None else {"do_sample": True, "temperature": 0.7, "top_k": 0}
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        rows = tokenizer.apply_chat_template(
            [prompts[place] for place in places],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.no_grad():
            written = network.generate(**rows, max_new_tokens=BUDGET, **way)
        for place, row in zip(places, written[:, rows["input_ids"].shape[1] :].tolist(), strict=True):
            found[place] = _answer(row, tokenizer)
    return [found[place] for place in range(len(prompts))]


def _answer(row: list[int], tokenizer: Any) -> Answer:
    ended = tokenizer.eos_token_id in row
    body = row[: row.index(tokenizer.eos_token_id)] if ended else row
    return Answer(tokenizer.decode(body, skip_special_tokens=False), ended)


def perplexity(network: Any, tokenizer: Any, items: Iterable[HeldOut]) -> float:
    """The perplexity of the right answers to held-out questions."""
    import torch
    from torch.nn import functional

    encoder, total, tokens = Encoder(tokenizer), 0.0, 0
    for item in items:
        ids, own = encoder.encode([*messages_of(item), {"role": "assistant", "content": item.answers[-1]}])
        with torch.no_grad():
            logits = network(input_ids=torch.tensor([ids])).logits[0].float()
        losses = functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
        chosen = torch.tensor(own[1:])
        total += float(losses[chosen].sum())
        tokens += int(chosen.sum())
    return math.exp(total / tokens)


def examine(network: Any, tokenizer: Any, corpus: Corpus) -> Report:
    """Asks everything that was held out: greedily, once more behind a system message, and twice sampled."""
    begun = time.monotonic()
    items = held_out(corpus)

    def judged(system: str = "", seed: int | None = None) -> tuple[Verdict, ...]:
        given = answers(network, tokenizer, [messages_of(item, system) for item in items], seed)
        return tuple(
            Verdict(item.kind, item.questions[-1], item.answers[-1], answer, is_right(item, answer.text, corpus))
            for item, answer in zip(items, given, strict=True)
        )

    verdicts = judged()
    with_system = judged(SYSTEM)
    sampled = [judged(seed=seed) for seed in SAMPLING_SEEDS]
    return Report(
        verdicts,
        perplexity(network, tokenizer, items),
        _right(with_system),
        tuple(_right(each) for each in sampled),
        time.monotonic() - begun,
    )


def _right(verdicts: tuple[Verdict, ...]) -> float:
    """The share of right answers; one that did not end or is no valid text counts as wrong."""
    return sum(verdict.right and is_sound(verdict.answer) for verdict in verdicts) / len(verdicts)


def is_sound(answer: Answer) -> bool:
    """Whether an answer ended by itself and is valid text throughout."""
    return answer.ended and "\ufffd" not in answer.text


def table(report: Report) -> str:
    """The outcome as a table for people."""
    kinds = list(dict.fromkeys(verdict.kind for verdict in report.verdicts))
    rows = ["| held-out | items | right |", "|---|---|---|"]
    for kind in kinds:
        items = [verdict for verdict in report.verdicts if verdict.kind == kind]
        rows.append(f"| {GROUPS.get(kind, kind)} | {len(items)} | {100 * report.share(kind):.1f} % |")
    sound = sum(is_sound(verdict.answer) for verdict in report.verdicts) / len(report.verdicts)
    sampled = ", ".join(f"{100 * share:.1f} %" for share in report.sampled)
    return "\n".join(
        [
            *rows,
            f"| **all** | {len(report.verdicts)} | **{100 * report.share():.1f} %** |",
            "",
            f"Ended by itself and valid UTF-8: {100 * sound:.1f} %. "
            f"Perplexity of the right answers: {report.perplexity:.3f}.",
            f"Right behind a system message never seen: {100 * report.with_system:.1f} %; "
            f"sampled at temperature 0.7 (two seeds): {sampled}.",
        ]
    )


def failures(report: Report, most: int = 20) -> str:
    """The first wrong answers, one a line."""
    wrong = [verdict for verdict in report.verdicts if not verdict.right]
    lines = [
        f"- [{verdict.kind}] {verdict.question!r}: {verdict.answer.text[:80]!r}, expected {verdict.expected[:50]!r}"
        for verdict in wrong[:most]
    ]
    return "\n".join([f"Wrong: {len(wrong)}", *lines])
