"""A run that a check has stopped before it had labels, put together again from what it left in the store."""

from collections.abc import Sequence

import polars as pl

from candist_core.checks_config import OnFail
from candist_core.config import RunConfig
from candist_core.edges.expectations import sum_up
from candist_core.edges.report.stopped import MAX_ROWS, StoppedRun
from candist_core.edges.store import Store, open_store
from candist_core.publish import public_config
from candist_core.reports import AnnotateReport, CheckResult, Usage
from candist_core.stages.annotate import find_annotations
from candist_core.stages.check import check_annotations, check_corpus
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.stages.quarantine import list_quarantine
from candist_core.tables import TableRef


def find_stopped(config: RunConfig) -> StoppedRun | None:
    """What is known of a run whose corpus or annotations failed a check; None where they passed, so far as they go."""
    if (ingested := find_ingested(config)) is None:
        return None
    store, plan = open_store(config.store), plan_annotation(config)
    annotated = [done for shard in ingested.texts if (done := find_annotations(plan, shard))]
    at_fault = list_quarantine(config)
    of_corpus = check_corpus(config, ingested)
    whole = len(annotated) == len(ingested.texts)
    of_answers = check_annotations(config, annotated) if whole else _of_some(annotated, at_fault)
    stage = "corpus" if _stops(of_corpus) else "annotations"
    if not _stops((*of_corpus, *of_answers)):
        return None
    tables = (ingested.rejects, *(report.rejects for report in annotated))
    return StoppedRun(
        name=config.name,
        stage=stage,
        checks=(*of_corpus, *of_answers),
        n_rows=ingested.n_rows,
        n_texts=ingested.n_texts,
        n_asked=sum(sum(report.statuses.values()) for report in annotated),
        usage=sum((report.usage for report in annotated), Usage()),
        at_fault=_with_texts(store, ingested.texts, at_fault),
        rejects=pl.concat(store.read_table(table) for table in tables),
        config=public_config(config),
    )


def _stops(checks: Sequence[CheckResult]) -> bool:
    return any(not check.passed and check.on_fail == OnFail.FAIL for check in checks)


def _of_some(annotated: Sequence[AnnotateReport], at_fault: pl.DataFrame) -> tuple[CheckResult, ...]:
    """Checks of the shards that are done, and of rows at fault in others: of a shard that failed less is kept."""
    known = sum_up(annotated)
    named = {check.name for check in known if not check.passed}
    counts = at_fault.group_by("check", "on_fail", maintain_order=True).agg(n=pl.len()).iter_rows()
    return known + tuple(
        CheckResult(
            name=name, passed=False, observed=f"{n:,} rows at fault", wanted="a rate within its bound", on_fail=on_fail
        )
        for name, on_fail, n in counts
        if name not in named
    )


def _with_texts(store: Store, shards: Sequence[TableRef], at_fault: pl.DataFrame) -> pl.DataFrame:
    """Rows at fault; the first of them, those that are shown, with their texts."""
    wanted = at_fault.head(MAX_ROWS).select("doc_id").unique()
    found = pl.DataFrame(schema={"doc_id": pl.String, "text": pl.String})
    for shard in shards:
        if found.height == wanted.height:
            break
        found.extend(store.read_table(shard).select(found.columns).join(wanted, on="doc_id", how="semi"))
    return at_fault.join(found, on="doc_id", how="left", maintain_order="left")
