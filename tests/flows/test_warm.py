"""Imports ahead of need, in fresh processes: nothing is imported there yet."""

import json
import subprocess
import sys
from pathlib import Path

import distributed
import pytest

from flows.clusters import make_cluster
from tasks.warm import warm_up

ROOT = Path(__file__).parents[2]

CHECK_MEANWHILE = """
import json, sys, threading
from tasks.warm import warm_up
before = sys.getswitchinterval()
warm_up(0.0)
from candist_core.checks_config import OnFail
from candist_core.edges.measures import Measure, judge_measures
bounds = {"on_fail": OnFail.FAIL, "at_most": 0.1}
good, bad = Measure("a.rate", 0.0, "", "", **bounds), Measure("b.rate", 0.2, "", "", **bounds)
found = [check.passed for check in judge_measures([good, bad])]
for thread in threading.enumerate():
    if thread.name == "candist imports":
        thread.join()
print(json.dumps([found, "tasks.annotate" in sys.modules, sys.getswitchinterval() == before]))
"""


@pytest.mark.slow
def test_checks_made_while_they_are_imported_are_right():
    command = [sys.executable, "-W", "error", "-c", CHECK_MEANWHILE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert json.loads(done.stdout) == [[True, False], True, True]


def _joined() -> bool:
    import threading

    for thread in threading.enumerate():
        if thread.name == "candist imports":
            thread.join()
    return "great_expectations" in sys.modules


@pytest.mark.slow
def test_workers_import_while_they_have_nothing_to_do():
    with (
        make_cluster(workers=1, processes=True) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.run(warm_up, 0.0)
        assert list(client.run(_joined).values()) == [True]
