"""A person's word in the middle of a run: it pauses in Prefect until somebody answers, in the UI or by the API.

Only a run of a deployment asks: others have nobody who looks. While it waits, its process stays and starts nothing.
Before the run that means that nothing is paid; at a shard's check, the groups of shards that are under way beside it go
on to their end, or to a failed check of their own, and what they pay for is kept.
"""

from prefect import runtime
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from candist_core.config import RunConfig
from candist_core.errors import RefusedError
from flows.gate import Ask

WAIT_S = 24 * 3600
"""An answer is waited for so long; then the run ends as if refused."""

_POLL_S = 3


class Answer(RunInput):
    """What the person answers; the form that the Prefect UI shows on Resume."""

    go_on: bool = Field(False, title="Go on", description="On: the run goes on. Off: it ends here.")
    note: str = Field("", max_length=500, title="Note", description="Why, for those who read the version later.")


def person_to_ask() -> Ask | None:
    """The way to ask a person in this run, if it has one."""
    return _ask if runtime.deployment.id else None


def approve_cost(config: RunConfig) -> None:
    """Ask before a run that is estimated above `budget.approve_above_usd`, or whose price nobody knows.

    Raises:
        RefusedError: the person says no, or nobody answers.
    """
    bound, ask = config.budget.approve_above_usd, person_to_ask()
    if bound is None or ask is None:
        return
    from candist_core.stages.estimate import estimate_run

    expected = estimate_run(config)
    if expected.cost_usd is not None and expected.cost_usd <= bound:
        return
    cost = "an unknown sum" if expected.cost_usd is None else f"about ${expected.cost_usd:.2f}"
    calls = expected.calls
    question = (
        f"This run would cost **{cost}** for {calls.n_calls:,} calls ({calls.prompt_tokens:,} tokens in, "
        f"{calls.completion_tokens:,} out); it is to ask above ${bound:.2f}."
    )
    ask(f"estimated cost, {cost}", question)


def _ask(what: str, question: str) -> str:
    try:
        answer = pause_flow_run(
            wait_for_input=Answer.with_initial_data(description=question), timeout=WAIT_S, poll_interval=_POLL_S
        )
    except FlowPauseTimeout as silence:
        raise RefusedError(what, f"nobody answered within {WAIT_S // 3600} hours") from silence
    if not answer.go_on:
        raise RefusedError(what, answer.note)
    return answer.note
