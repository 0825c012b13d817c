"""What the student costs beside plain transformers on a CPU, on one machine in one run: training and inference.

`python -m tests.benchmarks.bench_student` prints one Markdown table, for texts of about 12 and of about 180 words:
texts a second, the median of `--runs` runs that the two sides take in turn, each in a fresh process; the ratio is the
median over pairs of neighbouring runs, so that the drift of a busy machine hits both, with the smallest and largest.

- training: `distill`, recipe sa_ce, beside `transformers.Trainer` with its defaults (float32, random batches padded to
  their longest text, linear schedule without warm-up). Same weights, texts, one given label each, epochs, batch size,
  cut and peak learning rate. Ours also has its faster head, warm-up and weight decay, batches of like length,
  bfloat16 where the CPU multiplies it, and after every epoch a pass over a sample for its signals, which counts;
- inference: `Student.predict` beside `transformers.pipeline` at its fastest batch size, with the same trained student.

Timed is all from texts to weights on disk, or to labels: tokenising and saving count, loading does not, nor does a
warm-up on a batch. As `distill` loads weights itself, loading them is timed just before in the same process and
taken off. Accuracy is that of both saved models on held-out texts, told by the same code; `same` is the share of
texts that both ways of inference give the same label.
"""

import argparse
import json
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import polars as pl
import torch
import transformers

import candist_core
from candist_core.config import StudentConfig
from candist_core.recipe import find_recipe
from candist_core.student.device import choose_device
from candist_core.student.distill import distill
from candist_core.student.encode import find_weights
from candist_core.student.model import load_classifier
from candist_core.student.predict import Student

SAMPLE = Path(candist_core.__file__).parent / "demo" / "corpus.jsonl"
LONG_WORDS, SAMPLE_WORDS = 175, 5
LONG_SHARE = 4
"""So many short texts come on one long text."""
PIPELINE_ROWS = (1, 8, 32, 64)

Pieces = Mapping[str, Sequence[str]]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Labelled:
    """Distinct texts (equal ones would cost candist nothing) and the column of each one's label."""

    texts: tuple[str, ...]
    gold: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """What both sides are given."""

    labels: tuple[str, ...]
    train: Labelled
    held_out: Labelled
    epochs: int
    batch_rows: int
    max_tokens: int
    threads: int

    @property
    def warm_up(self) -> "Job":
        """One epoch of one batch."""
        texts, gold = self.train.texts[: self.batch_rows], self.train.gold[: self.batch_rows]
        return replace(self, train=Labelled(texts, gold), epochs=1)


def read_pieces(data: Path | None) -> tuple[Pieces, Pieces]:
    """Pieces of text by label, to train on and held out: texts of banking77, or sentences of the sample corpus."""
    if data is not None:
        train, test = (pl.read_ndjson(data / "banking77" / f"{split}.jsonl") for split in ("train", "test"))
        return _by_label(train), _by_label(test)
    corpus = pl.read_ndjson(SAMPLE).with_row_index()
    is_held_out = pl.col("index") % 3 == 0
    return _by_label(corpus.filter(~is_held_out), split=True), _by_label(corpus.filter(is_held_out), split=True)


def _by_label(rows: pl.DataFrame, split: bool = False) -> dict[str, list[str]]:
    pieces: dict[str, list[str]] = {}
    for text, label in rows.select("text", "gold").iter_rows():
        pieces.setdefault(label, []).extend(re.split(r"(?<=[.!?])\s+", text) if split else [text])
    return pieces


def make_texts(pieces: Pieces, labels: Sequence[str], min_words: int, n_texts: int, seed: int) -> Labelled:
    """Pieces of one label, drawn by chance and joined until they hold `min_words`; labels in turn, texts distinct.

    Where the pieces do not give `n_texts` there are fewer.
    """
    rng, made = np.random.default_rng(seed), dict[str, int]()
    for i in range(20 * n_texts):
        if len(made) == n_texts:
            break
        column = i % len(labels)
        own, parts, n_words = pieces[labels[column]], list[str](), 0
        for j in rng.permutation(len(own)):
            parts.append(own[j])
            n_words += len(own[j].split())
            if n_words >= min_words:
                break
        made.setdefault(" ".join(parts), column)
    order = rng.permutation(len(made))
    texts, gold = list(made), list(made.values())
    return Labelled(tuple(texts[i] for i in order), tuple(gold[i] for i in order))


def alone(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Call in a fresh process, so that nothing that ran before warms it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def train_candist(job: Job, seed: int, folder: Path) -> float:
    """Seconds of `distill`, less those of loading weights."""
    config = StudentConfig(device="cpu", batch_rows=job.batch_rows, max_tokens=job.max_tokens)
    S = np.eye(len(job.labels), dtype=np.bool_)[list(job.train.gold)]
    recipe = find_recipe("sa_ce", epochs=job.epochs)
    started_at = time.perf_counter()
    load_classifier(find_weights(config.model), choose_device("cpu"), job.labels, job.max_tokens)
    loaded_at = time.perf_counter()
    distill(job.train.texts, S, None, job.labels, config, seed, folder, recipe=recipe)
    return time.perf_counter() - loaded_at - (loaded_at - started_at)


def train_transformers(job: Job, seed: int, folder: Path) -> float:
    """Seconds of `transformers.Trainer`."""
    path = find_weights("minilm").path
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.model_max_length = job.max_tokens
    torch.manual_seed(seed)
    names = dict(enumerate(job.labels))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        path, num_labels=len(names), id2label=names, label2id={name: j for j, name in names.items()}
    )
    assert model.dtype is torch.float32
    started_at = time.perf_counter()
    encoded = tokenizer(list(job.train.texts), truncation=True)
    rows = [
        {name: column[i] for name, column in encoded.items()} | {"labels": label}
        for i, label in enumerate(job.train.gold)
    ]
    fit_trainer(model, tokenizer, rows, job, seed, folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return time.perf_counter() - started_at


def fit_trainer(model: Any, tokenizer: Any, rows: list[dict[str, Any]], job: Job, seed: int, folder: Path) -> None:
    """Train with everything at its default but what both sides share."""
    settings = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=job.batch_rows,
        num_train_epochs=job.epochs,
        learning_rate=StudentConfig().learning_rate,
        seed=seed,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model=model, args=settings, train_dataset=rows, processing_class=tokenizer)
    # Its summary would stand between the rows of the table.
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


Way = Callable[[Job, int, Path], float]


def train_alone(way: Way, job: Job, seed: int, folder: Path) -> tuple[float, float]:
    """Texts a second of training, and the accuracy on held-out texts."""
    _settle(job.threads)
    with tempfile.TemporaryDirectory() as scratch:
        way(job.warm_up, seed, Path(scratch))
    rate = job.epochs * len(job.train.texts) / way(job, seed, folder)
    found = Student.load(folder, "cpu").predict(job.held_out.texts).argmax(axis=1)
    return rate, float((found == np.array(job.held_out.gold)).mean())


def predict_candist(job: Job, folder: Path) -> tuple[float, list[str]]:
    """Texts a second, and their labels, by candist."""
    _settle(job.threads)
    student = Student.load(folder, "cpu")
    student.predict(job.train.texts[: max(PIPELINE_ROWS)])
    started_at = time.perf_counter()
    found = [student.labels[j] for j in student.predict(job.held_out.texts).argmax(axis=1)]
    return len(found) / (time.perf_counter() - started_at), found


def predict_pipeline(job: Job, folder: Path, batch_rows: int) -> tuple[float, list[str]]:
    """Texts a second, and their labels, by a pipeline of transformers."""
    _settle(job.threads)
    pipeline = transformers.pipeline("text-classification", model=str(folder), device="cpu", batch_size=batch_rows)
    pipeline(list(job.train.texts[: max(PIPELINE_ROWS)]), truncation=True)
    started_at = time.perf_counter()
    found = [answer["label"] for answer in pipeline(list(job.held_out.texts), truncation=True)]
    return len(found) / (time.perf_counter() - started_at), found


def _settle(threads: int) -> None:
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def compare_training(job: Job, runs: int, folder: Path) -> str:
    """Train in turn; the cells of a row. The last student stays in `folder`."""
    ours, theirs = [], []
    for seed in range(runs):
        ours.append(alone(train_alone, train_candist, job, seed, folder))
        with tempfile.TemporaryDirectory() as scratch:
            theirs.append(alone(train_alone, train_transformers, job, seed, Path(scratch)))
    accuracies = [f"{statistics.median(accuracy for _, accuracy in side):.3f}" for side in (ours, theirs)]
    rates = rate_cells([rate for rate, _ in ours], "transformers.Trainer", [rate for rate, _ in theirs])
    return f"{len(job.train.texts)} | {rates} | {accuracies[0]} | {accuracies[1]} | "


def compare_inference(job: Job, runs: int, folder: Path) -> tuple[str, dict[int, float]]:
    """Predict in turn; the cells of a row, and the pipeline's rate at each batch size."""
    ours: list[float] = []
    theirs: dict[int, list[float]] = {batch_rows: [] for batch_rows in PIPELINE_ROWS}
    same: dict[int, float] = {}
    for _ in range(runs):
        rate, labels = alone(predict_candist, job, folder)
        ours.append(rate)
        for batch_rows, rates in theirs.items():
            rate, found = alone(predict_pipeline, job, folder, batch_rows)
            rates.append(rate)
            same[batch_rows] = statistics.mean(a == b for a, b in zip(labels, found, strict=True))
    medians = {batch_rows: round(statistics.median(rates), 1) for batch_rows, rates in theirs.items()}
    best = max(medians, key=lambda batch_rows: medians[batch_rows])
    cells = rate_cells(ours, f"transformers.pipeline, batches of {best}", theirs[best])
    return f"{len(job.held_out.texts)} | {cells} | | | {same[best]:.4f}", medians


def rate_cells(ours: Sequence[float], other: str, theirs: Sequence[float]) -> str:
    """Both medians and the ratio over pairs of neighbouring runs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"{statistics.median(ours):.1f} | {other} | {statistics.median(theirs):.1f} | {ratio}"


def make_jobs(options: argparse.Namespace) -> dict[str, Job]:
    """Short and long texts."""
    train, test = read_pieces(options.data)
    labels = tuple(sorted(train.keys() & test.keys()))
    short_words, n_long = 1 if options.data else SAMPLE_WORDS, max(1, options.rows // LONG_SHARE)
    jobs = {}
    for kind, words, n_texts in (("short", short_words, options.rows), ("long", LONG_WORDS, n_long)):
        given, held_out = (
            make_texts(pieces, labels, words, n_texts, seed) for seed, pieces in enumerate((train, test))
        )
        jobs[kind] = Job(
            labels, given, held_out, options.epochs, options.batch_rows, options.max_tokens, options.threads
        )
    return jobs


def main() -> None:
    """Parse the arguments, measure in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds banking77/{train,test}.jsonl (id, text, gold)")
    parser.add_argument("--rows", type=int, default=2000, help="short texts a side; long ones are a quarter of them")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch-rows", type=int, default=StudentConfig().batch_rows)
    parser.add_argument("--max-tokens", type=int, default=StudentConfig().max_tokens, help="both sides cut here")
    parser.add_argument("--only", choices=["inference"], help="train one student a kind of text and compare inference")
    parser.add_argument("--words", choices=["short", "long"], help="one kind of text alone")
    options = parser.parse_args()
    # Read by the fresh processes when they import: the tokenizers' threads, and no question to a hub.
    os.environ |= {"RAYON_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    print("| task | words | texts | candist texts/s | beside | its texts/s | ratio | accuracy | its accuracy | same |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rates = {}
    for kind, job in make_jobs(options).items():
        if options.words not in (None, kind):
            continue
        words = f"{kind}, {statistics.mean(len(text.split()) for text in job.train.texts):.0f}"
        with tempfile.TemporaryDirectory() as folder:
            if options.only == "inference":
                alone(train_alone, train_candist, job, 0, Path(folder))
            else:
                print(f"| training | {words} | {compare_training(job, options.runs, Path(folder))} |", flush=True)
            cells, rates[kind] = compare_inference(job, options.runs, Path(folder))
            print(f"| inference | {words} | {cells} |", flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "data"}
    settings |= {"data": "banking77" if options.data else "sample", "device": choose_device("cpu").why}
    settings |= {"torch": torch.__version__, "transformers": transformers.__version__, "pipeline_by_batch": rates}
    print("\n" + json.dumps(settings))


if __name__ == "__main__":
    main()
