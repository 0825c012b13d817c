"""Beliefs about the texts of a corpus by a student that was distilled on another: of those who never saw the answers.

A text that the student learned from has its belief from when the student was distilled, out of fold; about any other
the student itself is asked. Invariant: no belief about a text depends on the teacher's answer to it.
"""

from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from candist_core.config import RunConfig
from candist_core.edges.store import Store
from candist_core.reports import DistillReport, Report
from candist_core.spec import fingerprint
from candist_core.stages.predict import load_student
from candist_core.stages.versions import Version, scan_version, told_reading
from candist_core.tables import BELIEFS, TableRef
from candist_core.version import __version__

_KEPT_TABLES = 4
"""Tables of old beliefs held at once: texts keep their order as a rule, so that a shard needs one or two."""


class BeliefReport(Report):
    """The beliefs about one shard of texts."""

    beliefs: TableRef


class BeliefsOfTexts:
    """Finds or makes the beliefs of one student, shard by shard.

    Memory: hashes of the texts that it learned from, and some tables of beliefs.

    Args:
        config: the run.
        store: of its tables.
        student: as it was distilled.
        reference: the version whose run distilled it: it tells which text an id stood for then.
    """

    def __init__(self, config: RunConfig, store: Store, student: DistillReport, reference: Version) -> None:
        self._config, self._store, self._student, self._reference = config, store, student, reference
        self._tables = list(student.beliefs.values())
        self._read = lru_cache(_KEPT_TABLES)(lambda i: store.read_table(self._tables[i]))
        self._index: pl.DataFrame | None = None
        self._load = lru_cache(1)(lambda: load_student(config, student))

    def of(self, texts: TableRef) -> TableRef:
        """The table of beliefs about a shard, under beliefs/1; one that was distilled with has it already."""
        if texts.sha256 in self._student.beliefs:
            return self._student.beliefs[texts.sha256]
        key = fingerprint([self._student.key, texts.sha256, __version__])
        if done := self._store.find_done("believe", key, BeliefReport):
            return done.beliefs
        rows = self._store.read_table(texts)
        frame = rows.join(self._old(rows), on="doc_id", how="left", maintain_order="left")
        is_new = frame["belief"].is_null()
        asked = frame.filter(is_new)
        said = asked.select("doc_id", belief=_as_lists(self._ask(asked["text"].to_list())))
        known = pl.concat([frame.filter(~is_new).select("doc_id", "belief"), said])
        ordered = rows.select("doc_id").join(known, on="doc_id", maintain_order="left")
        path = f"beliefs/{self._student.key}-{key}.parquet"
        report = BeliefReport(beliefs=self._store.write_table(path, ordered, BELIEFS))
        self._store.mark_done("believe", key, report)
        return report.beliefs

    def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, len(self._config.task.labels)), dtype=np.float32)
        return self._load().predict(texts)

    def _old(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Beliefs about those of the texts that the student learned from."""
        if self._index is None:
            self._index = self._make_index()
        wanted = rows.select("doc_id", id=pl.col("doc_id").hash(), text=pl.col("text").hash())
        found = wanted.join(self._index, on=["id", "text"], how="inner")
        tables = (self._read(i) for i in sorted(found["table"].unique()))
        return pl.concat(
            [
                pl.DataFrame(schema=BELIEFS.columns),
                *(table.join(found, on="doc_id", how="semi", maintain_order="left") for table in tables),
            ]
        ).unique("doc_id", keep="first", maintain_order=True)

    def _make_index(self) -> pl.DataFrame:
        """Hashes of id and text of each text that was learned from, and the number of its table."""
        with told_reading(self._reference):
            rows = scan_version(self._reference).select(id=pl.col("doc_id").hash(), text=pl.col("text").hash())
            shown = rows.collect()
        ids = [
            self._store.read_table(table, columns=["doc_id"]).select(id=pl.col("doc_id").hash(), table=pl.lit(i))
            for i, table in enumerate(self._tables)
        ]
        return pl.concat(ids).join(shown, on="id", how="inner")


def _as_lists(P: NDArray[np.float32]) -> pl.Series:
    return pl.Series("belief", P).arr.to_list() if len(P) else pl.Series("belief", [], dtype=BELIEFS.columns["belief"])
