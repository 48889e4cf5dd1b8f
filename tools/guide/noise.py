"""What people do to sentences: capitals, no capitals, no question mark, words left out, slips of the finger."""

from random import Random

SMALL_WORDS = frozenset(
    ["a", "an", "the", "do", "does", "to", "is", "are", "can", "i", "my", "of", "for", "it", "in", "on"]
    + ["please", "me", "this", "that", "be", "will"]
)
ASKING = frozenset(
    ["what", "what's", "whats", "who", "whom", "whose", "when", "where", "which", "why", "how", "is", "are"]
    + ["do", "does", "did", "can", "could", "should", "would", "will", "may", "must", "am", "was", "were"]
    + ["has", "have"]
)


REWORDED = 0.18


def reworded(sentence: str, synonyms: dict[str, list[str]], rng: Random) -> str:
    """The sentence with some words replaced by others that mean the same there."""
    words = sentence.split(" ")
    return " ".join(
        rng.choice(synonyms[word]) if word in synonyms and rng.random() < REWORDED else word for word in words
    )


def as_typed(sentence: str, rng: Random) -> str:
    """The sentence as somebody might type it."""
    words = sentence.split(" ")
    if len(words) > 3 and rng.random() < 0.16:
        words = _without_small_words(words, rng)
    if len(words) > 4 and rng.random() < 0.12:
        del words[rng.randrange(len(words))]  # so that no single word decides
    if rng.random() < 0.12:
        words = _with_a_slip(words, rng)
    return _ended(_cased(" ".join(words), rng), words[0].lower().strip(",.!"), rng)


def _without_small_words(words: list[str], rng: Random) -> list[str]:
    """Some of the small words gone, as in a search box."""
    share = rng.choice((0.3, 0.6))
    return [word for word in words if word.lower() not in SMALL_WORDS or rng.random() > share] or words


def _with_a_slip(words: list[str], rng: Random) -> list[str]:
    places = [place for place, word in enumerate(words) if len(word) > 4 and word.isalpha() and word.islower()]
    if not places:
        return words
    place = rng.choice(places)
    word, at = words[place], rng.randrange(1, len(words[place]) - 1)
    slips = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :],
    )
    return [*words[:place], rng.choice(slips), *words[place + 1 :]]


def _cased(text: str, rng: Random) -> str:
    choice = rng.random()
    if choice < 0.62:
        return text[:1].upper() + text[1:]
    if choice < 0.8:
        return text
    return text.upper() if choice > 0.985 else text.lower()


def _ended(text: str, first: str, rng: Random) -> str:
    if text[-1:] in "?!.":
        return text
    if first in ASKING or rng.random() < 0.15:
        return text + ("?" if rng.random() < 0.68 else "" if rng.random() < 0.85 else " ?")
    return text + rng.choice(("", "", "", ".", ".", "!", "..."))
