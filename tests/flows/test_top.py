"""A run watched while it goes on."""

import io

from rich.console import Console

from candist_core.config import RunConfig
from candist_core.reports import Usage
from candist_core.stages.status import RunStatus, StageStatus
from flows.top import Pace, watch_run
from tests.flows.corpora import demo_config


def state_of(n_annotated: int, n_predicted: int = 0, failed: tuple[str, ...] = ()) -> RunStatus:
    stages = (
        StageStatus("annotate", n_annotated, 40, "shards"),
        StageStatus("predict", n_predicted, 40 if n_predicted else 0, "shards"),
    )
    return RunStatus(stages, Usage(n_requests=1200, cost_usd=0.5, reused_usd=0.25), (), failed)


class Watched:
    """A run that is in the next of some states at each look, and a clock that moves by waiting."""

    def __init__(self, *states: RunStatus) -> None:
        self.states, self.now_s, self.waits = list(states), 0.0, list[float]()

    def look(self, config: RunConfig) -> RunStatus:
        self.now_s += 0.5
        return self.states.pop(0)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds

    def seen(self, config: RunConfig, is_terminal: bool = True) -> str:
        out = io.StringIO()
        console = Console(file=out, force_terminal=is_terminal, width=110, color_system=None)
        watch_run(console, config, 2.0, self.look, lambda: self.now_s, self.wait)
        return out.getvalue()


def test_it_shows_rate_and_time_left_and_ends_with_the_last_stage(tmp_path):
    watched = Watched(state_of(10), state_of(20), state_of(40, 20), state_of(40, 40))
    seen = watched.seen(demo_config(tmp_path, n=1))
    assert watched.states == []
    assert "20 of 40 shards" in seen
    # Ten shards in 5.5 s between two looks.
    assert "109.1" in seen
    assert "0:00:11" in seen
    assert "1,200 replies, $0.7500" in seen


def test_looking_takes_a_tenth_of_the_time_at_most(tmp_path):
    watched = Watched(state_of(10), state_of(40, 40))
    watched.seen(demo_config(tmp_path, n=1))
    assert watched.waits == [5.0]


def test_where_nobody_sees_it_move_it_is_drawn_once(tmp_path):
    watched = Watched(state_of(10, failed=("annotations.unparsed_rate",)), state_of(40, 40))
    seen = watched.seen(demo_config(tmp_path, n=1), is_terminal=False)
    assert len(watched.states) == 1
    assert "10 of 40 shards" in seen
    assert "check failed: annotations.unparsed_rate" in seen
    assert "waits for what is above" in seen


def test_a_stage_that_stands_still_has_no_rate():
    pace = Pace()
    pace.see("annotate", 3, 0.0)
    pace.see("annotate", 3, 60.0)
    assert (pace.per_min("annotate"), pace.left_s("annotate", 40)) == (None, None)
