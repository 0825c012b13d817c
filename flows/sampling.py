"""Which texts the teacher reads: all of them, or a sample, round by round."""

from collections.abc import Sequence
from typing import Any

from candist_core.config import RunConfig
from candist_core.reports import AnnotateReport, IngestReport
from candist_core.sampling import SampleRound
from candist_core.stages.drawing import tables_of
from candist_core.stages.plan import plan_annotation
from candist_core.stages.sample import Asked, asked_of, asked_of_all, find_round, is_sampled
from flows.annotation import annotate_shards
from flows.gate import Gate
from flows.progress import Watch
from flows.runner import Cluster
from flows.window import run_alone
from tasks.sample import draw_round


def ask_teacher(config: RunConfig, ingested: IngestReport, cluster: Cluster, watch: Watch, gate: Gate) -> Asked:
    """Have the teacher read the corpus, or so much of it as the settings say.

    The cap on spending holds over all rounds: each is annotated together with those before, whose shards are done and
    whose cost counts.

    Raises:
        BudgetError: the cap is reached with texts left.
        GateError: a check that fails the run did not pass.
        TeacherError: no request will ever be answered.
        TransientError: shards that failed after their retries, once all the others have ended.
    """
    plan = plan_annotation(config)
    if not is_sampled(config, ingested):
        return asked_of_all(ingested, annotate_shards(plan, ingested.texts, cluster, watch, gate))
    rounds: list[SampleRound] = []
    annotated: list[AnnotateReport] = []
    while True:
        rounds.append(_draw(config, ingested, rounds, annotated, cluster, watch))
        if not rounds[-1].texts:
            return asked_of(config, ingested, rounds, annotated)
        annotated = annotate_shards(plan, tables_of(rounds), cluster, watch, gate)


def _draw(
    config: RunConfig,
    ingested: IngestReport,
    rounds: Sequence[SampleRound],
    annotated: Sequence[AnnotateReport],
    cluster: Cluster,
    watch: Watch,
) -> SampleRound:
    """The next round, out of an earlier run or drawn on a worker."""
    if done := find_round(config, ingested, rounds, annotated):
        with watch.stage("sample", done.n_rows, already=done.n_rows):
            return done
    cluster.connect()
    with watch.stage("sample", 0) as stage:
        future: Any = draw_round.submit(config, ingested, tuple(rounds), tuple(annotated))
        drawn: SampleRound = run_alone(future, watch.tick)
        stage.total = drawn.n_rows
    if drawn.stopped:
        watch.say(f"the teacher reads no more: {drawn.stopped}")
    return drawn
