"""Replies: what a run's teacher answered, as a recording that teacher kind `replay` reads."""

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from candist_core.config import RunConfig
from candist_core.edges.store import open_store
from candist_core.errors import SourceError, StoreError, TeacherError
from candist_core.ports import Reply, Request
from candist_core.stages.ingest import find_ingested
from candist_core.stages.plan import plan_annotation
from candist_core.stages.sample import find_asked
from candist_core.stages.teachers import open_reply_log


def export_replies(config: RunConfig, out: Path) -> int:
    """Write every reply of the first teacher that is kept as JSON lines of `id` and `reply`, in the corpus's order.

    The corpus labelled again with `teacher.kind=replay` and this file as `teacher.replies_uri` gets the same candidate
    sets, at no cost. Replies of other runs with the same prompt are among them where they answer the same text.

    Args:
        config: the run; its corpus has been read into shards by an earlier run or estimate.
        out: the file to write; it appears whole or not at all.

    Returns:
        Lines written: at most one for each distinct text and sample, fewer where a reply is missing.

    Raises:
        StoreError: `out` is there already, or cannot be written.
        SourceError: the corpus has not been read yet, or was changed since.
        TeacherError: no reply to it is kept.
    """
    _refuse_overwrite(out)
    return _write_new(out, _lines(config))


def _lines(config: RunConfig) -> Iterator[str]:
    if (ingested := find_ingested(config)) is None:
        found, wanted = "no run over its files as they are now", "a run that has begun"
        raise SourceError(f"corpus {config.source.uri}", found, wanted, "run it first")
    plan, store, n_lines = plan_annotation(config), open_store(config.store), 0
    role = plan.roles[0]
    log = open_reply_log(plan, role, store, "export")
    for shard in find_asked(config, ingested, plan).texts:
        asked = [request for _, own in plan.requests(role, plan.texts(store, shard)) for request in own]
        kept = log.lookup(request.key for request in asked)
        for request in asked:
            if (reply := kept.get(request.key)) is not None:
                yield _line(request, reply)
                n_lines += 1
    if not n_lines:
        found, wanted = "none", "at least one to this corpus by this prompt"
        raise TeacherError(f"kept replies of {config.name}", found, wanted, "run it first, with the same settings")


def _line(request: Request, reply: Reply) -> str:
    """One reply; what else bears on its candidate set stands beside it where it is not the usual."""
    # Of equal requests one was sent: the reply may carry another row's id.
    fields: dict[str, object] = {"id": request.doc_id, "reply": reply.reply}
    if request.sample:
        fields["sample"] = request.sample
    if reply.finish_reason != "stop":
        fields["finish_reason"] = reply.finish_reason
    if reply.logprobs is not None:
        fields["logprobs"] = reply.logprobs
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _refuse_overwrite(out: Path) -> None:
    if os.path.lexists(out):
        raise StoreError(f"file {out}", "one that is there already", "a new name", "move it away or choose another")


def _write_new(out: Path, lines: Iterable[str]) -> int:
    """Write the lines beside `out`, then give the file its name; how many there were."""
    temp, n_lines = out.with_name(f".{out.name}-{secrets.token_hex(8)}"), 0
    try:
        with temp.open("x", encoding="utf-8", newline="\n") as file:
            try:
                for line in lines:
                    file.write(line)
                    n_lines += 1
                file.flush()
                os.fsync(file.fileno())
                # Writing may take minutes, in which another may have taken the name.
                _refuse_overwrite(out)
                temp.rename(out)
            except BaseException:
                temp.unlink(missing_ok=True)
                raise
    except OSError as error:
        found = "no such folder" if isinstance(error, FileNotFoundError) else (error.strerror or "an error").lower()
        raise StoreError(f"file {out}", found, "a place to write", "choose another") from error
    return n_lines
