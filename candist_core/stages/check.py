"""Check: the corpus as it was read, the annotations as a whole, and the final labels, by Great Expectations."""

from collections import Counter
from collections.abc import Sequence

from candist_core.balance import Expected, expected_of_counts, spread_rest
from candist_core.checks_config import Reference
from candist_core.config import RunConfig
from candist_core.edges.expectations import LabelCounts, check_run, sum_up
from candist_core.edges.expectations import check_labels as check_counted
from candist_core.edges.ids import IdCounter
from candist_core.edges.labelled_source import read_audit
from candist_core.edges.measures import Measure, band, judge_measures, share
from candist_core.edges.own_expectations import check_own_labels
from candist_core.edges.store import open_store
from candist_core.errors import ConfigError
from candist_core.rejects import reasons_in_words
from candist_core.reports import AnnotateReport, CheckResult, IngestReport, PredictReport
from candist_core.stages.publish import open_publish_store
from candist_core.versions import list_versions, read_manifest


def check_corpus(config: RunConfig, ingested: IngestReport) -> tuple[CheckResult, ...]:
    """Check that few rows were rejected as the corpus was read: many are a sign of a wrong column or a broken file."""
    name, bound, n = "ingest.rejected_rate", config.checks.max_rejected_rate, ingested.n_rows
    why = f" ({reasons_in_words(ingested.reject_reasons)})" if ingested.n_rejects else ""
    measure = Measure(
        name,
        ingested.n_rejects / n if n else None,
        share(ingested.n_rejects, n, f"rows rejected as the corpus was read{why}"),
        band(None, bound),
        config.checks.on_fail_of(name),
        at_most=bound,
        n_unexpected=ingested.n_rejects,
        n=n,
    )
    # Importing Great Expectations takes seconds, for which a run with nothing to judge need not wait.
    return judge_measures([measure]) if ingested.n_rejects else (measure.result(passed=True),)


def check_annotations(config: RunConfig, annotated: Sequence[AnnotateReport]) -> tuple[CheckResult, ...]:
    """The checks of all shards summed up, and those of the whole run."""
    store, ids = open_store(config.store), IdCounter()
    for report in annotated:
        ids.add(store.read_table(report.annotations, columns=["doc_id"])["doc_id"])
    expected = expected_balance(config, of_teacher=True)
    return (*sum_up(annotated), *check_run(annotated, config, expected, ids))


def check_labels(
    config: RunConfig, annotated: Sequence[AnnotateReport], predicted: Sequence[PredictReport], n_unread: int = 0
) -> tuple[CheckResult, ...]:
    """Check the final labels of all shards, one shard in memory at a time.

    Args:
        config: the run.
        annotated: the teacher's answers.
        predicted: by shard of the corpus.
        n_unread: distinct texts that the teacher was not asked about; they have a label too.
    """
    store, counts = open_store(config.store), LabelCounts(config)
    for report in predicted:
        counts.add(store.read_table(report.labels))
    n_expected = n_unread + sum(report.annotations.rows for report in annotated)
    own = check_own_labels(config, (store.read_table(report.labels) for report in predicted))
    return (*check_counted(counts, n_expected, expected_balance(config, of_teacher=False)), *own)


def expected_balance(config: RunConfig, of_teacher: bool) -> Expected | None:
    """What the balance of labels is compared with; None where there is nothing.

    Args:
        config: of the run.
        of_teacher: of a previous version, take the teacher's first labels and not the final ones.

    Raises:
        ConfigError: a reference that was asked for by name and is not there.
    """
    names, wanted = config.task.label_names, config.checks.balance
    if wanted in (Reference.AUTO, Reference.PRIOR) and config.checks.prior:
        stated = {entry.label: entry.share for entry in config.checks.prior}
        return Expected("the stated prior", spread_rest(stated, names))
    # By name only: it shows a biased teacher, whose very confidences it is to calibrate.
    if wanted is Reference.AUDIT:
        verdicts = read_audit(config.audit, config.source, names).values()
        # Texts chosen for doubt say nothing of the balance of all.
        audit = Counter(verdict.label for verdict in verdicts if verdict.is_random)
        if not audit:
            raise ConfigError("checks.balance audit", "no audit", "labelled texts", "name them under audit.uri")
        return expected_of_counts(f"the audit of {audit.total():,} texts", audit)
    if wanted in (Reference.AUTO, Reference.PREVIOUS):
        return _previous(config, of_teacher)
    return None


def _previous(config: RunConfig, of_teacher: bool) -> Expected | None:
    """The balance of the latest published version, if it has the same labels."""
    store = open_publish_store(config)
    # The first run has none, and that is no mistake.
    if not (numbers := list_versions(store, config.dataset)):
        return None
    manifest = read_manifest(store, config.dataset, numbers[-1])
    counts = manifest.metrics.teacher_counts if of_teacher else manifest.metrics.class_counts
    if set(counts) != set(config.task.label_names) or not sum(counts.values()):
        return None
    return expected_of_counts(f"version {manifest.number}", counts)
