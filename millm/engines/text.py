"""From tokens to text while they come: whole characters only, and never a part of a stop string."""

import re
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from millm.engines.sampling import Choice
from millm.events import Chance

SPACE = "\u2581"  # how sentencepiece writes the space before a word
CUT = "\ufffd"  # what a decoder writes for bytes that are no character (yet)


class Detokenizer:
    """Turns tokens into text one by one.

    The pieces together are what decoding all tokens at once gives. A token that ends inside a character
    gives nothing until the token that completes it has come.
    """

    def __init__(self, tokenizer: Any, marks: bool = False) -> None:
        """marks: whether special tokens are text too."""
        self._tokenizer = tokenizer
        self._skip = not marks
        # Only the tokens since the last piece, after those of that piece itself: many decoders treat the first
        # token of a text in their own way, so a token alone does not show its text.
        self._window: list[int] = []
        self._shown = 0  # how many tokens of the window belong to the last piece
        self._seen = ""  # their text

    def push(self, token: int) -> str:
        """The text that became certain with this token."""
        self._window.append(token)
        text = self._decode()
        if len(text) <= len(self._seen) or text.endswith(CUT):
            return ""
        piece = text[len(self._seen) :]
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        self._seen = self._decode()
        return piece

    def flush(self) -> str:
        """The text of the last tokens, without a character that was never completed."""
        return self._decode().rstrip(CUT)[len(self._seen) :]

    def _decode(self) -> str:
        text: str = self._tokenizer.decode(
            self._window, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False
        )
        return text


class StopFinder:
    """Lets text through up to the first stop string, wherever the pieces are cut.

    Text that may be the beginning of a stop string waits until it is clear that it is not.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that is certain not to belong to a stop string."""
        if self.found:
            return ""
        text = self._held + piece
        # The stop string that is complete first wins, as if the text came character by character.
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)[1]]
        keep = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[keep:]
        return text[:keep]

    def flush(self) -> str:
        """The text that still waited; nothing after a stop string."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """What a token stands for, also where that is a part of a character only."""
    piece: str = tokenizer.convert_ids_to_tokens(token) or ""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
        return bytes.fromhex(byte[1])
    if SPACE in piece:
        return piece.replace(SPACE, " ").encode()
    text: str = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if CUT not in text:
        return text.encode()
    table = {character: byte for byte, character in bytes_to_unicode().items()}
    return bytes(table[c] for c in piece) if all(c in table for c in piece) else text.encode()


class AnswerText:
    """The text of one answer as it comes: tokens in, text out that may be shown."""

    def __init__(self, tokenizer: Any, stops: tuple[str, ...] = (), marks: bool = False) -> None:
        """marks: whether special tokens are text too."""
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, marks)
        self._finder = StopFinder(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._finder.found

    def push(self, token: int) -> str:
        """The text that may be shown now that this token came."""
        return self._finder.push(self._detokenizer.push(token))

    def flush(self) -> str:
        """The rest, at the end of the answer."""
        return self._finder.push(self._detokenizer.flush()) + self._finder.flush()

    def chance(self, choice: Choice) -> Chance:
        """How likely the model found a token and the others in its place."""
        others = tuple(self._chance(token, logprob) for token, logprob in choice.likeliest)
        return self._chance(choice.token, choice.logprob, others)

    def _chance(self, token: int, logprob: float, others: tuple[Chance, ...] = ()) -> Chance:
        raw = token_bytes(self._tokenizer, token)
        return Chance(raw.decode(errors="replace"), raw, logprob, others)
