"""Drawing: the texts of a round, out of the corpus at random or out of a pool by what students doubt."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.active import Rows, draw_by_gradient, draw_diverse, draw_random, draw_stratified
from candist_core.config import RunConfig
from candist_core.curve import forecast
from candist_core.edges.store import Store
from candist_core.errors import StoreError
from candist_core.label_model import MIN_AUDIT, trusts_order
from candist_core.metrics import wilson
from candist_core.ports import OnProgress
from candist_core.reports import AnnotateReport, IngestReport
from candist_core.sampling import CurvePoint, SampleRound
from candist_core.sampling_config import Draw
from candist_core.spec import fingerprint
from candist_core.stages.distill import RECIPES, Lesson, embed_texts, read_lesson, verdicts_of_audit
from candist_core.tables import TEXTS, TableRef, empty

MEASURED_SHARE = 0.2
"""Of a diverse first round, what is drawn at random: texts chosen for being unusual do not stand for the corpus."""

EARLIER = (0.25, 0.5)
"""Parts of the first round at which the curve begins."""

_POOL_SEED = 1
_HALVES = 2
"""Folds of the students of rounds: each learns from half of what was read, in a quarter of the time that five take."""

# Small enough for every worker of a machine to have one.
_SHARD_ROWS = 5_000


def tables_of(rounds: Sequence[SampleRound]) -> tuple[TableRef, ...]:
    """The texts of all rounds."""
    return tuple(table for one in rounds for table in one.texts)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One draw from a corpus; rows are numbered through all its shards."""

    config: RunConfig
    ingested: IngestReport
    store: Store

    def first(self) -> SampleRound:
        """The first round: an audit's texts, and others as the settings say."""
        sampling, audited = self.config.sampling, self._audited_rows()
        n, rest = sampling.first_rows - len(audited), np.empty(0, dtype=np.int64)
        if sampling.how is Draw.RANDOM:
            measured = draw_random(self.ingested.n_texts, max(1, n), self.config.seed)
        else:
            pool = self._pool_rows(n)
            X = self._embedded(self._texts_at(pool))
            if sampling.how is Draw.STRATIFIED:
                measured = pool[draw_stratified(X, max(1, n), self.config.seed)]
            else:
                n_random = max(1, round(MEASURED_SHARE * n))
                at_random = draw_random(len(pool), n_random, self.config.seed)
                others = np.setdiff1d(np.arange(len(pool)), at_random)
                rest = pool[others[draw_diverse(X[others], n - n_random, self.config.seed)]]
                measured = pool[at_random]
        rest = np.setdiff1d(np.union1d(rest, audited), measured)
        tables = [*self._write(self._texts_at(measured)), *self._write(self._texts_at(rest))]
        return SampleRound(texts=tuple(tables), how=str(sampling.how), n_measured=len(measured))

    def next(
        self, rounds: Sequence[SampleRound], annotated: Sequence[AnnotateReport], on_progress: OnProgress
    ) -> SampleRound:
        """Measure the rounds so far, and choose the next one unless it would bring too little."""
        sampling, tables = self.config.sampling, tables_of(rounds)
        lesson = read_lesson(self.store, self.config, tables, annotated)
        students = _Students(self.config, lesson, self._embedded(lesson.rows), on_progress)
        measured = students.measured_rows(self._ids_of(rounds[0]))
        earlier = [int(part * len(lesson.rows)) for part in EARLIER] if len(rounds) == 1 else []
        curve = (*rounds[-1].curve, *(students.point(measured, n) for n in earlier), students.point(measured))
        is_audited = students.is_audited
        n_left = (sampling.teacher_rows or 0) - sum(table.rows for table in tables)
        wanted = min(n_left, sampling.later_rows)
        why = _why_to_stop(self.config, len(rounds), wanted, curve)
        if not why:
            asked = pl.concat([self.store.read_table(table, columns=["doc_id"]) for table in tables])
            pool = self._texts_at(self._pool_rows(0))
            X, is_new = self._embedded(pool), ~pool["doc_id"].is_in(asked["doc_id"].implode()).to_numpy()
            rows = np.flatnonzero(is_new)
            drawn = rows[draw_by_gradient(students.believe(X[rows]), X[rows], wanted, self.config.seed)]
            if len(drawn):
                texts = tuple(self._write(pool[drawn.tolist()]))
                return SampleRound(texts=texts, how="doubtful", curve=curve, is_audited=is_audited)
            why = "every text of the pool is read (sampling.pool_rows)"
        return SampleRound(texts=(), how="", curve=curve, stopped=why, is_audited=is_audited)

    def _audited_rows(self) -> Rows:
        """Rows of the texts that a person has labelled."""
        audit = list(verdicts_of_audit(self.config))
        found = [
            start + np.flatnonzero(self.store.read_table(table)["text"].str.strip_chars().is_in(audit).to_numpy())
            for start, table in (self._starts() if audit else ())
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *found])

    def _pool_rows(self, at_least: int) -> Rows:
        n = max(self.config.sampling.pool_rows, at_least)
        return draw_random(self.ingested.n_texts, n, self.config.seed + _POOL_SEED)

    def _starts(self) -> Iterator[tuple[int, TableRef]]:
        starts = accumulate((table.rows for table in self.ingested.texts), initial=0)
        yield from zip(starts, self.ingested.texts, strict=False)

    def _texts_at(self, rows: Rows) -> pl.DataFrame:
        """The texts at some rows, in their order; shards without any are not read."""
        found, rows = [empty(TEXTS)], np.sort(rows)
        for start, table in self._starts():
            low, high = np.searchsorted(rows, [start, start + table.rows])
            if high > low:
                found.append(self.store.read_table(table)[(rows[low:high] - start).tolist()])
        return pl.concat(found)

    def _ids_of(self, one: SampleRound) -> pl.Series:
        """Ids of the texts of the first round that stand for the corpus."""
        ids = [self.store.read_table(table, columns=["doc_id"]) for table in one.texts]
        return pl.concat(ids)["doc_id"].head(one.n_measured)

    def _write(self, texts: pl.DataFrame) -> Iterator[TableRef]:
        n_rows = min(_SHARD_ROWS, self.config.source.shard_rows)
        for part in texts.iter_slices(n_rows) if texts.height else ():
            key = fingerprint(part["doc_id"].to_list())
            yield self.store.write_table(f"sample/{key}.parquet", part, TEXTS)

    def _embedded(self, texts: pl.DataFrame) -> NDArray[np.float32]:
        """X, (n, d), of some texts, kept in the store: the pool is looked at in every round."""
        student = self.config.student
        key = fingerprint([student.model, student.max_tokens, texts["text"].to_list()])
        path = f"sample/{key}.npy"
        try:
            kept = np.load(io.BytesIO(self.store.read_bytes(path)), allow_pickle=False)
        except (StoreError, ValueError):
            kept = embed_texts(self.config, texts["text"].to_list()).astype(np.float16)
            buffer = io.BytesIO()
            np.save(buffer, kept, allow_pickle=False)
            self.store.write_bytes(path, buffer.getvalue())
        X: NDArray[np.float32] = kept.astype(np.float32)
        return X


class _Students:
    """Heads that learned from the rounds so far, each from one half."""

    def __init__(self, config: RunConfig, lesson: Lesson, X: NDArray[np.float32], on_progress: OnProgress) -> None:
        from candist_core.recipe import find_recipe
        from candist_core.student.crossfit import CrossFit, cross_fit

        self._lesson, self._X, self._rng = lesson, X, np.random.default_rng((config.seed, len(X)))
        recipe = find_recipe(RECIPES[trusts_order(lesson.R)])

        def fit(S: NDArray[np.bool_]) -> CrossFit:
            return cross_fit(X, S, lesson.R, recipe, config.seed, _HALVES, on_progress=on_progress)

        self._fit, self._whole = fit, fit(lesson.S)
        self.is_audited = len(lesson.audited.rows) >= MIN_AUDIT

    def believe(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """P, (b, k), of texts that none of them learned from."""
        return self._whole.believe(X, np.full(len(X), -1, dtype=np.int64))

    def measured_rows(self, ids: pl.Series) -> tuple[Rows, Rows]:
        """Rows to measure on, and what is taken as right: an audit's labels, else the teacher's first."""
        if self.is_audited:
            return self._lesson.audited.rows, self._lesson.audited.columns
        rows = np.flatnonzero(self._lesson.rows["doc_id"].is_in(ids.implode()).to_numpy())
        return rows, (self._lesson.R[rows] == 0).argmax(axis=1)

    def point(self, measured: tuple[Rows, Rows], n_rows: int | None = None) -> CurvePoint:
        """Agreement of heads that learned from so many of the texts, drawn at random; from all of them when None."""
        rows, right = measured
        heads, n = self._whole, len(self._X)
        if n_rows is not None:
            n, is_taught = n_rows, np.zeros(len(self._X), dtype=np.bool_)
            is_taught[self._rng.permutation(len(self._X))[:n_rows]] = True
            heads = self._fit(self._lesson.S & is_taught[:, None])
        # A text that no head learned from is asked one head, as all others are: five together would know better.
        folds = np.where(heads.folds < 0, self._rng.integers(0, _HALVES, len(self._X)), heads.folds)
        agreed = heads.believe(self._X[rows], folds[rows]).argmax(axis=1) == right
        return CurvePoint(n_rows=n, agreement=wilson(int(agreed.sum()), len(rows)))


def _why_to_stop(config: RunConfig, n_rounds: int, wanted: int, curve: Sequence[CurvePoint]) -> str:
    """Why no further round is drawn; empty where one is."""
    sampling = config.sampling
    if n_rounds >= sampling.rounds or wanted < 1:
        return "the teacher has read what it was to read (sampling.teacher_rows, sampling.rounds)"
    expected = forecast(curve, wanted)
    if expected is None or expected.gain >= sampling.min_gain:
        return ""
    gain, bound = 100 * expected.gain, 100 * sampling.min_gain
    return f"{wanted:,} more texts are forecast to add {gain:.2f} points, less than {bound:g} (sampling.min_gain)"
