"""Annotate: one shard of texts to candidate sets, checked, with every paid reply kept."""

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl

from candist_core.annotate import Annotations, annotate
from candist_core.budget import Allowance, Price, load_prices, price_of
from candist_core.config import Location, OnFail, RunConfig, StoreConfig, TeacherKind
from candist_core.edges.expectations import check_annotations, failing_rows
from candist_core.edges.openai_teacher import open_openai_teacher
from candist_core.edges.replay_teacher import ReplayTeacher, read_replies, replay_model
from candist_core.edges.reply_log import StoreReplyLog
from candist_core.edges.store import Store, open_store, read_uri
from candist_core.errors import ConfigError, TeacherError
from candist_core.ports import OnProgress, Teacher, ignore_progress
from candist_core.prompt import Prompt, compile_prompt
from candist_core.reports import AnnotateReport, CheckResult
from candist_core.spec import fingerprint
from candist_core.tables import ANNOTATIONS, REJECTS, TableRef
from candist_core.version import __version__

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run's shards are annotated: its settings and the compiled prompt."""

    config: RunConfig
    prompt: Prompt

    def key(self, texts: TableRef) -> str:
        """The key of one shard's annotations: its content, the prompt, the checks, this code."""
        checks = self.config.checks.model_dump(mode="json")
        spec = self.config.task.fingerprint
        return fingerprint([texts.sha256, self.prompt.head.fingerprint, spec, checks, __version__])


def plan_annotation(config: RunConfig) -> Plan:
    """Compile the prompt once for a run.

    Raises:
        TeacherError: recorded replies that cannot be read.
        ConfigError: a cap on spending for a model without a known price.
    """
    teacher = config.teacher
    if teacher.kind is TeacherKind.REPLAY:
        return Plan(
            config, compile_prompt(config.task, teacher, replay_model(read_uri(_replies(config), TeacherError)))
        )
    if teacher.kind is TeacherKind.ZEROSHOT:
        return Plan(config, compile_prompt(config.task, teacher, f"zeroshot:{teacher.model_name}"))
    if config.budget.max_usd is not None and price_of_teacher(config) is None:
        raise ConfigError(
            "budget.max_usd",
            f"no price for model {teacher.model_name!r}",
            "one to hold the cap by",
            "add it under budget.prices",
        )
    return Plan(config, compile_prompt(config.task, teacher))


def price_of_teacher(config: RunConfig) -> Price | None:
    """What the teacher's tokens cost; None when no price is known or none is asked."""
    if config.teacher.kind is not TeacherKind.OPENAI:
        return None
    return price_of(config.teacher.model_name, load_prices(config.budget.prices))


def _replies(config: RunConfig) -> Location:
    return config.source.model_copy(update={"uri": config.teacher.replies_uri})


def find_annotations(plan: Plan, texts: TableRef) -> AnnotateReport | None:
    """The shard's annotations, if an earlier run finished them."""
    return open_store(plan.config.store).find_done("annotate", plan.key(texts), AnnotateReport)


def annotate_shard(
    plan: Plan,
    texts: TableRef,
    allowance_usd: float | None = None,
    in_flight: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> AnnotateReport:
    """Ask the teacher about every text of a shard that no kept reply answers, parse, check, write.

    Args:
        plan: from `plan_annotation`.
        texts: the shard, under `texts/1`.
        allowance_usd: what these requests may cost at most; no bound when None.
        in_flight: requests under way at once; the teacher's setting when None.
        on_progress: told at every flush.

    Returns:
        The shard's tables. With `n_left` above zero the allowance ended first and the shard is not done.
    """
    if done := find_annotations(plan, texts):
        return done
    store = open_store(plan.config.store)
    key, part = plan.key(texts), Path(texts.uri).stem
    result = _run(_ask(plan, store, texts, part, allowance_usd, in_flight, on_progress))
    frame, rejects, checks = _checked(result, texts.rows, plan)
    report = AnnotateReport(
        annotations=store.write_table(f"annotations/{key}.parquet", frame, ANNOTATIONS),
        rejects=store.write_table(f"annotations/{key}-rejects.parquet", rejects, REJECTS),
        usage=result.usage,
        statuses=dict(Counter(result.annotations["status"])),
        set_sizes=dict(Counter(frame["candidates"].list.len().to_list())),
        checks=checks,
        n_left=result.n_left,
    )
    # Rows that the endpoint failed for a while get another chance in the next run; its verdicts on a row stand.
    if not result.n_left and "transient" not in set(result.rejects["reason"]):
        store.mark_done("annotate", key, report)
    return report


def _checked(
    result: Annotations, n_texts: int, plan: Plan
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[CheckResult, ...]]:
    """Annotations, rejects and check results; what `quarantine` sets aside has moved to the rejects."""
    config, frame = plan.config, result.annotations
    teacher = frame["teacher"][0] if frame.height else ""
    results = check_annotations(frame, n_texts - result.n_left, config.task, config.checks, teacher)
    at_fault = failing_rows(frame, results, config.task, config.checks, teacher)
    quarantined = {check.name for check in results if check.on_fail == OnFail.QUARANTINE}
    moved = at_fault.filter(pl.col("check").is_in(quarantined)).unique("doc_id", keep="first", maintain_order=True)
    entries = moved.select("doc_id", stage=pl.lit("check"), reason="check", detail="value")
    kept = frame.join(moved.select("doc_id"), on="doc_id", how="anti", maintain_order="left")
    return kept, pl.concat([result.rejects, entries]), results


def open_reply_log(plan: Plan, store: Store, part: str) -> StoreReplyLog:
    """The log of everything that the plan's prompt was ever answered."""
    return StoreReplyLog(store, plan.prompt.head.fingerprint, part, _spool_dir(store, plan.config.store))


async def _ask(
    plan: Plan,
    store: Store,
    texts: TableRef,
    part: str,
    allowance_usd: float | None,
    in_flight: int | None,
    on_progress: OnProgress,
) -> Annotations:
    config = plan.config
    frame = store.read_table(texts)
    teacher = _open_teacher(plan, frame["doc_id"].to_list())
    log = open_reply_log(plan, store, part)
    try:
        with closing(log):
            return await annotate(
                frame,
                config.task,
                plan.prompt,
                teacher,
                log,
                max_in_flight=in_flight or config.teacher.max_in_flight,
                max_attempts=config.teacher.max_attempts,
                allowance=_allowance(config, allowance_usd),
                on_progress=on_progress,
                part=part,
            )
    finally:
        await teacher.close()


def _allowance(config: RunConfig, usd: float | None) -> Allowance | None:
    price = price_of_teacher(config)
    return None if usd is None or price is None else Allowance(usd, price)


def _open_teacher(plan: Plan, doc_ids: Sequence[str]) -> Teacher:
    config = plan.config
    if config.teacher.kind is TeacherKind.OPENAI:
        return open_openai_teacher(config.teacher, load_prices(config.budget.prices))
    if config.teacher.kind is TeacherKind.REPLAY:
        return _open_replay(plan, doc_ids)
    from candist_core.edges.zeroshot_teacher import ZeroShotTeacher
    from candist_core.student.device import choose_device
    from candist_core.student.encode import SentenceEmbedder

    embed = SentenceEmbedder(config.teacher.model_name, choose_device(config.student.device))
    return ZeroShotTeacher(config.task, embed, config.teacher.model_name)


def _open_replay(plan: Plan, doc_ids: Sequence[str]) -> Teacher:
    place = _replies(plan.config)
    teacher = ReplayTeacher(read_replies(read_uri(place, TeacherError), place.uri), plan.prompt.head.model)
    if missing := teacher.missing_replies(doc_ids):
        raise TeacherError(
            f"recorded replies {place.uri}",
            f"none for {len(missing):,} of {len(doc_ids):,} texts of a shard, the first is {missing[0]!r}",
            "one for every text",
            "record the missing ones, or label with another teacher.kind",
        )
    return teacher


def _spool_dir(store: Store, settings: StoreConfig) -> Path:
    if settings.spool_dir:
        return Path(settings.spool_dir)
    if store.local_root is not None:
        return store.local_root / "spool"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "candist" / "spool"


def _run(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end, also where a notebook's loop is already running in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
