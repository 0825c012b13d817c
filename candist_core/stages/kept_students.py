"""A student that stays while rows that it learned from are forgotten: its notes about them go, its weights do not."""

import secrets

from candist_core.edges.store import Store
from candist_core.forgotten import Forgotten
from candist_core.reports import DistillReport
from candist_core.tables import BELIEFS, REVIEWED, Contract, TableRef


def forget_in_student(store: Store, key: str, forgotten: Forgotten) -> bool:
    """Write a student's tables once more without some rows; False where the student is not whole, and may go.

    The new tables come first, then the marker that names them; the old ones are left to the caller.
    """
    report = store.find_done("distill", key, DistillReport)
    if report is None:
        return False

    def without(table: TableRef, contract: Contract) -> TableRef:
        frame = store.read_table(table)
        is_gone = forgotten.is_id(frame["doc_id"])
        if not is_gone.any():
            return table
        # A second time in the place of the first token, so that names do not grow.
        stem = table.uri.removesuffix(".parquet").split("-")
        path = "-".join([*stem[: 2 if contract is BELIEFS else 1], secrets.token_hex(4)])
        return store.write_table(f"{path}.parquet", frame.filter(~is_gone), contract)

    beliefs = {shard: without(table, BELIEFS) for shard, table in report.beliefs.items()}
    reviewed = without(report.reviewed, REVIEWED)
    store.mark_done("distill", key, report.model_copy(update={"beliefs": beliefs, "reviewed": reviewed}))
    return True
