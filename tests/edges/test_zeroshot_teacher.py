import asyncio
import json
import threading

import numpy as np
import pytest

from candist_core.candidates import Status
from candist_core.edges.zeroshot_teacher import ZeroShotTeacher, describe_label, label_probs, rank_candidates
from candist_core.errors import StudentError
from candist_core.parse import parse_reply
from candist_core.prompt import compile_prompt
from candist_core.spec import LabelSpec, Strategy, TaskSpec
from candist_core.teacher_config import TeacherConfig

AXES = ["lost", "card", "fee", "slow"]


class CountingEmbedder:
    """Unit vectors of the counts of four words and one axis for all others. `batches` keeps what was asked."""

    def __init__(self):
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.failures: list[Exception] = []

    def __call__(self, texts):
        self.gate.wait(timeout=10)
        self.batches.append(list(texts))
        self.threads.add(threading.get_ident())
        if self.failures:
            raise self.failures.pop()
        X = np.zeros((len(texts), len(AXES) + 1), dtype=np.float32)
        for i, text in enumerate(texts):
            for word in text.lower().replace(":", "").split():
                X[i, AXES.index(word) if word in AXES else -1] += 1
        return X / np.linalg.norm(X, axis=1, keepdims=True)


def spec(strategy=Strategy.CA_ADD, max_candidates=5, **examples):
    names = ("lost_card", "fee", "slow")
    labels = [LabelSpec(name=name, examples=examples.get(name, ())) for name in names]
    return TaskSpec(labels=labels, strategy=strategy, max_candidates=max_candidates)


def ask(task, texts, embed=None, **settings):
    """Ask about all texts at once; replies in their order."""

    async def run():
        prompt = compile_prompt(task, TeacherConfig())
        teacher = ZeroShotTeacher(task, embed or CountingEmbedder(), **settings)
        replies = await asyncio.gather(*(teacher.ask(prompt.request(text, text)) for text in texts))
        await teacher.close()
        return replies

    return asyncio.run(run())


def test_the_nearest_label_is_the_single_annotation():
    replies = ask(spec(Strategy.SA), ["my card is lost", "fee fee"])
    assert [reply.reply for reply in replies] == ['{"label":"lost_card"}', '{"label":"fee"}']


@pytest.mark.parametrize("strategy", [Strategy.CA_ADD, Strategy.CA_ALL])
def test_labels_nearly_as_near_as_the_first_are_candidates_in_order(strategy):
    # Cosines to fee and slow: 2/√5 and 1/√5, 0.45 apart, so slow holds exp(-0.9) = 0.41 of fee's probability.
    (reply,) = ask(spec(strategy), ["slow fee fee"], scale=2.0, keep_share=0.4)
    assert json.loads(reply.reply) == {"candidates": ["fee", "slow"]}
    (reply,) = ask(spec(strategy), ["slow fee fee"], scale=2.0, keep_share=0.42)
    assert json.loads(reply.reply) == {"candidates": ["fee"]}


def test_the_whole_label_set_is_never_given():
    (reply,) = ask(spec(), ["nothing known"])
    assert json.loads(reply.reply) == {"candidates": ["lost_card", "fee"]}


def test_sets_hold_at_most_max_candidates():
    (reply,) = ask(spec(max_candidates=1), ["nothing known"])
    assert json.loads(reply.reply) == {"candidates": ["lost_card"]}


def test_a_reply_is_canonical_json_that_costs_nothing_and_parses():
    task = spec()
    (reply,) = ask(task, ["slow"])
    assert reply.cost_usd == 0.0
    assert reply.finish_reason == "stop"
    assert reply.doc_id == "slow"
    assert reply.request_key == compile_prompt(task, TeacherConfig()).request("slow", "slow").key
    parsed = parse_reply(task, reply.reply, reply.finish_reason)
    assert (parsed.labels, parsed.status) == (("slow",), Status.OK)


def test_examples_pull_their_label_towards_them():
    assert json.loads(ask(spec(Strategy.SA), ["odd"])[0].reply) == {"label": "lost_card"}
    with_example = spec(Strategy.SA, slow=("odd", "odd"))
    assert json.loads(ask(with_example, ["odd"])[0].reply) == {"label": "slow"}


def test_label_names_are_written_as_people_write_them():
    assert describe_label(LabelSpec(name="lost-or_stolen card")) == "lost or stolen card"
    assert describe_label(LabelSpec(name="fee", description="A charge.")) == "fee: A charge."
    assert describe_label(LabelSpec(name="__")) == "__"


def test_requests_of_one_moment_are_embedded_together():
    embed = CountingEmbedder()
    ask(spec(), ["slow", "fee", "card"], embed)
    assert embed.batches == [["lost card"], ["fee"], ["slow"], ["slow", "fee", "card"]]


def test_requests_that_arrive_while_a_batch_is_embedded_make_up_the_next():
    embed, task = CountingEmbedder(), spec()

    async def run():
        prompt = compile_prompt(task, TeacherConfig())
        teacher = ZeroShotTeacher(task, embed)
        await teacher.ask(prompt.request("0", "slow"))
        embed.gate.clear()
        asked = [asyncio.create_task(teacher.ask(prompt.request("1", "fee")))]
        await asyncio.sleep(0.02)
        asked += [asyncio.create_task(teacher.ask(prompt.request(text, text))) for text in ("card", "lost")]
        await asyncio.sleep(0.02)
        embed.gate.set()
        await asyncio.gather(*asked)
        await teacher.close()

    asyncio.run(run())
    assert embed.batches[-2:] == [["fee"], ["card", "lost"]]
    assert threading.get_ident() not in embed.threads


def test_an_embedder_that_fails_fails_its_batch_and_not_the_next():
    embed, task = CountingEmbedder(), spec()
    embed.failures.append(StudentError("student.model", "nothing", "weights", "look"))

    async def run():
        prompt = compile_prompt(task, TeacherConfig())
        teacher = ZeroShotTeacher(task, embed)
        first = await asyncio.gather(
            *(teacher.ask(prompt.request(text, text)) for text in ("slow", "fee")), return_exceptions=True
        )
        second = await teacher.ask(prompt.request("slow", "slow"))
        await teacher.close()
        return first, second

    first, second = asyncio.run(run())
    assert [type(error) for error in first] == [StudentError, StudentError]
    assert json.loads(second.reply) == {"candidates": ["slow"]}


def test_a_caller_that_gives_up_does_not_disturb_the_others():
    embed, task = CountingEmbedder(), spec()
    embed.gate.clear()

    async def run():
        prompt = compile_prompt(task, TeacherConfig())
        teacher = ZeroShotTeacher(task, embed)
        asked = [asyncio.create_task(teacher.ask(prompt.request(text, text))) for text in ("slow", "fee")]
        await asyncio.sleep(0.02)
        asked[0].cancel()
        embed.gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    gone, reply = asyncio.run(run())
    assert isinstance(gone, asyncio.CancelledError)
    assert json.loads(reply.reply) == {"candidates": ["fee"]}


def test_closing_waits_for_what_is_under_way_and_may_come_before_any_question():
    embed, task = CountingEmbedder(), spec()

    async def run():
        await ZeroShotTeacher(task, embed).close()
        teacher = ZeroShotTeacher(task, embed)
        request = compile_prompt(task, TeacherConfig()).request("a", "slow")
        asked = asyncio.create_task(teacher.ask(request))
        await asyncio.sleep(0)
        await teacher.close()
        return await asyncio.wait_for(asked, timeout=1)

    assert json.loads(asyncio.run(run()).reply) == {"candidates": ["slow"]}


def test_the_name_tells_kind_and_encoder():
    assert ZeroShotTeacher(spec(), CountingEmbedder(), model="e5").name == "zeroshot:e5"


def test_probabilities_are_the_softmax_of_scaled_similarities():
    P = label_probs(np.array([[0.2, 0.1], [5.0, -5.0]]), scale=10.0)
    np.testing.assert_allclose(P[0], [np.e / (np.e + 1), 1 / (np.e + 1)])
    np.testing.assert_allclose(P[1], [1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("probs", "keep_share", "max_candidates", "wanted"),
    [
        ([0.5, 0.3, 0.2], 0.6, 5, [0, 1]),
        ([0.2, 0.3, 0.5], 0.0, 5, [2, 1]),
        ([0.2, 0.3, 0.5], 0.0, 1, [2]),
        ([0.5, 0.5], 0.0, 5, [0]),
        ([0.4, 0.2, 0.4], 1.0, 5, [0, 2]),
    ],
)
def test_ranked_candidates(probs, keep_share, max_candidates, wanted):
    assert rank_candidates(np.array(probs), keep_share, max_candidates) == wanted
