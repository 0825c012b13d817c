import numpy as np
import pytest
import torch

from candist_core.answers import read_answers
from candist_core.errors import StudentError
from candist_core.losses import Loss
from candist_core.memory import begin
from candist_core.recipe import RECIPES, find_recipe
from candist_core.refine import Targets, refine
from candist_core.student.device import Device
from candist_core.student.head import Head, HeadLearner, HeadSettings
from candist_core.student.step import Extras, backward_in_parts, batch_loss, extras_of

CPU = Device("cpu", torch.float32, "test")
NONE = Extras(consistency=False, mixup=False, weight=1.0)


def learner(n=12, d=6, k=4, dropout=0.0):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HeadLearner(Head(d, k, HeadSettings(hidden=8, dropout=dropout)), X, 4, CPU)


def targets(n=12, k=4, kept=None):
    nobody = np.zeros(n, dtype=bool)
    Q = np.random.default_rng(1).dirichlet(np.ones(k), size=n).astype(np.float32)
    kept = np.ones(n, dtype=bool) if kept is None else kept
    Q[~kept] = 0
    return Targets(Loss.CROSS_ENTROPY, Q, np.ones(n, dtype=np.float32), kept, nobody, nobody)


def loss_of(student, aims, rows, extras=NONE, seed=0):
    return batch_loss(student, rows, aims, extras, len(rows), np.random.default_rng(seed))


def test_without_extras_the_loss_is_the_mean_cross_entropy_of_torch():
    student, aims, rows = learner(), targets(), np.arange(5)
    expected = torch.nn.functional.cross_entropy(student.logits(rows), torch.from_numpy(aims.Q[rows]))
    torch.testing.assert_close(loss_of(student, aims, rows), expected)


def test_rows_without_a_target_add_nothing_but_count_in_the_batch():
    kept = np.arange(12) < 4
    student, aims = learner(), targets(kept=kept)
    alone = loss_of(student, aims, np.arange(4))
    torch.testing.assert_close(loss_of(student, aims, np.array([7, 0, 1, 9, 2, 3, 10, 11])), alone / 2)


def test_consistency_of_a_text_without_target_is_the_divergence_of_its_two_views():
    student, aims, rows = learner(), targets(kept=np.zeros(12, dtype=bool)), np.arange(6)
    found = loss_of(student, aims, rows, Extras(consistency=True, mixup=False, weight=0.5), seed=3)
    p = torch.softmax(student.logits(rows), dim=1)
    view = torch.softmax(student.logits(rows, rng=np.random.default_rng(3)), dim=1)
    torch.testing.assert_close(found, 0.5 * (p * (p / view).log()).sum() / 6)
    # The first view is held fixed: only the second one's gradient is left, (view - p) / b by its logits.
    assert found > 0


def test_consistency_of_a_text_with_target_teaches_its_view_the_same_target():
    student, aims, rows = learner(), targets(), np.arange(6)
    found = loss_of(student, aims, rows, Extras(consistency=True, mixup=False, weight=1.0), seed=3)
    Q = torch.from_numpy(aims.Q[rows])
    view = student.logits(rows, rng=np.random.default_rng(3))
    second = torch.nn.functional.cross_entropy(view, Q)
    torch.testing.assert_close(found, loss_of(student, aims, rows) + second)


def test_mixed_embeddings_learn_mixed_targets():
    student, aims, rows = learner(), targets(), np.arange(2)
    found = loss_of(student, aims, rows, Extras(consistency=False, mixup=True, weight=1.0), seed=0)
    values = []
    rng = np.random.default_rng(0)
    share = rng.beta(4, 4)
    partners = rng.permutation(2)
    share = min(share, 1 - share)
    X, Q = torch.from_numpy(student.X[rows]), torch.from_numpy(aims.Q[rows])
    values = [(1 - share) * M + share * M[torch.from_numpy(partners)] for M in (X, Q)]
    mixed = torch.nn.functional.cross_entropy(student.network(values[0]), values[1])
    torch.testing.assert_close(found, loss_of(student, aims, rows) + mixed)


def test_the_ramp_grows_in_even_steps_to_one():
    recipe = find_recipe("ca_cc", ramp_epochs=4)
    assert [extras_of(recipe, epoch).weight for epoch in (1, 2, 4, 9)] == [0.25, 0.5, 1, 1]
    assert extras_of(find_recipe("ca_cc", ramp_epochs=0), 1).weight == 1


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_steps_with_all_extras(name):
    student, recipe = learner(), find_recipe(name, consistency=True, mixup=True, held_out_share=0.0)
    S = np.eye(4, dtype=bool)[np.arange(12) % 4]
    S[:3] = False
    answers = read_answers(S, np.where(S, 0, -1), recipe, seed=0)
    aims = refine(answers, recipe, begin(answers, recipe))
    loss = batch_loss(student, np.arange(12), aims, extras_of(recipe, 5), 12, np.random.default_rng(0))
    loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in student.network.parameters())


def gradient(student):
    return torch.cat([weight.grad.flatten() for weight in student.network.parameters()])


class Narrow:
    """A step on a device that holds so many rows at once."""

    def __init__(self, student, aims, room, n_batch):
        self.student, self.aims, self.room, self.n_batch, self.tried = student, aims, room, n_batch, []

    def __call__(self, rows):
        self.tried.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch_loss(self.student, rows, self.aims, NONE, self.n_batch, np.random.default_rng(0))


def test_a_batch_that_does_not_fit_is_taken_in_halves_with_the_same_gradient():
    student, aims, rows = learner(), targets(), np.arange(12)
    optimizer = torch.optim.SGD(student.network.parameters(), lr=0.1)
    whole, _ = backward_in_parts(Narrow(student, aims, 12, 12), rows, 2**31, optimizer)
    expected = gradient(student).clone()
    step = Narrow(student, aims, 4, 12)
    parts, fits = backward_in_parts(step, rows, 2**31, optimizer)
    assert step.tried == [12, 6, 3, 3, 3, 3]
    assert fits == 3
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient(student), expected)


def test_memory_that_ends_in_the_middle_of_a_batch_starts_it_anew():
    student, aims, rows = learner(), targets(), np.arange(12)
    optimizer = torch.optim.SGD(student.network.parameters(), lr=0.1)
    backward_in_parts(Narrow(student, aims, 12, 12), rows, 12, optimizer)
    expected, calls = gradient(student).clone(), []

    def step(part):
        calls.append(len(part))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch_loss(student, part, aims, NONE, 12, np.random.default_rng(0))

    backward_in_parts(step, rows, 6, optimizer)
    assert calls == [6, 6, 3, 3, 3, 3]
    torch.testing.assert_close(gradient(student), expected)


def test_a_text_that_does_not_fit_alone_is_one_sentence():
    student, aims = learner(), targets()
    optimizer = torch.optim.SGD(student.network.parameters(), lr=0.1)
    with pytest.raises(StudentError, match="too little memory for one text") as caught:
        backward_in_parts(Narrow(student, aims, 0, 12), np.arange(12), 2**31, optimizer)
    assert "\n" not in str(caught.value)
