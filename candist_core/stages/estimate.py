"""Estimate: what a run would ask and pay, from its real prompts and the replies it already has. Sends nothing."""

from dataclasses import dataclass

from candist_core.budget import Estimate, estimate
from candist_core.config import RunConfig, TeacherKind
from candist_core.edges.store import open_store
from candist_core.stages.annotate import open_reply_log, plan_annotation, price_of_teacher
from candist_core.stages.ingest import ingest_corpus

_SAMPLE_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a run would take. `n_texts` distinct texts, of which `n_kept` need no call; `calls` is about the rest."""

    n_rows: int
    n_texts: int
    n_kept: int
    calls: Estimate
    is_paid: bool

    @property
    def cost_usd(self) -> float | None:
        """US dollars still to pay; None where no price is known."""
        return self.calls.cost_usd if self.is_paid else 0.0


def estimate_run(config: RunConfig) -> RunEstimate:
    """Read the corpus into shards (the run will find them), look up kept replies, and foresee the rest."""
    ingested, plan, store = ingest_corpus(config), plan_annotation(config), open_store(config.store)
    log = open_reply_log(plan, store, "estimate")
    n_kept, sample = 0, list[str]()
    for shard in ingested.texts:
        frame = store.read_table(shard)
        n_kept += len(log.lookup(plan.prompt.request(doc_id, text).key for doc_id, text in frame.iter_rows()))
        # A share of every shard, so that a corpus sorted by length is met in full.
        n_wanted = -(-_SAMPLE_ROWS * shard.rows // ingested.n_texts)
        sample += frame["text"].gather_every(max(1, shard.rows // n_wanted)).to_list()
    calls = estimate(
        plan.prompt,
        config.task,
        sample,
        ingested.n_texts - n_kept,
        price=price_of_teacher(config),
        max_in_flight=config.teacher.max_in_flight,
    )
    is_paid = config.teacher.kind is TeacherKind.OPENAI
    return RunEstimate(ingested.n_rows, ingested.n_texts, n_kept, calls, is_paid)
