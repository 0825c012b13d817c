"""Losses in torch, equal to their NumPy reference in `candist_core.losses`.

b texts, k labels; logits (b, k) float32, Q (b, k) and power (b,) as in the reference. Gradients flow through logits
alone: whatever is refined with the belief is held fixed.
"""

import torch

from candist_core.losses import Loss


def row_losses(loss: Loss, logits: torch.Tensor, Q: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """The loss of each text, (b,)."""
    if loss is Loss.LEVERAGED:
        return (Q.abs() * torch.sigmoid(-Q.sign() * logits)).sum(dim=1)
    logs = torch.log_softmax(logits, dim=1)
    if loss is Loss.LIKELIHOOD:
        return -torch.logsumexp(logs + Q.log(), dim=1)
    if loss is Loss.GENERALISED:
        exponents = power[:, None]
        return (Q * (1 - torch.exp(exponents * logs)) / exponents).sum(dim=1)
    return -(soft_targets(loss, logits, Q, power) * logs).sum(dim=1)


@torch.no_grad()
def soft_targets(loss: Loss, logits: torch.Tensor, Q: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """What each row is trained towards just now, as a distribution over labels, (b, k), held fixed."""
    if loss in (Loss.LIKELIHOOD, Loss.REFINED):
        exponents = power[:, None] if loss is Loss.REFINED else 1.0
        return torch.softmax(exponents * (torch.log_softmax(logits, dim=1) + Q.log()), dim=1)
    if loss is Loss.LEVERAGED:
        inside = Q.clamp(min=0)
        return inside / inside.sum(dim=1, keepdim=True)
    return Q
