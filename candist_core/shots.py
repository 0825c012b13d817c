"""Shots: labelled texts that the teacher sees as examples, and which of them it sees.

m shots, n texts, d width of the embedding. X (n, d) are the texts, Z (m, d) the shots, both unit vectors; likeness is
the cosine, X Zᵀ. Invariant: what is chosen depends on the shots, the settings, the seed and the text alone, so that the
same run asks the same questions again.

Source:
    Zhao et al., Calibrate Before Use, ICML 2021: a teacher leans towards the label that most examples carry, and
    towards those that stand last. Hence equally many of each label, and no label's examples side by side.
    Liu et al., What Makes Good In-Context Examples for GPT-3?, DeeLIO 2022: the nearest examples beat random ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from candist_core.errors import ConfigError
from candist_core.ports import Embedder
from candist_core.spec import fingerprint
from candist_core.teacher_config import ShotChoice, ShotsConfig

# Similarities held at once, 64 MiB of float32.
_BLOCK_CELLS = 1 << 24
_DECIMALS = 5
_MAX_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Shot:
    """A labelled text."""

    text: str
    label: str


def to_shots(rows: Iterable[tuple[str | None, str | None]], labels: Sequence[str], thing: str) -> tuple[Shot, ...]:
    """Shots from rows of text and label. Rows without one of the two are passed over, repeated rows kept once.

    Args:
        rows: text and label.
        labels: the task's; case and outer space do not matter.
        thing: where the rows come from, for errors.

    Raises:
        ConfigError: a label that the task does not have, or no row with both.

    Example:
        >>> to_shots([("win a prize", " Spam"), ("no label yet", None)], ["spam", "ham"], "shots.uri f.csv")
        (Shot(text='win a prize', label='spam'),)
    """
    known = {name.strip().casefold(): name for name in labels}
    shots: dict[Shot, None] = {}
    for text, label in rows:
        if not text or not text.strip() or not label or not label.strip():
            continue
        name = known.get(label.strip().casefold())
        if name is None:
            raise _unknown_label(label.strip(), labels, thing)
        shots.setdefault(Shot(text, name))
    if not shots:
        raise ConfigError(thing, "no row with a text and a label", "at least one", "correct the file or shots.label")
    return tuple(shots)


def _unknown_label(label: str, labels: Sequence[str], thing: str) -> ConfigError:
    near = get_close_matches(label, labels, n=1, cutoff=0.6)
    step = f"did you mean {near[0]!r}?" if near else "correct the row or shots.label, or add it under task.labels"
    return ConfigError(thing, f"the label {label[:_MAX_SHOWN_CHARS]!r}", "one of task.labels in each row", step)


def shared_shots(shots: Sequence[Shot], config: ShotsConfig, seed: int) -> tuple[Shot, ...]:
    """The shots that every request shows; none where each text has its nearest (see `NearestShots`).

    Example:
        >>> shots = [Shot("a", "x"), Shot("b", "x"), Shot("c", "y")]
        >>> shared_shots(shots, ShotsConfig(choice="fixed", n=2), seed=0)
        (Shot(text='a', label='x'), Shot(text='b', label='x'))
    """
    if config.choice is ShotChoice.NEAREST:
        return ()
    return tuple(shots[: config.n]) if config.choice is ShotChoice.FIXED else balanced_shots(shots, config.n, seed)


def balanced_shots(shots: Sequence[Shot], n: int, seed: int) -> tuple[Shot, ...]:
    """At most n shots in rounds of one for each label: counts differ by one at most, where a label has enough.

    Labels and their shots come in an order that hangs on the seed and their content, never on the place in the file.
    With fewer than n labels' worth of places the seed decides which labels are shown; a label without a shot is left
    out.

    Example:
        >>> shots = [Shot("a", "x"), Shot("b", "x"), Shot("c", "x"), Shot("d", "y")]
        >>> sorted(shot.label for shot in balanced_shots(shots, 2, seed=0))
        ['x', 'y']
    """
    # Sorted by hashes: shuffles of the standard library and of NumPy are not promised to stay the same.
    ordered = sorted(shots, key=lambda shot: _draw(seed, shot.label, shot.text))
    by_label: dict[str, list[Shot]] = {}
    for shot in ordered:
        by_label.setdefault(shot.label, []).append(shot)
    names = sorted(by_label, key=lambda name: _draw(seed, name))
    n_rounds = max(map(len, by_label.values()), default=0)
    rounds = (by_label[name][i] for i in range(n_rounds) for name in names if i < len(by_label[name]))
    return tuple(shot for shot, _ in zip(rounds, range(n), strict=False))


def _draw(seed: int, *parts: str) -> bytes:
    return blake2b(repr((seed, *parts)).encode(), digest_size=16).digest()


def shots_fingerprint(shots: Sequence[Shot], config: ShotsConfig) -> str:
    """A hash of all that decides which shots a text is shown, save the seed: pool, choice, number, encoder."""
    return fingerprint([[[shot.text, shot.label] for shot in shots], config.choice, config.n, config.encoder])


class NearestShots:
    """Finds the shots most like each text, never the text itself.

    The most alike stands last, next to the question: teachers lean towards what they read last (Zhao et al. 2021),
    here the example most likely to be right. Liu et al. 2022 find that either order may be the better one, by the data,
    and that the difference is small beside that between near and random examples.

    A text's vector may differ in its last bits with the texts that share its batch, and two shots all but equally alike
    may then change places: give `rows` the texts of a shard all at once and in their order, also when some are
    answered already, else these may be asked a second time.

    Args:
        shots: the pool, m of them, embedded here, once.
        embed: texts to unit vectors.
        n: shots for each text.

    Example:
        >>> angles = {"low": 0.0, "mid": 0.8, "high": 1.5, "question": 0.1}
        >>> def embed(texts):
        ...     return np.array([[np.cos(angles[t]), np.sin(angles[t])] for t in texts], dtype=np.float32)
        >>> nearest = NearestShots([Shot("low", "a"), Shot("high", "b"), Shot("mid", "b")], embed, n=2)
        >>> nearest.rows(["question", "low"])
        [(2, 0), (1, 2)]
    """

    def __init__(self, shots: Sequence[Shot], embed: Embedder, n: int) -> None:
        self._embed, self._n = embed, n
        self._vectors = embed([shot.text for shot in shots])
        self._places: dict[str, list[int]] = {}
        for place, shot in enumerate(shots):
            self._places.setdefault(_bare(shot.text), []).append(place)

    def rows(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Places in the pool of each text's shots, the most alike last; of equals the earlier counts as more alike.

        Texts are told apart by their words, not by case or space. Fewer than n where the pool has no more.
        """
        X, Z = self._embed(texts), self._vectors
        block_rows = max(1, _BLOCK_CELLS // max(1, len(Z)))
        found: list[tuple[int, ...]] = []
        for start in range(0, len(texts), block_rows):
            # The last bits differ with the shape of the product; to equal shots they must not matter.
            likeness = np.round(X[start : start + block_rows] @ Z.T, _DECIMALS)
            for text, row in zip(texts[start : start + block_rows], likeness, strict=True):
                found.append(_top(row, self._n, self._places.get(_bare(text), [])))
        return found


def _bare(text: str) -> str:
    return " ".join(text.split()).casefold()


def _top(likeness: NDArray[np.float32], n: int, left_out: Sequence[int]) -> tuple[int, ...]:
    """Columns of the n highest values, the highest last."""
    likeness[left_out] = -np.inf
    n = min(n, likeness.size - len(left_out))
    if n <= 0:
        return ()
    # A partition alone would leave open which of several equals is in.
    near = np.flatnonzero(likeness >= np.partition(likeness, -n)[-n])
    order = near[np.argsort(-likeness[near], kind="stable")][:n]
    return tuple(order[::-1].tolist())
