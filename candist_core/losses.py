"""Losses of one text each, by one signature: the NumPy reference of the torch path in the student.

b texts, k labels; Z (b, k) logits, P = softmax(Z), Q (b, k) the row that the loss is taken against, power (b,).
Every loss is a function (Z, Q, power) -> (b,), and so is its gradient by Z, (b, k). What Q and power mean:

    cross_entropy   -Σ_j Q_j log P_j                       Q a distribution; power unused
    likelihood      -log Σ_j Q_j P_j                       Q the chance of the teacher's answer if j is true, or S
    refined         -Σ_j T_j log P_j, T ∝ (Q_j P_j)^power  Q weights of the candidates; T is held fixed
    generalised     Σ_j Q_j (1 - P_j^power) / power        Q a distribution
    leveraged       Σ_j |Q_j| / (1 + exp(±Z_j))            Q weights, positive inside the set, negative outside

Invariant: at power 1 the gradient of refined is that of likelihood; with Q = S that is the CC loss.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Loss(StrEnum):
    """Forms of loss.

    Source:
        likelihood with Q = S: Feng et al., Provably Consistent Partial-Label Learning, NeurIPS 2020 (CC).
        generalised: Zhang and Sabuncu, Generalized Cross Entropy Loss, NeurIPS 2018; summed over candidates, Lv et
        al., On the Robustness of Average Losses for Partial-Label Learning, 2023.
        leveraged: Wen et al., Leveraged Weighted Loss for Partial Label Learning, ICML 2021, with sigmoid loss.
    """

    CROSS_ENTROPY = "cross_entropy"
    LIKELIHOOD = "likelihood"
    REFINED = "refined"
    GENERALISED = "generalised"
    LEVERAGED = "leveraged"


def log_softmax(Z: Floats) -> Floats:
    """Log-probabilities, (b, k), from logits or from log-probabilities themselves.

    Example:
        >>> log_softmax(np.array([[0.0, 0.0]])).round(3).tolist()
        [[-0.693, -0.693]]
    """
    shifted = Z - Z.max(axis=1, keepdims=True)
    logs: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def row_losses(loss: Loss, Z: Floats, Q: Floats, power: Floats) -> Floats:
    """The loss of each text, (b,).

    Args:
        loss: which form.
        Z: (b, k) logits.
        Q: (b, k), not all zero in a row.
        power: (b,), above zero.

    Example:
        >>> Z, ones = np.log([[0.6, 0.3, 0.1]]), np.ones(1)
        >>> row_losses(Loss.LIKELIHOOD, Z, np.array([[1, 1, 0]]), ones).round(3).tolist()
        [0.105]
    """
    logs = log_softmax(Z)
    losses: Floats
    if loss is Loss.LIKELIHOOD:
        losses = -_log_sum(logs + _log(Q))
    elif loss is Loss.GENERALISED:
        exponents = power[:, None]
        losses = (Q * (1 - np.exp(exponents * logs)) / exponents).sum(axis=1)
    elif loss is Loss.LEVERAGED:
        losses = (np.abs(Q) * _sigmoid(-np.sign(Q) * Z)).sum(axis=1)
    else:
        losses = -(soft_targets(loss, Z, Q, power) * logs).sum(axis=1)
    return losses


def loss_gradients(loss: Loss, Z: Floats, Q: Floats, power: Floats) -> Floats:
    """The gradient of each text's loss by its logits, (b, k); the target of refined is held fixed.

    Example:
        >>> Z, ones = np.log([[0.6, 0.3, 0.1]]), np.ones(1)
        >>> loss_gradients(Loss.CROSS_ENTROPY, Z, np.array([[1.0, 0.0, 0.0]]), ones).round(3).tolist()
        [[-0.4, 0.3, 0.1]]
    """
    P = np.exp(log_softmax(Z))
    gradients: Floats
    if loss is Loss.GENERALISED:
        pull = Q * P ** power[:, None]
        gradients = P * pull.sum(axis=1, keepdims=True) - pull
    elif loss is Loss.LEVERAGED:
        gradients = -Q * _sigmoid(Z) * _sigmoid(-Z)
    else:
        T = soft_targets(loss, Z, Q, power)
        gradients = P * T.sum(axis=1, keepdims=True) - T
    return gradients


def soft_targets(loss: Loss, Z: Floats, Q: Floats, power: Floats) -> Floats:
    """What each row is trained towards just now, as a distribution over labels, (b, k).

    For likelihood and refined it is the belief weighed by Q, for leveraged the weights inside the set, else Q.

    Example:
        >>> Z, Q = np.log([[0.6, 0.2, 0.2]]), np.array([[0.0, 0.5, 0.5]])
        >>> soft_targets(Loss.REFINED, Z, Q, np.ones(1)).round(2).tolist()
        [[0.0, 0.5, 0.5]]
    """
    targets: Floats
    if loss in (Loss.LIKELIHOOD, Loss.REFINED):
        exponents = power[:, None] if loss is Loss.REFINED else 1.0
        targets = np.exp(log_softmax(exponents * (log_softmax(Z) + _log(Q))))
    elif loss is Loss.LEVERAGED:
        inside = np.maximum(Q, 0.0)
        targets = inside / inside.sum(axis=1, keepdims=True)
    else:
        targets = Q
    return targets


def _log(Q: Floats) -> Floats:
    # A mask would be taken to float16.
    rows = np.asarray(Q, dtype=np.result_type(Q, np.float32))
    logs: Floats = np.log(rows, out=np.full_like(rows, -np.inf), where=rows > 0)
    return logs


def _log_sum(logs: Floats) -> Floats:
    peak = logs.max(axis=1)
    total: Floats = peak + np.log(np.exp(logs - peak[:, None]).sum(axis=1))
    return total


def _sigmoid(Z: Floats) -> Floats:
    # tanh neither overflows nor warns where exp would.
    values: Floats = 0.5 * (1 + np.tanh(0.5 * Z))
    return values
