"""How long, on how many workers and for how much a sampled run over very many texts would take: a simulation.

`python -m tests.benchmarks.simulate_scale` prints the tables of `docs/scale.md`. Costs are the measured ones of
`COSTS`; what was not measured here is an option, and said so in the table. Tasks go from one flow process, one after
another, to workers that take one at a time; a task's time is drawn around its mean, and a worker may be lost with its
task, which then runs again.
"""

import argparse
import heapq
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured: seconds of one core a million short texts, bytes a text, seconds a task.

    `ingest` to `publish`: `docs/performance.md`, "Ten million texts"; `static` and `frozen`: prediction by kind of
    student; `submit` and `task`: one Prefect task on Dask, in the flow process and on the worker.
    """

    ingest: float = 6.0
    sample: float = 0.6
    evaluate: float = 2.0
    check: float = 1.9
    publish: float = 7.4
    static: float = 56.0
    frozen: float = 3_200.0
    fixed_s: float = 900.0
    submit_s: float = 0.038
    task_s: float = 0.06
    start_s: float = 8.0
    store_bytes: float = 116.0
    seen_bytes: float = 80.0
    manifest_bytes: float = 210.0
    prefect_bytes: float = 24_000.0


COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Plan:
    """A run: rows, rows a shard, workers, rows a second that one of them labels, US dollars an hour for one.

    `n_parts`: corpora that the rows are cut into, each with a run, and a machine for its flow, of its own at the same
    time; `n_grouped`: shards that one Prefect task labels.
    """

    n_rows: int
    shard_rows: int
    n_workers: int
    rows_per_s: float
    usd_per_hour: float
    n_parts: int = 1
    n_grouped: int = 1
    lost_share: float = 0.001


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; times in seconds."""

    serial_s: float
    predict_s: float
    n_tasks: int
    busy_share: float
    cost_usd: float
    ingest_gib: float
    requests: int
    manifest_mib: float
    prefect_gib: float

    @property
    def hours(self) -> float:
        """From the first row read to the manifest."""
        return (self.serial_s + self.predict_s) / 3600


def simulate(plan: Plan, costs: Costs = COSTS, seed: int = 0) -> Outcome:
    """Run the plan's predict stage task by task, and add the stages that run in the flow's own process.

    Example:
        >>> few, many = (simulate(Plan(10_000_000, 50_000, n, 10_000, 0.1)) for n in (2, 4))
        >>> 1.8 < few.predict_s / many.predict_s < 2.2
        True
    """
    rows = plan.n_rows // plan.n_parts
    n_shards = -(-rows // plan.shard_rows)
    n_tasks = -(-n_shards // plan.n_grouped)
    a_task = plan.shard_rows * plan.n_grouped / plan.rows_per_s
    makespan, busy = _schedule(n_tasks, max(1, plan.n_workers // plan.n_parts), a_task, plan, costs, seed)
    serial = rows / 1e6 * (costs.ingest + costs.sample + costs.evaluate + costs.check + costs.publish) + costs.fixed_s
    hours = (serial + makespan) / 3600
    # Workers are held while there is something to label, the flow's machine throughout.
    usd = plan.n_workers * plan.usd_per_hour * makespan / 3600 + plan.n_parts * FLOW_USD * hours
    return Outcome(
        serial_s=serial,
        predict_s=makespan,
        n_tasks=n_tasks * plan.n_parts,
        busy_share=busy,
        cost_usd=usd,
        ingest_gib=rows * costs.seen_bytes / 2**30,
        # Examples, texts, labels, done-markers: written once, read once or twice; and the published parts.
        requests=plan.n_parts * (n_shards * 14 + rows // 50_000 * 4),
        manifest_mib=rows / 50_000 * costs.manifest_bytes / 2**20,
        prefect_gib=n_tasks * costs.prefect_bytes / 2**30,
    )


FLOW_USD = 0.40
"""US dollars an hour for the machine of one flow, eight cores and 64 GB; a list price, not measured."""


def _schedule(n_tasks: int, n_workers: int, a_task: float, plan: Plan, costs: Costs, seed: int) -> tuple[float, float]:
    """Seconds until the last task ends, and the share of that time that workers label."""
    rng = np.random.default_rng(seed)
    # Times scatter by a tenth, as shards of equal length do.
    left = [(float(t), False) for t in a_task * rng.lognormal(0, 0.1, n_tasks) + costs.task_s]
    free, now, last, labelled = [costs.start_s] * n_workers, 0.0, 0.0, 0.0
    heapq.heapify(free)
    while left:
        seconds, is_again = left.pop()
        start = max(heapq.heappop(free), now)
        # One process submits: a task waits for the one before to be sent.
        now = max(now, start) + costs.submit_s if start <= now else start + costs.submit_s
        if not is_again and rng.random() < plan.lost_share:
            seconds_lost = seconds * rng.random()
            left.insert(0, (seconds, True))
            heapq.heappush(free, start + seconds_lost + costs.start_s)
            continue
        heapq.heappush(free, start + seconds)
        last, labelled = max(last, start + seconds), labelled + seconds
    return last, labelled / (last * n_workers)


def row_of(name: str, plan: Plan) -> str:
    """One line of the table."""
    found = simulate(plan)
    cells = [
        name, f"{plan.n_rows / 1e6:,.0f} M", f"{plan.n_workers:,}", f"{plan.n_parts}", f"{found.n_tasks:,}",
        f"{found.serial_s / 3600:.1f}", f"{found.predict_s / 3600:.2f}", f"{found.hours:.1f}",
        f"{found.busy_share:.0%}", f"{found.cost_usd:,.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def limits_of(plan: Plan) -> str:
    """One line about what a run of its own holds."""
    found = simulate(plan)
    cells = [
        f"{plan.n_rows / 1e6:,.0f} M", f"{plan.n_parts}", f"{found.ingest_gib:.1f}", f"{found.requests:,}",
        f"{found.manifest_mib:.2f}", f"{found.prefect_gib:.2f}", f"{plan.n_rows * COSTS.store_bytes / 2**30:,.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Parse the arguments and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu-rows-per-s", type=float, default=15_000, help="frozen encoder on one GPU; not measured")
    parser.add_argument("--gpu-usd", type=float, default=2.5, help="one GPU worker an hour; a list price")
    parser.add_argument("--cpu-usd", type=float, default=0.05, help="one core an hour; a list price")
    options = parser.parse_args()
    static = Plan(100_000_000, 50_000, 16, 1e6 / COSTS.static, options.cpu_usd)
    frozen = replace(static, rows_per_s=1e6 / COSTS.frozen)
    gpu = replace(static, n_workers=4, rows_per_s=options.gpu_rows_per_s, usd_per_hour=options.gpu_usd)
    billion = {"n_rows": 1_000_000_000, "n_parts": 20}
    rows = [
        ("static, cores", static),
        ("static, cores", replace(static, n_workers=64)),
        ("frozen, cores", replace(frozen, n_workers=256)),
        ("frozen, GPUs", gpu),
        ("frozen, GPUs", replace(gpu, n_workers=16)),
        ("static, cores", replace(static, n_workers=64, n_rows=1_000_000_000)),
        ("static, cores", replace(static, n_workers=160, **billion)),
        ("frozen, GPUs", replace(gpu, n_workers=40, **billion)),
    ]
    print("| student | texts | workers | runs | tasks | other stages (h) | predict (h) | all (h) | busy | US dollars |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(row_of(name, plan) for name, plan in rows))
    print(
        "\n| texts | runs | ingest holds (GiB) | requests to the store | manifest (MiB) | Prefect's database (GiB) "
        "| store (GiB) |"
    )
    print("|---|---|---|---|---|---|---|")
    plans = (static, replace(static, n_rows=1_000_000_000), replace(static, **billion))
    print("\n".join(limits_of(plan) for plan in plans))


if __name__ == "__main__":
    main()
