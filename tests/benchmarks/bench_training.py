"""Where the time of training an encoder goes on a CPU: one step, and what is done once a corpus or once an epoch.

`python -m tests.benchmarks.bench_training` prints one Markdown table; MiniLM, 77 labels, texts of `--tokens` tokens,
the smallest of `--runs` times, the ways of a step in turn. One process, and no other work beside it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from candist_core.answers import Answers, read_answers
from candist_core.config import StudentConfig
from candist_core.memory import begin
from candist_core.recipe import find_recipe
from candist_core.student.adapters import add_adapters
from candist_core.student.checkpoint import Checkpoint, Past, training_key
from candist_core.student.device import choose_device
from candist_core.student.distill import EncoderLearner
from candist_core.student.dropout import QuickDropout
from candist_core.student.encode import find_weights, tokenise
from candist_core.student.model import load_classifier

N_LABELS, BATCH_ROWS, RANK = 77, 32, 8
TEXT = "please tell me why the card that I ordered last week has not come to my new address yet "


class Step:
    """A learner of some texts, and one step of it."""

    def __init__(self, n_tokens: int, rank: int = 0) -> None:
        labels = [f"label {j}" for j in range(N_LABELS)]
        self.classifier = load_classifier(find_weights("minilm"), choose_device("cpu"), labels, n_tokens)
        if rank:
            add_adapters(self.classifier.network, rank)
        rng = np.random.default_rng(0)
        tokens = rng.integers(1000, 20_000, size=(BATCH_ROWS, n_tokens)).tolist()
        self.learner = EncoderLearner(self.classifier, tokens, BATCH_ROWS)
        self.optimizer = torch.optim.AdamW(self.learner.groups(), lr=1e-5, fused=True)
        self.classifier.network.train()

    def __call__(self, dropout: Callable[[], AbstractContextManager[object]]) -> None:
        """Forward, backward, update."""
        self.optimizer.zero_grad()
        with dropout():
            logits = self.classifier.logits(self.classifier.pad(self.learner.tokens, np.arange(BATCH_ROWS)))
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(BATCH_ROWS) % N_LABELS)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.classifier.network.parameters(), 1.0)
        self.optimizer.step()


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time."""
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


def time_in_turn(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """The smallest time of each, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs + 1):
        for name, call in calls.items():
            times[name].append(seconds_of(call))
    return {name: min(seconds[1:]) for name, seconds in times.items()}


def keep(step: Step, folder: Path) -> dict[str, Callable[[], object]]:
    """Writing, reading and naming a checkpoint."""
    recipe = find_recipe("ca_uniform")
    answers: Answers = read_answers(np.eye(N_LABELS, dtype=np.bool_), None, recipe, seed=0)
    memory, network = begin(answers, recipe), step.classifier.network
    checkpoint = Checkpoint(folder, "key")
    return {
        "checkpoint written": lambda: checkpoint.save(network, step.optimizer, Past(memory)),
        "checkpoint read": lambda: checkpoint.load(network, step.optimizer, memory),
        "checkpoint named": lambda: training_key(network, answers, []),
    }


def main() -> None:
    """Parse the arguments, measure in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=StudentConfig().max_tokens)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    step, low_rank = Step(options.tokens), Step(options.tokens, RANK)
    texts = [TEXT * (1 + options.tokens // len(TEXT.split()))] * BATCH_ROWS
    times = time_in_turn(
        {
            "step, torch's dropout": lambda: step(nullcontext),
            "step": lambda: step(QuickDropout),
            f"step of adapters of rank {RANK}": lambda: low_rank(QuickDropout),
            "texts of a step tokenised": lambda: tokenise(step.classifier.tokenizer, texts),
        },
        options.runs,
    )
    with tempfile.TemporaryDirectory() as folder:
        times |= time_in_turn(keep(step, Path(folder)), options.runs)
    print(f"{BATCH_ROWS} texts of {options.tokens} tokens, {step.classifier.device.why}, {options.threads} threads\n")
    print("| what | ms |\n|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {1000 * seconds:.1f} |")


if __name__ == "__main__":
    main()
