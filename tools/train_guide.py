"""Makes millm-guide, the model that ships with miLLM: text, tokenizer, training, examination, folder.

    python tools/train_guide.py                                  # about half an hour on two cores
    python tools/train_guide.py --start models/millm-guide       # goes on from it: enough for a few new facts
    python tools/train_guide.py --evaluate models/millm-guide    # only the examination

Plain PyTorch in float32 on the CPU, seeds fixed. The weights are saved in bfloat16 and examined as they were saved.
"""

import argparse
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from guide import card
from guide.corpus import Corpus
from guide.evaluation import Report, examine, failures, table
from guide.tasks import TASKS
from guide.tokens import train_tokenizer
from guide.training import MINUTES, SEED, STEPS, Trained, train

FOLDER = Path(__file__).parent.parent / "models" / "millm-guide"
TOKENIZER_TEXTS = 20_000
THREADS = 2


def texts(corpus: Corpus) -> Iterator[str]:
    """What the tokenizer is trained on: questions and answers, but no tasks, so that names stay in small pieces."""
    rng = Random(SEED)
    for _ in range(TOKENIZER_TEXTS):
        kind, turn = corpus.turn(rng)
        if kind not in TASKS:
            yield from turn


def save(network: Any, tokenizer: Any, folder: Path) -> None:
    """Writes the model as any Hugging Face program reads it."""
    network.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(folder)
    described = folder / "tokenizer_config.json"
    older = {"tokenizer_class": "PreTrainedTokenizerFast"}  # a name that older releases know too
    known = json.loads(described.read_text()) | older
    kept = {key: value for key, value in known.items() if key not in ("is_local", "local_files_only")}
    described.write_text(json.dumps(kept, indent=2) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)


def evaluate(folder: Path, corpus: Corpus) -> Report:
    """Examines the model in a folder and prints the outcome."""
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    report = examine(network.eval(), transformers.AutoTokenizer.from_pretrained(folder), corpus)
    print(table(report), failures(report), f"Examined in {report.seconds:.0f} s.", sep="\n\n", flush=True)
    return report


def make(folder: Path, corpus: Corpus, steps: int, minutes: float, seed: int, start: Path | None) -> None:
    """Trains, saves, examines, and writes the model card."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(start) if start else train_tokenizer(texts(corpus))
    print(f"{len(corpus.intents)} intents, {len(tokenizer)} tokens in the vocabulary", flush=True)
    network, trained = train(corpus, tokenizer, lambda line: print(line, flush=True), steps, minutes, seed, start)
    save(network, tokenizer, folder)
    report = evaluate(folder, corpus)
    text = card.write(network, trained, report, len(corpus.intents), start is not None)
    (folder / "README.md").write_text(text, "utf-8")
    _say_sizes(folder, network, trained)


def _say_sizes(folder: Path, network: Any, trained: Trained) -> None:
    total = sum(path.stat().st_size for path in folder.iterdir())
    print(
        f"{network.num_parameters():,} parameters, {total / 1e6:.2f} MB in the folder",
        f"trained {trained.steps} steps in {trained.wall_s / 60:.1f} min ({trained.cpu_s / 60:.1f} min of CPU time)",
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}",
        sep="\n",
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", type=Path, metavar="FOLDER", help="only examine the model in this folder")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="go on from the model in this folder")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write the model")
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer for a trial")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="at most so long, on a busy machine")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.set_flush_denormal(True)  # else a network that is nearly sure of itself computes slowly
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if given.evaluate:
        evaluate(given.evaluate, Corpus())
    else:
        make(given.out, Corpus(), given.steps, given.minutes, given.seed, given.start)


if __name__ == "__main__":
    main()
