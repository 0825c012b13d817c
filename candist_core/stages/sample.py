"""Sample: which texts the teacher reads, round by round; the student labels the rest.

The first round is drawn as the settings say, each later one by what students that learned from the rounds before doubt
most, out of a pool of texts drawn at random. After each round it is measured, without gold, how often students agree
with answers that they never saw; a curve through these points tells whether another round is worth its price. An
audit's texts are read in the first round, and where there are enough of them the curve is measured on their labels.
Invariant: equal corpus, settings, seed and answers draw the same texts, so that a run which was killed goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from candist_core.config import RunConfig
from candist_core.curve import forecast
from candist_core.edges.store import Store, open_store
from candist_core.ports import OnProgress, ignore_progress
from candist_core.reports import AnnotateReport, IngestReport, Usage
from candist_core.sampling import SampleRound, SamplingReport
from candist_core.spec import fingerprint
from candist_core.stages.annotate import find_annotations
from candist_core.stages.distill import verdicts_of_audit
from candist_core.stages.drawing import Drawing, tables_of
from candist_core.stages.plan import Plan
from candist_core.tables import ANNOTATIONS, REJECTS, TableRef, empty
from candist_core.version import __version__


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
    drawing = Drawing(config, ingested, open_store(config.store))
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
