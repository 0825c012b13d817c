"""Annotate: texts, a prompt and a teacher to candidate sets; each reply is paid once and kept before it is read.

Invariant: the annotations depend on texts and replies alone, never on times or costs.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, repeat

import polars as pl

from candist_core.asker import Asker
from candist_core.asking import Asking, Tally
from candist_core.budget import Allowance
from candist_core.candidates import CandidateSet, Status
from candist_core.ensemble import combine_samples
from candist_core.logprobs import scores_from_logprobs
from candist_core.pace import PATIENCE, Limits, Pace, Patience, whole
from candist_core.parse import parse_reply
from candist_core.ports import (
    OnProgress,
    Progress,
    RateLimit,
    Reply,
    ReplyLog,
    Request,
    ShareOf,
    Teacher,
    ignore_progress,
)
from candist_core.prompt import Prompt, Turn
from candist_core.questions import Questions
from candist_core.reports import Usage
from candist_core.spec import TaskSpec
from candist_core.tables import ANNOTATIONS, REJECTS, TEXTS, check
from candist_core.teacher_config import TeacherConfig, TeacherMode

logger = logging.getLogger(__name__)

_MAX_DETAIL_CHARS = 2000


@dataclass(frozen=True)
class Annotations:
    """What came of one shard; `n_left` texts have no row because the allowance ended, or the run was stopped, first."""

    annotations: pl.DataFrame
    rejects: pl.DataFrame
    usage: Usage
    n_left: int


async def annotate(
    texts: pl.DataFrame,
    spec: TaskSpec,
    prompt: Prompt,
    teacher: Teacher,
    log: ReplyLog,
    config: TeacherConfig,
    *,
    allowance: Allowance | None = None,
    share: ShareOf = whole,
    shared: RateLimit | None = None,
    turns: Mapping[str, tuple[Turn, ...]] | None = None,
    on_progress: OnProgress = ignore_progress,
    part: str = "",
    patience: Patience = PATIENCE,
) -> Annotations:
    """Ask the teacher about every text that no kept reply answers.

    Args:
        texts: under `texts/1`; equal texts are asked once.
        spec: the task, for reading replies.
        prompt: compiled from the same task and teacher.
        teacher: answers one request at a time; it is not closed here.
        log: keeps replies; looked into first, flushed on every way out.
        config: limits, attempts, samples, cutting of texts.
        allowance: what all replies may cost, kept ones included; no cap when None.
        share: this call's part of the limits in `config`, at any moment, of which batches have none; 0.0 ends it.
        shared: a limit of rate kept for several runs, used instead of those in `config`.
        turns: examples of its own for each text, by doc_id.
        on_progress: told at the start, about once a second, and at the end.
        part: the shard's name, for progress and the log line.
        patience: waits between attempts.

    Returns:
        Annotations in the order of the texts; a failed row has status `failed` and a row among the rejects.

    Raises:
        TeacherError: no request will ever succeed, by the teacher's word or because none of the first did.
        TransientError: the endpoint fell silent, or refused everything for too long.
    """
    started_at = time.monotonic()
    questions = Questions(prompt, config)
    asked = {doc_id: requests for doc_id, requests in questions.of(check(texts, TEXTS), turns)}
    requests = {request.key: request for own in reversed(asked.values()) for request in own}
    kept = await asyncio.to_thread(kept_replies, log, questions, requests)
    read = _Reader(spec, config)
    # What another shard was answered tells of the endpoint as well.
    is_known = bool(kept) or log.has_any
    pace = Pace(_limits_of(config, len(requests)), patience, share, shared, is_known=is_known)
    left = [request for own in asked.values() for request in own if requests[request.key] is request]
    left = [request for request in left if request.key not in kept]
    asker = Asker(
        teacher,
        pace,
        max_attempts=config.max_attempts,
        n_texts=len({request.doc_id for request in left}),
        patience=patience,
    )
    reused_usd = sum(reply.cost_usd or 0.0 for reply in kept.values())
    unpriced = [requests[key] for key, reply in kept.items() if reply.cost_usd is None]
    tally = Tally(n_unpriced=len(unpriced))
    if allowance is not None:
        tally.unpriced_bound_usd = sum(map(allowance.bound_usd, unpriced))
        allowance.spent_usd += reused_usd + tally.unpriced_bound_usd

    def tell(n_done: int, cost_usd: float) -> None:
        on_progress(Progress("annotate", part, n_done // config.samples, len(asked), cost_usd=cost_usd))

    sets = {key: read(reply) for key, reply in kept.items()}
    answered_by = {key: reply.request_key for key, reply in kept.items() if reply.request_key != key}
    call = Asking(asker, log, allowance, read, questions.shorter, tell, sets, answered_by, tally=tally)
    await call.run(left)
    usage = tally.usage(n_reused=len(kept), reused_usd=reused_usd)
    result = _tables(asked, call, usage, spec, teacher.name)
    _log_line(result, part, time.monotonic() - started_at)
    read.log_missing(part)
    return result


def _limits_of(config: TeacherConfig, n_requests: int) -> Limits:
    # A batch holds as many requests as the shard has; the endpoint's limits of rate do not apply to it.
    if config.mode is TeacherMode.BATCH:
        return Limits(max_in_flight=max(1, n_requests), is_batched=True)
    return Limits(config.max_in_flight, config.max_requests_per_min, config.max_tokens_per_min)


def kept_replies(log: ReplyLog, questions: Questions, requests: Mapping[str, Request]) -> dict[str, Reply]:
    """Replies that are there already, by the key of the request that they answer, whole or cut."""
    kept = dict(log.lookup(requests))
    cut = {
        shorter.key: key
        for key, request in requests.items()
        if key not in kept and (shorter := questions.shorter(request)) is not None
    }
    if cut:
        kept |= {cut[key]: reply for key, reply in log.lookup(cut).items()}
    return kept


class _Reader:
    """Turns replies into candidate sets, with scores from log-probabilities where those were asked for."""

    def __init__(self, spec: TaskSpec, config: TeacherConfig) -> None:
        self._spec, self._wants_logprobs = spec, config.logprobs
        self._n_without = 0

    def __call__(self, reply: Reply) -> CandidateSet:
        found = parse_reply(self._spec, reply.reply, reply.finish_reason)
        if not self._wants_logprobs or not found.labels:
            return found
        scores = None if reply.logprobs is None else scores_from_logprobs(reply.reply, reply.logprobs, found.labels)
        if scores is None:
            self._n_without += 1
            return found
        return replace(found, scores=scores)

    def log_missing(self, part: str) -> None:
        """Say once how many replies brought no usable probabilities."""
        if self._n_without:
            logger.warning(
                "%d replies of %s came without usable log-probabilities; their candidates have no scores from them",
                self._n_without, part or "one shard",
            )  # fmt: skip


def _tables(
    asked: Mapping[str, Sequence[Request]], call: Asking, usage: Usage, spec: TaskSpec, teacher: str
) -> Annotations:
    """Both tables, rows in the order of the texts."""
    rows, rejects = [], []
    for doc_id, requests in asked.items():
        sets = list(_sets_of(requests, call))
        if not sets:
            continue
        found = combine_samples(sets, spec.label_names, spec.max_candidates)
        if found.status is Status.FAILED:
            error = next(call.failures[request.key] for request in requests if request.key in call.failures)
            rejects.append((doc_id, "annotate", error.reason, error.detail[:_MAX_DETAIL_CHARS]))
        first = requests[0].key
        key = call.answered_by.get(first, first)
        rows.append((doc_id, found.labels, found.scores, str(found.status), teacher, key))
    columns = dict(zip(ANNOTATIONS.columns, zip(*rows, strict=True) if rows else repeat(()), strict=False))
    lists = {"candidates": _lists(columns["candidates"])}
    annotations = pl.DataFrame(columns | lists, schema=ANNOTATIONS.columns)
    return Annotations(
        annotations=check(annotations, ANNOTATIONS),
        rejects=check(pl.DataFrame(rejects, schema=REJECTS.columns, orient="row"), REJECTS),
        usage=usage,
        n_left=len(asked) - annotations.height,
    )


def _lists(values: Sequence[Sequence[str]]) -> pl.Series:
    """A column of lists; through Arrow, because polars takes twenty times as long over Python lists."""
    import pyarrow as pa

    flat = pa.array(chain.from_iterable(values), type=pa.large_string())
    offsets = pa.array([0, *accumulate(map(len, values))], type=pa.int64())
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(offsets, flat)))


def _sets_of(requests: Sequence[Request], call: Asking) -> Iterator[CandidateSet]:
    """A text's sets, one a sample; none while one sample is still to be asked."""
    keys = [request.key for request in requests]
    if all(key in call.sets or key in call.failures for key in keys):
        failed = CandidateSet(status=Status.FAILED)
        yield from (call.sets.get(key, failed) for key in keys)


def _log_line(result: Annotations, part: str, seconds: float) -> None:
    counts = Counter(result.annotations["status"])
    statuses = "".join(f", {counts[name]} {name}" for name in Status if name is not Status.OK and counts[name])
    usage = result.usage
    logger.info(
        "annotated %d rows of %s%s, %d left, %d reused replies, %d tokens, $%.4f, %.1f s",
        result.annotations.height, part or "one shard", statuses, result.n_left, usage.n_reused,
        usage.prompt_tokens + usage.completion_tokens, usage.cost_usd, seconds,
    )  # fmt: skip
