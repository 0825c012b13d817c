"""New texts beside those that a student learned from: which there are, what label they get, how far they have drifted.

Texts are known by 64 bits of their hash; of ten million the same are two different ones once in 400,000 runs.
"""

from pathlib import Path

import numpy as np
import polars as pl

from candist_core.config import RunConfig
from candist_core.drift import DriftReport, TextCounts, count_texts, two_sample_auc
from candist_core.edges.store import Store
from candist_core.labels import final_labels
from candist_core.reports import AnnotateReport, DistillReport
from candist_core.spec import fingerprint
from candist_core.stages.distill import fetch_student
from candist_core.stages.versions import Version, scan_version, told_reading
from candist_core.tables import LABELS, TableRef, empty
from candist_core.version import __version__

_MIN_EMBEDDED = 20
"""Fewer texts on one side are told from the others by chance too often for the area to say anything."""


class NewTexts:
    """The texts of a corpus that the base lacks: counted, and a sample of them kept to be embedded.

    Args:
        config: the run.
        base: the version before this run.
        reference: the version whose run distilled the student.
        student: with its beliefs about every shard that is looked at.
        store: of the run's tables.
    """

    def __init__(
        self, config: RunConfig, base: Version, reference: Version, student: DistillReport, store: Store
    ) -> None:
        self._config, self._base, self._reference = config, base, reference
        self._student, self._store = student, store
        self.n_new, self.counts = 0, TextCounts()
        self._sample = pl.DataFrame(schema={"text": pl.String, "hash": pl.UInt64})

    def look(self, shards: list[tuple[TableRef, AnnotateReport]]) -> dict[str, TableRef]:
        """Labels that texts of these shards keep, by the shard's sha256; the others are counted."""
        shown = {shard.sha256: self._hashed(self._store.read_table(shard)) for shard, _ in shards}
        hashes = pl.concat([frame.select("hash") for frame in shown.values()])
        with told_reading(self._base):
            base = _rows_of(self._base, self._seed).join(hashes.lazy(), on="hash", how="semi")
            known = base.collect().unique("hash", keep="first")
        kept = {}
        for shard, report in shards:
            rows = shown[shard.sha256].join(known, on="hash", how="left", maintain_order="left")
            answers = self._store.read_table(report.annotations)
            self._count_new(shard, rows.filter(pl.col("label").is_null()), answers)
            if (stays := _staying(rows, answers)).height:
                made_of = [self._student.key, self._base.manifest.version, shard.sha256, report.annotations.sha256]
                key = fingerprint([*made_of, __version__])
                kept[shard.sha256] = self._store.write_table(f"labels/kept-{key}.parquet", stays, LABELS)
        return kept

    def drift(self, scratch: Path) -> DriftReport | None:
        """Measure what was counted; where that are too few, with what was added since the student was distilled."""
        if not self.n_new:
            return None
        with told_reading(self._reference), told_reading(self._base):
            if self.counts.n < self._config.incremental.min_texts:
                self._widen()
            if self.counts.n < self._config.incremental.min_texts:
                return None
            old = _rows_of(self._reference, self._seed)
            n = self._config.incremental.sample_texts
            texts, others = self._sample["text"].to_list(), _lowest(old, n)["text"].to_list()
            report = DriftReport(new=self.counts, old=count_texts(old))
        if min(len(texts), len(others)) < _MIN_EMBEDDED:
            return report
        auc = self._embedded_auc(texts, others, scratch)
        return report.model_copy(update={"auc": auc, "n_embedded": len(texts), "m_embedded": len(others)})

    @property
    def _seed(self) -> int:
        return self._config.seed

    def _hashed(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(hash=pl.col("text").hash(self._seed))

    def _count_new(self, shard: TableRef, rows: pl.DataFrame, answers: pl.DataFrame) -> None:
        """Count new texts by the labels that they will get."""
        answered = answers.join(rows.select("doc_id"), on="doc_id", how="semi", maintain_order="left")
        beliefs = self._store.read_table(self._student.beliefs[shard.sha256])
        believed = answered.select("doc_id").join(beliefs, on="doc_id", maintain_order="left")
        if not answered.height:
            return
        P = np.array(believed["belief"].to_list(), dtype=np.float32)
        labels = final_labels(answered, P, self._config.task, self._student.label_model)
        self.n_new += labels.height
        self.counts += count_texts(labels.lazy())
        self._take(rows.join(answered.select("doc_id"), on="doc_id", how="semi").select("text", "hash"))

    def _widen(self) -> None:
        """Count what earlier runs added with this student as well."""
        if self._base.manifest.version == self._reference.manifest.version:
            return
        before = _rows_of(self._reference, self._seed).select("hash")
        added = _rows_of(self._base, self._seed).join(before, on="hash", how="anti")
        self.counts += count_texts(added)
        self._take(_lowest(added, self._config.incremental.sample_texts))

    def _take(self, rows: pl.DataFrame) -> None:
        """Keep the texts of the lowest hashes: a sample that does not depend on the order of shards."""
        both = pl.concat([self._sample, rows.select("text", "hash")])
        self._sample = both.sort("hash").head(self._config.incremental.sample_texts)

    def _embedded_auc(self, texts: list[str], others: list[str], scratch: Path) -> float:
        from candist_core.student.device import choose_device
        from candist_core.student.encode import SentenceEmbedder

        student = self._config.student
        embed = SentenceEmbedder(
            fetch_student(self._config, scratch), choose_device(student.device), student.max_tokens
        )
        return two_sample_auc(embed(texts), embed(others), self._seed)


def _rows_of(version: Version, seed: int) -> pl.LazyFrame:
    """The rows of a version: text, its hash, and what labels/1 has beside the id."""
    rows = scan_version(version).select("text", *(name for name in LABELS.columns if name != "doc_id"))
    return rows.with_columns(hash=pl.col("text").hash(seed))


def _lowest(rows: pl.LazyFrame, n: int) -> pl.DataFrame:
    """The n texts of the lowest hashes; all hashes are held, but only these texts."""
    lowest = rows.select("hash").unique().sort("hash").head(n)
    return rows.select("text", "hash").join(lowest, on="hash", how="semi").collect().unique("hash").sort("hash")


def _staying(rows: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    """labels/1 of texts that have a label in the base and the same candidates as there."""
    now = answers.select("doc_id", now="candidates")
    both = rows.filter(pl.col("label").is_not_null()).join(now, on="doc_id", maintain_order="left")
    return pl.concat([empty(LABELS), both.filter(pl.col("now") == pl.col("candidates")).select(*LABELS.columns)])
