"""Which texts a person should look at, and what the answers tell.

b texts are chosen: a share at random, the rest by doubt, d = 1 - confidence. Of the doubtful, half go round the labels:
each in turn gives its most doubtful text, the label in most doubt first; the other half are the most doubtful of all.
A text much like one that is chosen already comes only when no other is left. Rows alternate, so that whoever stops
early has answered both kinds in proportion, each from its front. Invariant: equal versions and settings give equal
rows, and only rows drawn at random say how good a version is, or calibrate.

Source:
    Lewis and Gale, A Sequential Algorithm for Training Text Classifiers, SIGIR 1994: ask where the model is unsure.
    Broder, On the Resemblance and Containment of Documents, 1997: texts are alike by the shingles that they share.
    Cochran, Sampling Techniques, 1977: only a random sample has an unbiased mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from zlib import crc32

import polars as pl

from candist_core.gold import ConfidenceCounts
from candist_core.metrics import wilson
from candist_core.reports import Interval, ReliabilityBin, Report

RANDOM_SHARE = 0.3
"""Of a budget of 100 that is 30: as many as calibration needs (`candist_core.label_model.MIN_AUDIT`)."""

ALIKE = 0.5
"""Resemblance from which on two texts count as nearly the same. No two messages of the sample corpus, written one by
one, come above 0.24."""

_SHINGLE_CHARS, _SHINGLED_CHARS, _BITS = 5, 1_000, 1 << 13
_MAX_BLIND = 9
"""Labels that a person takes in at a glance; a key of the terminal each."""
# Texts of one label that are looked at for each of the budget; the rest are less in doubt than all of these.
_DEPTH = 4


class Why(StrEnum):
    """Why a text was chosen. Random ones measure and calibrate; doubtful ones only give labels and examples."""

    RANDOM = "random"
    DOUBTFUL = "doubtful"


class ReviewEstimate(Report):
    """What texts drawn at random say of a whole version."""

    final_accuracy: Interval
    teacher_accuracy: Interval
    coverage: Interval
    reliability: tuple[ReliabilityBin, ...]


def choose_texts(
    frame: pl.DataFrame,
    budget: int,
    random_share: float = RANDOM_SHARE,
    seed: int = 0,
    labels: Sequence[str] = (),
) -> pl.DataFrame:
    """Choose the distinct texts of a version that a person should look at.

    Texts drawn at random come from the whole version, those reviewed before among them: a sample of what is left would
    tell of the rest only. Texts chosen for doubt come from those that nobody reviewed.

    Args:
        frame: a version's rows: doc_id, text, label, confidence, candidates, source.
        budget: texts, at most.
        random_share: part of the budget drawn at random, in [0, 1].
        seed: another seed draws other random texts.
        labels: the task's.

    Returns:
        doc_id, text, candidates, why. The candidates of a doubtful text are in the teacher's order, a final label
        outside them last. A random one shows nothing of what was found, for whoever sees it tends to agree: up to nine
        labels of the task, in its order, else none.

    Example:
        >>> rows = {"doc_id": ["a", "b"], "text": ["hello there", "win a prize"], "label": ["ham", "spam"]}
        >>> rows |= {"confidence": [0.9, 0.6], "candidates": [["ham"], ["spam", "ham"]], "source": ["agreed"] * 2}
        >>> choose_texts(pl.DataFrame(rows), budget=1, random_share=0.0).row(0)
        ('b', 'win a prize', ['spam', 'ham'], 'doubtful')
    """
    distinct = frame.unique("text", keep="first", maintain_order=True)
    n_random = min(round(budget * random_share), distinct.height)
    drawn = distinct.sample(n_random, shuffle=True, seed=seed)
    rest = distinct.join(drawn, on="doc_id", how="anti").filter(pl.col("source") != "reviewed")
    doubtful = _doubtful(rest, budget - n_random)
    shown = pl.col("candidates").list.concat(pl.concat_list("label")).list.unique(maintain_order=True)
    blind = pl.lit(list(labels) if len(labels) <= _MAX_BLIND else [], dtype=pl.List(pl.String))
    kinds = [
        drawn.select("doc_id", "text", candidates=blind, why=pl.lit(str(Why.RANDOM))),
        doubtful.select("doc_id", "text", candidates=shown, why=pl.lit(str(Why.DOUBTFUL))),
    ]
    places = [kind.with_columns(place=(pl.int_range(pl.len()) + 0.5) / max(kind.height, 1)) for kind in kinds]
    return pl.concat(places).sort("place", maintain_order=True).drop("place")


def _doubtful(rows: pl.DataFrame, n: int) -> pl.DataFrame:
    """The n texts whose review helps most, the most doubtful first."""
    by_doubt = rows.sort("confidence", "doc_id").with_row_index("place")
    near = by_doubt.group_by("label", maintain_order=True).head(_DEPTH * n).sort("place")
    texts = dict(near.select("place", "text").iter_rows())
    of_label: dict[str, list[int]] = {}
    for place, label in near.select("place", "label").iter_rows():
        of_label.setdefault(label, []).append(place)
    spread, chosen, alike = _Spread(), dict[int, None](), dict[int, None]()
    for wanted, order in ((n // 2, _in_turn(list(of_label.values()))), (n, iter(texts))):
        for place in order:
            if len(chosen) >= wanted:
                break
            if place not in chosen and place not in alike:
                (chosen if spread.take(texts[place]) else alike)[place] = None
    kept = sorted([*chosen, *list(alike)[: n - len(chosen)]])
    return by_doubt.filter(pl.col("place").is_in(kept)).drop("place")


def _in_turn(queues: Sequence[Sequence[int]]) -> Iterator[int]:
    for i in range(max(map(len, queues), default=0)):
        yield from (queue[i] for queue in queues if i < len(queue))


class _Spread:
    """Texts taken so far, each as a set of hashed shingles, one bit each."""

    def __init__(self) -> None:
        self._taken: list[int] = []

    def take(self, text: str) -> bool:
        """Take a text unless one much like it was taken."""
        bits = _shingles(text)
        if any((bits & other).bit_count() >= ALIKE * (bits | other).bit_count() for other in self._taken):
            return False
        self._taken.append(bits)
        return True


def _shingles(text: str) -> int:
    # Of characters, not of words: some languages write none apart.
    bare = " ".join(text[:_SHINGLED_CHARS].split()).casefold().encode("utf-8", "surrogatepass")
    bits = 0
    for start in range(max(1, len(bare) - _SHINGLE_CHARS + 1)):
        bits |= 1 << crc32(bare[start : start + _SHINGLE_CHARS]) % _BITS
    return bits


def estimate_version(answered: pl.DataFrame) -> ReviewEstimate | None:
    """What the answers to texts drawn at random say of the version; None where there are none.

    Args:
        answered: answer (the person's label), why, and the version's label, teacher_label, candidates, confidence.

    Example:
        >>> rows = {"answer": ["a", "b"], "why": ["random"] * 2, "label": ["a", "a"], "teacher_label": ["a", "b"]}
        >>> rows |= {"candidates": [["a"], ["b", "a"]], "confidence": [0.95, 0.65]}
        >>> print(estimate_version(pl.DataFrame(rows)).final_accuracy)
        50.0 % (9.5 to 90.5)
    """
    rows = answered.filter(pl.col("why") == str(Why.RANDOM))
    if rows.is_empty():
        return None
    answer = pl.col("answer")
    counts = rows.select(
        final=(pl.col("label") == answer).sum(),
        teacher=(pl.col("teacher_label") == answer).fill_null(value=False).sum(),
        covered=answer.is_in(pl.col("candidates")).sum(),
    ).row(0)
    final, teacher, covered = (wilson(count, rows.height) for count in counts)
    sure = ConfidenceCounts()
    sure.add(rows["confidence"].to_numpy(), (rows["label"] == rows["answer"]).to_numpy())
    return ReviewEstimate(final_accuracy=final, teacher_accuracy=teacher, coverage=covered, reliability=sure.bins())


def settle(votes: Iterable[str]) -> str | None:
    """The label that more than half of several people gave; None where there is none.

    Example:
        >>> settle(["a", "b", "a"]), settle(["a", "b"])
        ('a', None)
    """
    given = list(votes)
    most = max(given, key=given.count, default=None)
    return most if most is not None and 2 * given.count(most) > len(given) else None
