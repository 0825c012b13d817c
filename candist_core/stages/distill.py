"""Distill: from all candidate sets to one student, and to what is believed of each text without its own answer."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.candidates import candidate_mask, rank_table
from candist_core.config import ACCESS, Location, Order, RunConfig, StudentKind
from candist_core.edges.labelled_source import Verdict, read_audit, read_labelled
from candist_core.edges.store import Store, fetch_folder, open_store
from candist_core.errors import ConfigError
from candist_core.label_model import MIN_AUDIT, Audited, fit_label_model, taught_posterior, trusts_order
from candist_core.ports import OnProgress, ignore_progress
from candist_core.reports import AnnotateReport, DistillReport, LabelModel, StoredFile
from candist_core.shots import shots_fingerprint
from candist_core.spec import fingerprint
from candist_core.stages.spool import spool_dir
from candist_core.tables import BELIEFS, REVIEWED, TableRef
from candist_core.version import __version__

logger = logging.getLogger(__name__)

RECIPES = {True: "sa_ce", False: "ca_ml_flat"}
"""What heads learn by: the teacher's first labels where their order is trusted, else its sets without it."""

_ASKED_BY = {
    "kind", "response_format", "temperature", "max_tokens", "reasoning", "samples", "logprobs", "max_text_tokens",
    "truncate",
}  # fmt: skip
"""The settings of a teacher that decide its answers, its model apart; the others say how fast and by which way."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a student learns from: rows have candidates, and none too large. `shard` is the place of a row's shard."""

    rows: pl.DataFrame
    S: NDArray[np.bool_]
    R: NDArray[np.int16]
    audited: Audited
    reviewed: pl.DataFrame


def student_key(config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]) -> str:
    """The key of a student: what it learns from and how, not where it is trained."""
    settings = config.student.model_dump(mode="json", exclude={"device", "processes"})
    tables = [[shard.sha256, report.annotations.sha256] for shard, report in zip(texts, annotated, strict=True)]
    audit = sorted((text, verdict.label, verdict.is_random) for text, verdict in verdicts_of_audit(config).items())
    return fingerprint([settings, tables, audit, config.task.label_names, config.seed, __version__])


def settings_key(config: RunConfig) -> str:
    """The key of all that a student learns by but the texts: one that is reused has to have the same."""
    settings = config.student.model_dump(mode="json", exclude={"device", "processes"})
    audit = sorted((text, verdict.label, verdict.is_random) for text, verdict in verdicts_of_audit(config).items())
    teachers = [one.model_dump(mode="json", include=_ASKED_BY) | {"model": one.model_name} for one in config.teachers]
    shots = read_labelled(config.shots, config.source, config.task.label_names)
    shown = shots_fingerprint(shots, config.shots) if shots else None
    asked = [config.task.fingerprint, teachers, config.combine, shown]
    return fingerprint([settings, audit, asked, config.seed, __version__])


def find_student(
    config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]
) -> DistillReport | None:
    """The student that an earlier run trained on the same sets, if any."""
    return open_store(config.store).find_done("distill", student_key(config, texts, annotated), DistillReport)


def distill_student(
    config: RunConfig,
    texts: Sequence[TableRef],
    annotated: Sequence[AnnotateReport],
    on_progress: OnProgress = ignore_progress,
) -> DistillReport:
    """Train the student on every text that has candidates, gold unseen.

    Small students first learn without each text's own answer; a label model weighs what they believe with that
    answer; what comes out is what the student learns, and what final labels are made of. An encoder's training is
    kept after every epoch, beside the replies on this machine; a training that was killed goes on from there.

    Raises:
        StudentError: no such weights or device, nothing to learn from, a loss that is no number.
        ConfigError: an audit that cannot be read, or none of whose texts stands in the corpus.
    """
    from candist_core.student.distill import Distilled, distill
    from candist_core.student.frozen import distill_frozen
    from candist_core.student.parallel import distill_in_parallel
    from candist_core.student.static import distill_static

    if done := find_student(config, texts, annotated):
        return done
    store, key = open_store(config.store), student_key(config, texts, annotated)
    lesson = read_lesson(store, config, texts, annotated)
    names, kept = config.task.label_names, spool_dir(store, config.store) / "students" / key
    with tempfile.TemporaryDirectory(prefix="candist-student-") as scratch:
        settings = config.student.model_copy(update={"model": fetch_student(config, Path(scratch))})
        X = embed_texts(config, lesson.rows["text"].to_list(), settings.model)
        belief, model = _believe(config, lesson, X, on_progress)
        folder = Path(scratch) / "student"
        learn = distill if settings.processes == 1 else distill_in_parallel
        trainers: dict[StudentKind, Callable[..., Distilled]] = {
            StudentKind.ENCODER: partial(learn, scratch=kept),
            StudentKind.FROZEN: partial(distill_frozen, embed=lambda texts: X),
            StudentKind.STATIC: distill_static,
        }
        result = trainers[settings.kind](
            lesson.rows["text"].to_list(),
            lesson.S,
            lesson.R,
            names,
            settings,
            config.seed,
            folder,
            on_progress=on_progress,
            n_threads=os.cpu_count(),
            posterior=taught_posterior(lesson.R, belief, model),
        )
        files = _keep_folder(store, folder, f"students/{key}")
    report = DistillReport(
        folder=f"students/{key}",
        files=files,
        key=key,
        base_model=config.student.model,
        device=result.device,
        device_reason=result.device_reason,
        n_train=lesson.rows.height,
        epochs=result.epochs,
        seconds=result.seconds,
        label_model=model,
        beliefs=_keep_beliefs(store, lesson, belief, texts, key),
        reviewed=store.write_table(f"reviewed/{key}.parquet", lesson.reviewed, REVIEWED),
        settings_key=settings_key(config),
    )
    store.mark_done("distill", key, report)
    shutil.rmtree(kept, ignore_errors=True)
    return report


def read_lesson(
    store: Store, config: RunConfig, texts: Sequence[TableRef], annotated: Sequence[AnnotateReport]
) -> Lesson:
    """The texts a student can learn from: a set, and no larger than allowed; and those of an audit.

    A set beyond `max_candidates` says little more than "unsure"; uniform targets over it would teach noise.
    """
    size, audit, reviewed, shards = pl.col("candidates").list.len(), verdicts_of_audit(config), [], []
    for i, (shard, report) in enumerate(zip(texts, annotated, strict=True)):
        shown = store.read_table(shard)
        answers = store.read_table(report.annotations, columns=["doc_id", "candidates"])
        joined = shown.join(answers, on="doc_id", maintain_order="left")
        reviewed.append(_verdicts_of(shown, audit))
        shards.append(joined.filter(size.is_between(1, config.task.max_candidates)).with_columns(shard=pl.lit(i)))
    rows, verdicts = pl.concat(shards), pl.concat(reviewed)
    if audit and verdicts.is_empty():
        thing, step = f"audit.uri {config.audit.uri}", "label texts as they stand in the corpus"
        raise ConfigError(thing, "none of its texts in the corpus", "some of them", step)
    names = config.task.label_names
    place = {name: j for j, name in enumerate(names)}
    # Texts chosen because they are doubtful are wrong more often than the rest: they must not calibrate it.
    random = verdicts.filter("is_random").drop("is_random")
    known = rows.with_row_index("row").join(random, on="doc_id", maintain_order="left")
    audited = Audited(known["row"].to_numpy().astype(np.int64), np.array([place[name] for name in known["label"]], int))
    if verdicts.height and len(audited.rows) < MIN_AUDIT:
        logger.warning("%d texts audited at random calibrate nothing, %d would", len(audited.rows), MIN_AUDIT)
    return Lesson(
        rows, candidate_mask(rows["candidates"], names), rank_table(rows["candidates"], names), audited, verdicts
    )


def reviewed_texts(store: Store, config: RunConfig, texts: Sequence[TableRef]) -> pl.DataFrame | None:
    """The texts of a corpus that a person has labelled, under reviewed/1; None without an audit."""
    audit = verdicts_of_audit(config)
    return pl.concat([_verdicts_of(store.read_table(shard), audit) for shard in texts]) if audit else None


def _verdicts_of(shown: pl.DataFrame, audit: Mapping[str, Verdict]) -> pl.DataFrame:
    """doc_id, label and is_random of the texts of a shard that a person has labelled."""
    given = [(doc_id, audit.get(text.strip())) for doc_id, text in shown.select("doc_id", "text").iter_rows()]
    rows = [(doc_id, verdict.label, verdict.is_random) for doc_id, verdict in given if verdict is not None]
    return pl.DataFrame(rows, schema=REVIEWED.columns, orient="row")


def fetch_student(config: RunConfig, scratch: Path) -> str:
    """The model as something to load locally: an `s3://` folder is downloaded by the store's access settings."""
    model = config.student.model
    if "://" not in model:
        return model
    where = Location(uri=model, **config.store.model_dump(include=ACCESS))
    return str(fetch_folder(where, scratch / "base"))


def verdicts_of_audit(config: RunConfig) -> Mapping[str, Verdict]:
    """The labels that a person gave, by text; empty without an audit."""
    return read_audit(config.audit, config.source, config.task.label_names)


def embed_texts(config: RunConfig, texts: Sequence[str], base: str | None = None) -> NDArray[np.float32]:
    """X, (n, d): texts in the eyes of the encoder before it learns anything.

    Args:
        config: names the encoder.
        texts: n texts.
        base: the folder that it was brought to, if it was.
    """
    from candist_core.student.device import choose_device
    from candist_core.student.encode import SentenceEmbedder, threads

    with tempfile.TemporaryDirectory(prefix="candist-student-") as scratch, threads(os.cpu_count()):
        weights = base or fetch_student(config, Path(scratch))
        return SentenceEmbedder(weights, choose_device(config.student.device), config.student.max_tokens)(texts)


def _believe(
    config: RunConfig, lesson: Lesson, X: NDArray[np.float32], on_progress: OnProgress
) -> tuple[NDArray[np.float32], LabelModel]:
    """What students that never saw a text's answer believe of it, (n, k), and how the two are weighed."""
    from candist_core.recipe import find_recipe
    from candist_core.student.crossfit import cross_fit

    is_audited = len(lesson.audited.rows) >= MIN_AUDIT
    orders = {Order.TRUSTED: [True], Order.IGNORED: [False]}.get(
        config.student.order, [True, False] if is_audited else [trusts_order(lesson.R)]
    )
    beliefs: dict[bool, NDArray[np.float32]] = {}
    for order in orders:
        recipe = find_recipe(RECIPES[order])
        heads = cross_fit(X, lesson.S, lesson.R, recipe, config.seed, config.student.folds, on_progress=on_progress)
        beliefs[order] = heads.believe(X, heads.folds)
    model = fit_label_model(lesson.R, beliefs, lesson.audited)
    return beliefs[model.trusts_order], model


def _keep_beliefs(
    store: Store, lesson: Lesson, belief: NDArray[np.float32], texts: Sequence[TableRef], key: str
) -> dict[str, TableRef]:
    rows = lesson.rows.select("doc_id", "shard", belief=pl.Series(belief).arr.to_list())
    tables = (rows.filter(pl.col("shard") == i).drop("shard") for i in range(len(texts)))
    return {
        shard.sha256: store.write_table(f"beliefs/{key}-{i:06d}.parquet", table, BELIEFS)
        for i, (shard, table) in enumerate(zip(texts, tables, strict=True))
    }


def _keep_folder(store: Store, folder: Path, prefix: str) -> tuple[StoredFile, ...]:
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        uri = f"{prefix}/{path.relative_to(folder).as_posix()}"
        store.write_bytes(uri, data)
        files.append(StoredFile(uri=uri, size_bytes=len(data), sha256=sha256(data).hexdigest()))
    return tuple(files)
