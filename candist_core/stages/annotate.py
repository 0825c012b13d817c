"""Annotate: one shard of texts to candidate sets, checked, with every paid reply kept."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from candist_core.annotate import Annotations, annotate
from candist_core.balance import first_labels, frequent_sets
from candist_core.budget import Allowance
from candist_core.candidates import CandidateSet, Status
from candist_core.checks_config import OnFail
from candist_core.config import RunConfig
from candist_core.edges.expectations import check_annotations, failing_rows
from candist_core.edges.own_expectations import check_own, own_failing_rows
from candist_core.edges.redis_limit import open_redis_limit
from candist_core.edges.store import Store, open_store
from candist_core.ensemble import combine_teachers, is_unsure
from candist_core.pace import whole
from candist_core.ports import OnProgress, Progress, ShareOf, Teacher, ignore_progress
from candist_core.reports import AnnotateReport, CheckResult, Usage
from candist_core.stages.plan import Plan, Role, combined_name
from candist_core.stages.teachers import ApiKeys, open_reply_log, open_teacher
from candist_core.tables import ANNOTATIONS, QUARANTINE, REJECTS, TableRef
from candist_core.teacher_config import Combine

T = TypeVar("T")


def find_annotations(plan: Plan, texts: TableRef) -> AnnotateReport | None:
    """The shard's annotations, if an earlier run finished them."""
    return open_store(plan.config.store).find_done("annotate", plan.key(texts), AnnotateReport)


def annotate_shard(
    plan: Plan,
    texts: TableRef,
    allowance_usd: float | None = None,
    share: ShareOf = whole,
    on_progress: OnProgress = ignore_progress,
    api_keys: ApiKeys | None = None,
) -> AnnotateReport:
    """Ask the teachers about every text of a shard that no kept reply answers, parse, check, write.

    Args:
        plan: from `plan_annotation`.
        texts: the shard, under `texts/1`.
        allowance_usd: what these requests may cost at most; no bound when None.
        share: this shard's part of the run's limits at any moment; 0.0 ends it.
        on_progress: told about once a second.
        api_keys: keys from Prefect Secret blocks, by name.

    Returns:
        The shard's tables. With `n_left` above zero the allowance ended first, or the share, and it is not done.
    """
    if done := find_annotations(plan, texts):
        return done
    store = open_store(plan.config.store)
    key = plan.key(texts)
    part, frame, left_out = Path(texts.uri).stem, plan.texts(store, texts), plan.left_out(store, texts)
    doc_ids = frame["doc_id"].to_list()

    def teacher_of(role: Role) -> Teacher:
        return open_teacher(plan, role, store, part, doc_ids, api_keys)

    shard = _Shard(plan, store, frame, part, teacher_of, allowance_usd, share, on_progress)
    result = _run(shard.ask())
    # A shard that nobody waits for any more need not be checked; it is not done either.
    is_dropped = result.n_left and not share()
    nothing = pl.DataFrame(schema=QUARANTINE.columns)
    kept = _Checked(result.annotations, result.rejects, nothing) if is_dropped else _checked(result, frame.height, plan)
    _keep_quarantine(store, plan, texts, kept.quarantine)
    frame = kept.annotations
    report = AnnotateReport(
        annotations=store.write_table(f"annotations/{key}.parquet", frame, ANNOTATIONS),
        rejects=store.write_table(f"annotations/{key}-rejects.parquet", pl.concat([kept.rejects, left_out]), REJECTS),
        usage=result.usage,
        statuses=dict(Counter(result.annotations["status"])),
        set_sizes=dict(Counter(frame["candidates"].list.len().to_list())),
        checks=kept.checks,
        n_left=result.n_left,
        first_labels=first_labels(frame["candidates"]),
        frequent_sets=frequent_sets(frame["candidates"]),
    )
    # Rows that the endpoint failed for a while get another chance in the next run; its verdicts on a row stand.
    if not result.n_left and "transient" not in set(result.rejects["reason"]):
        store.mark_done("annotate", key, report)
    return report


def quarantine_path(plan: Plan, texts: TableRef) -> str:
    """Where the rows at fault of one shard stand."""
    return f"quarantine/{plan.key(texts)}.parquet"


def _keep_quarantine(store: Store, plan: Plan, texts: TableRef, rows: pl.DataFrame) -> None:
    """Write the rows at fault of one shard, or note that there are none any more."""
    path = quarantine_path(plan, texts)
    if rows.height:
        store.write_table(path, rows, QUARANTINE)
    else:
        store.delete([path])


def derive(plan: Plan, texts: TableRef, part: str, teacher_of: Callable[[Role], Teacher]) -> pl.DataFrame:
    """The shard's annotations from kept replies and such teachers; writes none."""
    store = open_store(plan.config.store)
    frame = plan.texts(store, texts)
    result = _run(_Shard(plan, store, frame, part, teacher_of).ask())
    return _checked(result, frame.height, plan).annotations


@dataclass(frozen=True, slots=True)
class _Checked:
    """A shard after its checks; `quarantine` are the rows set aside and those that stop the run."""

    annotations: pl.DataFrame
    rejects: pl.DataFrame
    quarantine: pl.DataFrame
    checks: tuple[CheckResult, ...] = ()


def _checked(result: Annotations, n_texts: int, plan: Plan) -> _Checked:
    """Check a shard; what `quarantine` sets aside moves to the rejects."""
    config, frame = plan.config, result.annotations
    results = check_annotations(frame, n_texts - result.n_left, config, plan.teacher_names)
    own = check_own(config, frame)
    at_fault = failing_rows(frame, results, config, plan.teacher_names)
    if not all(check.passed for check in own):
        at_fault = pl.concat([at_fault, own_failing_rows(config, frame, own)])
    checks = (*results, *own)
    on_fail = {check.name: check.on_fail for check in checks}
    at_fault = at_fault.with_columns(on_fail=pl.col("check").replace_strict(on_fail, return_dtype=pl.String))
    is_aside = pl.col("on_fail") == OnFail.QUARANTINE
    moved = at_fault.filter(is_aside).unique("doc_id", keep="first", maintain_order=True)
    entries = moved.select("doc_id", stage=pl.lit("check"), reason="check", detail="value")
    return _Checked(
        annotations=frame.join(moved.select("doc_id"), on="doc_id", how="anti", maintain_order="left"),
        rejects=pl.concat([result.rejects, entries]),
        quarantine=at_fault.filter(pl.col("on_fail") != OnFail.WARN).with_columns(pl.col("value").fill_null("")),
        checks=checks,
    )


@dataclass
class _Shard:
    """One shard while its teachers are asked, one after the other."""

    plan: Plan
    store: Store
    texts: pl.DataFrame
    part: str
    teacher_of: Callable[[Role], Teacher]
    allowance_usd: float | None = None
    share: ShareOf = whole
    on_progress: OnProgress = ignore_progress
    usage: Usage = field(default_factory=Usage)

    async def ask(self) -> Annotations:
        """Every teacher's answers, made one; second answers in place of first ones about texts to ask again."""
        first = await self._ask_all(self.plan, self.texts)
        if first.n_left or self.plan.again is None:
            return first
        doubtful = self.plan.again.of(self.texts)
        if doubtful.is_empty():
            return first
        return _replaced(first, await self._ask_all(self.plan.again.plan, doubtful), doubtful)

    async def _ask_all(self, plan: Plan, texts: pl.DataFrame) -> Annotations:
        answers: list[Annotations] = []
        todo = texts
        for role in plan.roles:
            answers.append(await self._ask_one(plan, role, todo))
            self.usage += answers[-1].usage
            if answers[-1].n_left:
                break
            if self._config.combine is Combine.CASCADE:
                unsure = [
                    row["doc_id"] for row in answers[-1].annotations.iter_rows(named=True) if is_unsure(_set_of(row))
                ]
                todo = todo.filter(pl.col("doc_id").is_in(unsure))
        if len(plan.roles) == 1:
            return answers[0]
        return _combined(texts, answers, self._config, len(plan.roles))

    @property
    def _config(self) -> RunConfig:
        return self.plan.config

    async def _ask_one(self, plan: Plan, role: Role, texts: pl.DataFrame) -> Annotations:
        teacher = self.teacher_of(role)
        log = open_reply_log(self.plan, role, self.store, self.part)
        limit = open_redis_limit(role.teacher, must_answer=False)
        is_kept = False
        try:
            try:
                return await annotate(
                    texts,
                    self._config.task,
                    role.prompt,
                    teacher,
                    log,
                    role.teacher,
                    allowance=self._allowance(role),
                    share=self.share,
                    shared=limit,
                    turns=plan.turns(role, texts),
                    on_progress=self._tell,
                    part=self.part,
                )
            finally:
                log.close()
                is_kept = True
        finally:
            await teacher.close(is_kept)
            if limit is not None:
                await limit.close()

    def _allowance(self, role: Role) -> Allowance | None:
        if role.price is None:
            return None
        # Without a cap too: what replies without a cost may have cost stands in the report, for a later run's cap.
        max_usd = math.inf if self.allowance_usd is None else self.allowance_usd
        return Allowance(max_usd - self.usage.charged_usd, role.price)

    def _tell(self, progress: Progress) -> None:
        """Pass progress on; while later teachers read some texts again, all have been read once."""
        done = progress.done if not self.usage.n_requests + self.usage.n_reused else self.texts.height
        total, cost_usd = self.texts.height, progress.cost_usd + self.usage.cost_usd
        self.on_progress(replace(progress, done=min(done, total), total=total, cost_usd=cost_usd))


def _replaced(first: Annotations, second: Annotations, asked: pl.DataFrame) -> Annotations:
    """First answers, replaced where a second one names a label; none about texts whose second is still to come."""
    key = "doc_id"
    named = second.annotations.filter(pl.col("status") == str(Status.OK))
    open_ids = asked.join(second.annotations, on=key, how="anti").select(key)
    due = first.annotations.select(key).join(open_ids, on=key, how="anti", maintain_order="left")
    others = first.annotations.join(named, on=key, how="anti")
    # A row with a first answer is no reject; but what failed for a while is to be asked once more.
    passing = second.rejects.filter(pl.col("reason") == "transient")
    failed = pl.concat([first.rejects.join(named, on=key, how="anti"), passing])
    return Annotations(
        annotations=due.join(pl.concat([others, named]), on=key, how="left", maintain_order="left"),
        rejects=failed.unique(key, keep="last", maintain_order=True),
        usage=first.usage + second.usage,
        n_left=second.n_left,
    )


def _set_of(row: Mapping[str, Any]) -> CandidateSet:
    scores = None if row["scores"] is None else tuple(row["scores"])
    return CandidateSet(tuple(row["candidates"]), scores, Status(row["status"]))


def _combined(texts: pl.DataFrame, answers: list[Annotations], config: RunConfig, n_roles: int) -> Annotations:
    """One row a text from several teachers; none where an answer is still to come."""
    rows_of: list[dict[str, dict[str, Any]]] = [
        {row["doc_id"]: row for row in answer.annotations.iter_rows(named=True)} for answer in answers
    ]
    name = combined_name(config.combine, (row["teacher"] for rows in rows_of for row in list(rows.values())[:1]))
    rejects_of = {row[0]: row for answer in answers for row in answer.rejects.iter_rows()}
    rows, rejects = [], []
    for doc_id in texts["doc_id"]:
        own = [rows[doc_id] for rows in rows_of if doc_id in rows]
        sets = [_set_of(row) for row in own]
        is_last = config.combine is Combine.CASCADE and sets and not is_unsure(sets[-1])
        if len(sets) < n_roles and not is_last:
            continue
        found = combine_teachers(sets, config.task.label_names, config.combine, config.task.max_candidates)
        if found.status is Status.FAILED:
            rejects.append(rejects_of[doc_id])
        rows.append((doc_id, found.labels, found.scores, str(found.status), name, own[-1]["request_key"]))
    annotations = pl.DataFrame(rows, schema=ANNOTATIONS.columns, orient="row")
    usage = sum((answer.usage for answer in answers), Usage())
    reject_table = pl.DataFrame(rejects, schema=REJECTS.columns, orient="row")
    return Annotations(annotations, reject_table, usage, texts.height - annotations.height)


def _run(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end, also where a notebook's loop is already running in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
