"""millm-guide in its three forms: how sure it is of the right answers to held-out questions, and how many it gives.

    python bench/guide.py [--items 300]

Quantizes models/millm-guide as a download would be. Perplexity: of the right answers' tokens. Right: greedy answers.
KL divergence and agreement with bfloat16: on the text that all answers together make.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402
import transformers  # noqa: E402

from millm.engines.quality import compare  # noqa: E402
from millm.engines.quantize import quantize  # noqa: E402
from millm.records import Quantization  # noqa: E402
from tools.guide.corpus import Corpus  # noqa: E402
from tools.guide.evaluation import answers, held_out, is_right, messages_of, perplexity  # noqa: E402

FOLDER = ROOT / "models" / "millm-guide"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=300)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    corpus = Corpus()
    items = Random(3).sample(held_out(corpus), options.items)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    text = " ".join(intent.answer for intent in corpus.intents.values())
    print("| form | weights | perplexity | right | KL divergence | same next token |")
    print("|---|---|---|---|---|---|")
    for form in (Quantization.FP16, Quantization.Q8, Quantization.Q4):
        with tempfile.TemporaryDirectory() as name:
            folder = FOLDER
            if form is not Quantization.FP16:
                folder = Path(name)
                quantize(FOLDER, folder, form, False, lambda _: None)
            network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
            sure = perplexity(network, tokenizer, [item for item in items if item in corpus.held_out])
            given = answers(network, tokenizer, [messages_of(item) for item in items])
            right = sum(is_right(item, answer.text, corpus) for item, answer in zip(items, given, strict=True))
            found = compare(FOLDER, folder, text, False, lambda _: None)
            print(
                f"| {form} | {found['model']['memory_bytes'] / 1e6:.2f} MB | {sure:.4f} | {right / len(items):.1%} "
                f"| {found['kl_divergence']:.4f} nats | {100 * found['top1_agreement']:.1f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
