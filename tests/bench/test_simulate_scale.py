"""The simulation of very large runs: bounded below by the work, slowed by loss and by submission."""

from dataclasses import replace

from tests.benchmarks.simulate_scale import Plan, simulate

PLAN = Plan(n_rows=10_000_000, shard_rows=50_000, n_workers=4, rows_per_s=10_000, usd_per_hour=0.1, lost_share=0.0)


def test_no_run_is_faster_than_its_work_over_its_workers_and_twice_as_many_take_half_as_long():
    found = simulate(PLAN)
    assert 1000 / 4 < found.predict_s < 1.1 * 1000 / 4
    assert 1.8 < found.predict_s / simulate(replace(PLAN, n_workers=8)).predict_s < 2.1
    assert found.n_tasks == 200


def test_tiny_shards_take_as_long_as_one_process_takes_to_submit_them_and_groups_mend_it():
    tiny = replace(PLAN, shard_rows=100, n_workers=1000)
    assert simulate(tiny).predict_s > 100_000 * 0.038
    assert simulate(replace(tiny, n_grouped=100)).predict_s < 100


def test_lost_workers_cost_time_and_no_task():
    assert simulate(replace(PLAN, lost_share=0.2)).predict_s > 1.05 * simulate(PLAN).predict_s
