"""The guide's tokenizer: byte-level BPE with single digits, and its chat template."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
CONTEXT = 2048
PAD, END, START, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}"
    f"{START}{{{{ message.role }}}}\n{{{{ message.content }}}}{TURN_END}\n"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{START}assistant\n{{% endif %}}"
)
# A blank belongs to a small word after it, but not to a name or a number, which are copied into JSON as they are.
PIECES = r" ?\p{Ll}\p{L}*|\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s"


def train_tokenizer(texts: Iterable[str]) -> Any:
    """A tokenizer trained on these texts, as transformers knows it."""
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=TURN_END, pad_token=PAD, model_max_length=CONTEXT
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


class Encoder:
    """Turns conversations into tokens, and says which of them are the model's own."""

    def __init__(self, tokenizer: Any) -> None:
        self._core: Tokenizer = tokenizer.backend_tokenizer
        self._start, self._end = (tokenizer.convert_tokens_to_ids(token) for token in (START, TURN_END))
        self._line = self._plain("\n")
        self._roles = {role: [self._start, *self._plain(f"{role}\n")] for role in ("system", "user", "assistant")}

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._core.encode(text, add_special_tokens=False).ids
        return ids

    def turn(self, asked: list[int], said: list[int]) -> tuple[list[int], list[bool]]:
        """A question and its answer, given in tokens."""
        head = [*self._roles["user"], *asked, self._end, *self._line, *self._roles["assistant"]]
        return [*head, *said, self._end], [False] * len(head) + [True] * (len(said) + 1)

    def encode(self, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
        """The tokens of a conversation as its chat template writes it, and which ones an answer consists of."""
        ids: list[int] = []
        own: list[bool] = []
        for message in messages:
            head, body = self._roles[message["role"]], [*self._plain(message["content"]), self._end]
            ids += [*head, *body, *self._line]
            answered = message["role"] == "assistant"
            own += [False] * len(head) + [answered] * len(body) + [False] * len(self._line)
        return ids, own
