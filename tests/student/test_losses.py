import numpy as np
import pytest
import torch

import candist_core.losses as reference
from candist_core.losses import Loss
from candist_core.student.losses import row_losses, soft_targets
from tests.core.test_losses import random_rows


def in_torch(*rows):
    return [torch.tensor(row, dtype=torch.float32) for row in rows]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loss", Loss)
def test_losses_gradients_and_targets_equal_their_reference(loss, seed):
    Z, Q, power = random_rows(loss, seed)
    logits, rows, powers = in_torch(Z, Q, power)
    logits.requires_grad_()
    losses = row_losses(loss, logits, rows, powers)
    losses.sum().backward()
    np.testing.assert_allclose(losses.detach(), reference.row_losses(loss, Z, Q, power), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(logits.grad, reference.loss_gradients(loss, Z, Q, power), atol=1e-5)
    found = soft_targets(loss, logits, rows, powers)
    np.testing.assert_allclose(found, reference.soft_targets(loss, Z, Q, power), atol=1e-5)
    assert not found.requires_grad


def test_refining_without_lag_has_the_gradient_of_the_set_likelihood():
    Z, Q, _ = random_rows(Loss.LIKELIHOOD, seed=9)
    gradients = []
    for loss in (Loss.REFINED, Loss.LIKELIHOOD):
        logits, rows, ones = in_torch(Z, Q, np.ones(len(Z)))
        logits.requires_grad_()
        row_losses(loss, logits, rows, ones).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", Loss)
def test_extreme_logits_give_finite_losses_and_gradients(loss):
    logits = torch.tensor([[900.0, -900.0, 0.0], [-900.0, 900.0, 0.0]], requires_grad=True)
    Q = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    losses = row_losses(loss, logits, Q, torch.ones(2))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", Loss)
def test_no_rows_have_no_loss(loss):
    nothing = torch.zeros((0, 3))
    assert row_losses(loss, nothing, nothing, torch.zeros(0)).shape == (0,)
