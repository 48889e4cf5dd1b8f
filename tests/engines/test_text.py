"""Text that comes token by token equals text decoded at once, and stop strings work wherever it is cut."""

import itertools
import random
from typing import Any

import pytest
import tiny_models
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from millm.engines.sampling import Choice
from millm.engines.text import CUT, AnswerText, Detokenizer, StopFinder, token_bytes
from millm.events import Chance

pytestmark = pytest.mark.slow

SAYINGS = (
    "Hello, world .",
    "  two leading spaces,  two inside,\n\n\ttabs",
    "naïve café, Straße, ½",
    "emoji 😀😀 family 👩‍👩‍👧‍👦 flags 🇫🇷",
    "漢字とかな交じり文 한국어",
    "def f(x):\n    return x ** 2  # ± ok",
)
STOPS = (("a",), ("ab",), ("aa",), ("aba",), ("abb", "b"), ("aab", "ba"), ("bb", "abba"), ("abab", "aba", "bb"))


def wrapped(core: Tokenizer) -> Any:
    """The tokenizer as transformers wraps it, one of those that would take spaces away if they were left alone."""
    corrupt = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=True, **{corrupt: True}
    )


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Gemma have it: spaces as ▁, characters outside the vocabulary as bytes."""
    pieces = [f"<0x{n:02X}>" for n in range(256)] + ["▁", *"abcdefghijklmnopqrstuvwxyz.,\n", "▁t", "▁▁"]
    merges = [("▁", "t"), ("▁", "▁")]
    core = Tokenizer(models.BPE({p: n for n, p in enumerate(pieces)}, merges, byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return core


@pytest.fixture(params=["byte level", "byte fallback"])
def core(request: pytest.FixtureRequest) -> Tokenizer:
    return tiny_models.train() if request.param == "byte level" else byte_fallback()


def whole(core: Tokenizer, tokens: list[int]) -> str:
    return core.decode(tokens, skip_special_tokens=True).rstrip(CUT)


@pytest.mark.parametrize("saying", SAYINGS)
def test_pieces_make_the_whole_text_at_every_end(core: Tokenizer, saying: str) -> None:
    tokens = core.encode(saying, add_special_tokens=False).ids
    text = core.decode(tokens)
    assert text.strip() == saying.strip()
    for end in range(len(tokens) + 1):
        detokenizer = Detokenizer(wrapped(core))
        shown = "".join(detokenizer.push(token) for token in tokens[:end]) + detokenizer.flush()
        assert text.startswith(shown), "half a character was shown"
        assert shown.startswith(whole(core, tokens[:end])), "a whole character is missing"
    assert shown == text


def test_an_emoji_comes_when_its_last_byte_has_come() -> None:
    core = tiny_models.train()
    tokens = core.encode("😀").ids
    assert len(tokens) > 2, "the tokenizer must split the emoji for this test to mean something"
    detokenizer = Detokenizer(wrapped(core))
    assert [detokenizer.push(token) for token in tokens] == [""] * (len(tokens) - 1) + ["😀"]


def test_random_tokens_give_what_decoding_at_once_gives() -> None:
    core = tiny_models.train()
    chance = random.Random(0)
    for _ in range(300):
        tokens = [chance.randrange(core.get_vocab_size()) for _ in range(40)]
        detokenizer = Detokenizer(wrapped(core))
        text = "".join(detokenizer.push(token) for token in tokens) + detokenizer.flush()
        assert text == whole(core, tokens)


def test_special_tokens_are_not_shown() -> None:
    core = tiny_models.train()
    words, end = core.encode("two words").ids, core.token_to_id(tiny_models.TURN_END)
    detokenizer = Detokenizer(wrapped(core))
    assert "".join(detokenizer.push(token) for token in [end, words[0], end, *words[1:], end]) == "two words"


def test_special_tokens_are_text_where_they_mark_its_parts() -> None:
    core = tiny_models.train()
    tokens, end = core.encode("two words").ids, core.token_to_id(tiny_models.TURN_END)
    answer = AnswerText(wrapped(core), marks=True)
    shown = "".join(answer.push(token) for token in [end, *tokens, end]) + answer.flush()
    assert shown == f"{tiny_models.TURN_END}two words{tiny_models.TURN_END}"


def until_stop(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """What is left when the text comes character by character and ends with the first whole stop string."""
    for end in range(1, len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], True
    return text, False


def cuts(text: str) -> list[list[str]]:
    """Every way to cut a text into pieces."""
    ways = []
    for marks in itertools.product([False, True], repeat=len(text) - 1):
        ends = [n for n, mark in enumerate(marks, 1) if mark]
        ways.append([text[a:b] for a, b in itertools.pairwise([0, *ends, len(text)])])
    return ways


@pytest.mark.parametrize("stops", STOPS, ids=str)
def test_stop_strings_do_not_depend_on_where_the_text_is_cut(stops: tuple[str, ...]) -> None:
    for letters in itertools.product("abc", repeat=6):
        text = "".join(letters)
        expected = until_stop(text, stops)
        for pieces in cuts(text):
            finder = StopFinder(stops)
            shown = ""
            for piece in pieces:
                shown += finder.push(piece)
                assert expected[0].startswith(shown), "a part of a stop string was shown"
            assert (shown + finder.flush(), finder.found) == expected


def test_only_what_may_begin_a_stop_string_waits() -> None:
    finder = StopFinder(("END", "###"))
    assert finder.push("text E") == "text "
    assert finder.push("N") == ""
    assert finder.push("X #") == "ENX "
    assert finder.push("#a") == "##a"
    assert finder.flush() == ""


def test_a_stop_string_over_token_borders() -> None:
    core = tiny_models.train()
    text = "one two three four"
    answer = AnswerText(wrapped(core), (" th",))
    shown = "".join(answer.push(token) for token in core.encode(text).ids) + answer.flush()
    assert (shown, answer.stopped) == ("one two", True)


def test_text_that_waited_comes_at_the_end() -> None:
    core = tiny_models.train()
    answer = AnswerText(wrapped(core), ("four!",))
    pieces = [answer.push(token) for token in core.encode("one two four").ids]
    assert "".join(pieces) == "one two "
    assert (answer.flush(), answer.stopped) == ("four", False)


@pytest.mark.parametrize("saying", SAYINGS)
def test_the_bytes_of_byte_level_tokens_make_the_text(saying: str) -> None:
    tokenizer = wrapped(tiny_models.train())
    parts = [token_bytes(tokenizer, token) for token in tokenizer(saying)["input_ids"]]
    assert b"".join(parts) == saying.encode()
    assert all(parts)


TWO_SPACES = pytest.mark.xfail(
    strict=True, reason="a token of several leading spaces loses one where decoding strips"
)


@pytest.mark.parametrize(
    "saying", [pytest.param(saying, marks=TWO_SPACES if "  " in saying else ()) for saying in SAYINGS]
)
def test_the_bytes_of_byte_fallback_tokens_make_the_text(saying: str) -> None:
    tokenizer = wrapped(byte_fallback())
    parts = [token_bytes(tokenizer, token) for token in tokenizer(saying)["input_ids"]]
    assert b"".join(parts) == f" {saying}".encode(), "sentencepiece begins every text with a space"


def test_the_bytes_of_a_part_of_a_character() -> None:
    byte_level, fallback = wrapped(tiny_models.train()), wrapped(byte_fallback())
    first = byte_level("😀")["input_ids"][0]
    assert "😀".encode().startswith(token_bytes(byte_level, first))
    assert byte_level.decode([first]) == CUT
    assert token_bytes(fallback, fallback.convert_tokens_to_ids("<0xF0>")) == b"\xf0"


@pytest.mark.parametrize(
    ("piece", "meant"), [("▁t", b" t"), ("▁", b" "), ("t", b"t"), ("<0x41>", b"A"), ("\n", b"\n")]
)
def test_the_space_before_a_sentencepiece_word_is_kept(piece: str, meant: bytes) -> None:
    tokenizer = wrapped(byte_fallback())
    assert token_bytes(tokenizer, tokenizer.convert_tokens_to_ids(piece)) == meant


def test_a_cut_that_is_the_text_itself_is_told_as_it_is() -> None:
    tokenizer = wrapped(tiny_models.train())
    assert (
        b"".join(token_bytes(tokenizer, token) for token in tokenizer(f"a{CUT}b")["input_ids"]) == f"a{CUT}b".encode()
    )


def test_special_tokens_stand_for_their_names_and_unknown_ones_for_nothing() -> None:
    tokenizer = tiny_models.make_tokenizer()
    assert token_bytes(tokenizer, tokenizer.eos_token_id) == tiny_models.TURN_END.encode()
    assert token_bytes(tokenizer, len(tokenizer) + 5) == b"", "networks may have more tokens than their tokenizers"


def test_chances_tell_tokens_as_text_and_bytes() -> None:
    tokenizer = tiny_models.make_tokenizer()
    part, *_, word = tokenizer("😀 two")["input_ids"]
    raw = token_bytes(tokenizer, part)
    chance = AnswerText(tokenizer).chance(Choice(part, -1.5, ((word, -0.25), (part, -1.5))))
    others = (Chance(" two", b" two", -0.25), Chance(CUT, raw, -1.5))
    assert chance == Chance(CUT, raw, -1.5, others)
    assert AnswerText(tokenizer).chance(Choice(word, -0.5)) == Chance(" two", b" two", -0.5)
