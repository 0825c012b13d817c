"""Corpora for experiments: texts with gold, what a teacher said of them, and their embeddings.

n texts to learn from, m to test on, d numbers an embedding, k labels. A folder of data holds one folder a corpus:
`labels.txt` (a name a line), `train.jsonl` and `test.jsonl` (id, text, gold), `replies_ca_add.jsonl` (id, reply).
Gold is here to measure with; no experiment trains on it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.candidates import rank_table
from candist_core.edges.zeroshot_teacher import KEEP_SHARE, SCALE, describe_label, label_probs, rank_candidates
from candist_core.errors import ConfigError
from candist_core.parse import parse_reply
from candist_core.ports import Embedder
from candist_core.spec import LabelSpec, TaskSpec

CORPORA = ("trec", "banking77")
TEACHERS = ("llm", "zeroshot")

_MAX_CANDIDATES = 5
_DESCRIPTIONS: Mapping[str, str] = {
    "abbreviation": "what an abbreviation stands for, or the short form of a term",
    "description": "what something means, how or why something happens, a definition or a reason",
    "entity": "a thing: an animal, food, product, colour, work of art, sport, event",
    "human": "who: a person, a group, a company or a title",
    "location": "where: a city, country, state, mountain or other place",
    "numeric": "how many, how much, how long or when: a number, date, amount, distance, money",
}
"""Ours, of TREC's six classes: their bare names say too little to a teacher that goes by likeness."""


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """One corpus under one teacher. X (n, d) and X_test (m, d) are unit rows, R (n, k) the teacher's rank table."""

    name: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    texts_test: tuple[str, ...]
    X: NDArray[np.float32]
    X_test: NDArray[np.float32]
    y: NDArray[np.int64]
    y_test: NDArray[np.int64]
    R: NDArray[np.int16]

    @property
    def S(self) -> NDArray[np.bool_]:  # noqa: N802 - the name of the mask everywhere
        """Candidate mask, (n, k)."""
        mask: NDArray[np.bool_] = self.R >= 0
        return mask

    @property
    def first(self) -> NDArray[np.int64]:
        """The teacher's first label, (n,), -1 where it gave none."""
        return np.where(self.S.any(axis=1), (self.R == 0).argmax(axis=1), -1)

    def sample(self, n: int) -> "Corpus":
        """At most n of the texts to learn from, the same ones under every teacher; all test texts."""
        rows = np.sort(np.random.default_rng(0).permutation(len(self.y))[:n])
        texts = tuple(self.texts[row] for row in rows)
        return replace(self, texts=texts, X=self.X[rows], y=self.y[rows], R=self.R[rows])


def load_corpus(data: Path, name: str, teacher: str, embed: Embedder) -> Corpus:
    """Read one corpus and its teacher's answers.

    Args:
        data: the folder of corpora.
        name: one of `CORPORA`, or any other folder of that form.
        teacher: llm, whose replies are recorded, or zeroshot.
        embed: texts to unit vectors.

    Raises:
        ConfigError: a file is missing.
    """
    folder = data / name
    wanted = ["labels.txt", "train.jsonl", "test.jsonl", *(["replies_ca_add.jsonl"] if teacher == "llm" else [])]
    if missing := [file for file in wanted if not (folder / file).is_file()]:
        thing, step = f"benchmark data {folder}", "give the folder of corpora with --data"
        raise ConfigError(thing, f"no {missing[0]}", "labels, texts and replies of a corpus", step)
    labels = tuple((folder / "labels.txt").read_text(encoding="utf-8").split())
    train, test = (_rows(folder / f"{split}.jsonl") for split in ("train", "test"))
    X, X_test = (embed([row["text"] for row in rows]) for rows in (train, test))
    spec = TaskSpec(labels=[LabelSpec(name=label, description=_DESCRIPTIONS.get(label, "")) for label in labels])
    if teacher == "llm":
        replies = {row["id"]: row["reply"] for row in _rows(folder / "replies_ca_add.jsonl")}
        candidates: list[Sequence[str]] = [parse_reply(spec, replies[row["id"]]).labels for row in train]
    else:
        candidates = _nearest_labels(X, spec, embed)
    column = {label: j for j, label in enumerate(labels)}
    y, y_test = (np.array([column[row["gold"]] for row in rows]) for rows in (train, test))
    texts, texts_test = (tuple(row["text"] for row in rows) for rows in (train, test))
    R = rank_table(pl.Series([list(names) for names in candidates], dtype=pl.List(pl.String)), labels)
    return Corpus(f"{teacher}, {name}", labels, texts, texts_test, X, X_test, y, y_test, R)


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _nearest_labels(X: NDArray[np.float32], spec: TaskSpec, embed: Embedder) -> list[Sequence[str]]:
    """What the zero-shot teacher answers."""
    L = embed([describe_label(label) for label in spec.labels])
    names = spec.label_names
    rows = label_probs(X @ L.T, SCALE)
    return [[names[j] for j in rank_candidates(row, KEEP_SHARE, _MAX_CANDIDATES)] for row in rows]
