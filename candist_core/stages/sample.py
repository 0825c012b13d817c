"""Sample: which texts the teacher reads, round by round; the student labels the rest.

The first round is drawn as the settings say, each later one by what students that learned from the rounds before doubt
most, out of a pool of texts drawn at random. After each round it is measured, without gold, how often students agree
with answers that they never saw; a curve through these points tells whether another round is worth its price. An
audit's texts are read in the first round, and where there are enough of them the curve is measured on their labels.
Invariant: equal corpus, settings, seed and answers draw the same texts, so that a run which was killed goes on.
"""

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
from candist_core.edges.store import Store, open_store
from candist_core.errors import StoreError
from candist_core.label_model import MIN_AUDIT, trusts_order
from candist_core.metrics import wilson
from candist_core.ports import OnProgress, ignore_progress
from candist_core.reports import AnnotateReport, IngestReport, Usage
from candist_core.sampling import CurvePoint, SampleRound, SamplingReport
from candist_core.sampling_config import Draw
from candist_core.spec import fingerprint
from candist_core.stages.annotate import find_annotations
from candist_core.stages.distill import RECIPES, Lesson, embed_texts, read_lesson, verdicts_of_audit
from candist_core.stages.plan import Plan
from candist_core.tables import ANNOTATIONS, REJECTS, TEXTS, TableRef, empty
from candist_core.version import __version__

MEASURED_SHARE = 0.2
"""Of a diverse first round, what is drawn at random: texts chosen for being unusual do not stand for the corpus."""

EARLIER = (0.25, 0.5)
"""Parts of the first round at which the curve begins."""

_POOL_SEED = 1
_HALVES = 2
"""Folds of the students of rounds: each learns from half of what was read, in a quarter of the time that five take."""

# Small enough for every worker of a machine to have one.
_SHARD_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What the teacher was asked: tables of texts with their annotations, and the answers by shard of the corpus.

    `report` is None where it read every text; `texts` are then the corpus's own shards.
    """

    texts: tuple[TableRef, ...]
    annotated: tuple[AnnotateReport, ...]
    by_shard: tuple[AnnotateReport, ...]
    n_unread: int = 0
    report: SamplingReport | None = None


def is_sampled(config: RunConfig, ingested: IngestReport) -> bool:
    """Whether the teacher is to read less than the corpus."""
    return config.sampling.teacher_rows is not None and config.sampling.teacher_rows < ingested.n_texts


def find_round(
    config: RunConfig, ingested: IngestReport, rounds: Sequence[SampleRound], annotated: Sequence[AnnotateReport]
) -> SampleRound | None:
    """The round after these, if an earlier run drew it."""
    return open_store(config.store).find_done("sample", _key(config, ingested, rounds, annotated), SampleRound)


def draw_round(
    config: RunConfig,
    ingested: IngestReport,
    rounds: Sequence[SampleRound] = (),
    annotated: Sequence[AnnotateReport] = (),
    on_progress: OnProgress = ignore_progress,
) -> SampleRound:
    """Choose the texts that the teacher reads next, or find that no more are worth reading.

    Args:
        config: the run.
        ingested: its corpus, of more texts than the teacher reads.
        rounds: those before, in order.
        annotated: the answers to all of their tables, in order.
        on_progress: told about the students behind the choice.

    Returns:
        A round; one without texts is the last.
    """
    if done := find_round(config, ingested, rounds, annotated):
        return done
    drawing = _Drawing(config, ingested, open_store(config.store))
    found = drawing.next(rounds, annotated, on_progress) if rounds else drawing.first()
    drawing.store.mark_done("sample", _key(config, ingested, rounds, annotated), found)
    return found


def asked_of(
    config: RunConfig, ingested: IngestReport, rounds: Sequence[SampleRound], annotated: Sequence[AnnotateReport]
) -> Asked:
    """Lay the answers to a sample before every shard of the corpus, and sum up how it was drawn.

    Args:
        config: the run.
        ingested: its corpus.
        rounds: all of them, the last without texts.
        annotated: the answers to all of their tables, in order.
    """
    texts = tables_of(rounds)
    merged = _merged(open_store(config.store), texts, annotated)
    n_unread = ingested.n_texts - sum(table.rows for table in texts)
    by_shard = (merged,) * len(ingested.texts)
    return Asked(texts, tuple(annotated), by_shard, n_unread, _sum_up(config, ingested, rounds, merged))


def _merged(store: Store, texts: tuple[TableRef, ...], annotated: Sequence[AnnotateReport]) -> AnnotateReport:
    """The answers to a sample in one table, which whoever labels a shard reads."""
    key = fingerprint(
        [[one.sha256 for one in texts], [[one.annotations.sha256, one.rejects.sha256] for one in annotated]]
    )
    if done := store.find_done("answers", key, AnnotateReport):
        return done
    answers, rejects = (
        pl.concat([empty(contract), *(store.read_table(table) for table in tables)])
        for contract, tables in (
            (ANNOTATIONS, [one.annotations for one in annotated]),
            (REJECTS, [one.rejects for one in annotated]),
        )
    )
    merged = AnnotateReport(
        annotations=store.write_table(f"annotations/{key}.parquet", answers, ANNOTATIONS),
        rejects=store.write_table(f"annotations/{key}-rejects.parquet", rejects, REJECTS),
        usage=sum((one.usage for one in annotated), Usage()),
        statuses=dict(answers["status"].value_counts().iter_rows()),
        set_sizes=dict(answers["candidates"].list.len().value_counts().iter_rows()),
        sample=texts,
    )
    store.mark_done("answers", key, merged)
    return merged


@dataclass(frozen=True, slots=True)
class Found:
    """What earlier runs left: tables that the teacher is to read, as far as they are drawn, and finished annotations.

    Of a sample, `rounds` are those drawn; a last one without texts says that no more follow.
    """

    texts: tuple[TableRef, ...]
    annotated: tuple[AnnotateReport, ...]
    rounds: tuple[SampleRound, ...] = ()

    def whole(self, config: RunConfig, ingested: IngestReport) -> Asked | None:
        """All that the teacher was asked, if nothing is left to ask."""
        if len(self.annotated) < len(self.texts):
            return None
        if not is_sampled(config, ingested):
            return asked_of_all(ingested, self.annotated)
        is_last = bool(self.rounds) and not self.rounds[-1].texts
        return asked_of(config, ingested, self.rounds, self.annotated) if is_last else None


def find_asked(config: RunConfig, ingested: IngestReport, plan: Plan) -> Found:
    """How far earlier runs with the same settings came in asking the teacher."""
    if not is_sampled(config, ingested):
        return Found(ingested.texts, _annotated(plan, ingested.texts))
    rounds: list[SampleRound] = []
    annotated: tuple[AnnotateReport, ...] = ()
    while (found := find_round(config, ingested, rounds, annotated)) is not None:
        rounds.append(found)
        annotated = _annotated(plan, tables_of(rounds))
        if not found.texts or len(annotated) < len(tables_of(rounds)):
            break
    return Found(tables_of(rounds), annotated, tuple(rounds))


def _annotated(plan: Plan, texts: Sequence[TableRef]) -> tuple[AnnotateReport, ...]:
    return tuple(done for shard in texts if (done := find_annotations(plan, shard)))


def asked_of_all(ingested: IngestReport, annotated: Sequence[AnnotateReport]) -> Asked:
    """The answers of a teacher that read every text."""
    return Asked(ingested.texts, tuple(annotated), tuple(annotated))


def tables_of(rounds: Sequence[SampleRound]) -> tuple[TableRef, ...]:
    """The texts of all rounds."""
    return tuple(table for one in rounds for table in one.texts)


def _sum_up(
    config: RunConfig, ingested: IngestReport, rounds: Sequence[SampleRound], merged: AnnotateReport
) -> SamplingReport:
    last, n_read = rounds[-1], sum(one.n_rows for one in rounds)
    paid = merged.usage.cost_usd + merged.usage.reused_usd
    usd_a_text = paid / max(n_read, 1) if not merged.usage.n_unpriced else None
    return SamplingReport(
        n_texts=ingested.n_texts,
        n_read=n_read,
        rounds=tuple(one.n_rows for one in rounds if one.texts),
        how=tuple(one.how for one in rounds if one.texts),
        stopped=last.stopped,
        is_audited=last.is_audited,
        curve=last.curve,
        forecast=forecast(last.curve, _more_rows(n_read), usd_a_text),
    )


def _more_rows(n_read: int) -> int:
    """How many more texts a forecast is about: a quarter of those read, in round numbers."""
    step: int = 10 ** (len(str(n_read // 4)) - 1)
    return max(1, n_read // 4 // step * step)


def _key(
    config: RunConfig, ingested: IngestReport, rounds: Sequence[SampleRound], annotated: Sequence[AnnotateReport]
) -> str:
    student, audit = config.student, verdicts_of_audit(config)
    return fingerprint(
        [
            [table.sha256 for table in ingested.texts],
            config.sampling.model_dump(mode="json"),
            [config.seed, student.model, student.max_tokens],
            [config.task.label_names, config.task.max_candidates],
            sorted((text, verdict.label, verdict.is_random) for text, verdict in audit.items()),
            [table.sha256 for table in tables_of(rounds)],
            [report.annotations.sha256 for report in annotated],
            __version__,
        ]
    )


@dataclass(frozen=True, slots=True)
class _Drawing:
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
