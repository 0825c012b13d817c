"""One of several processes that train the same student: each takes its part of every batch, gradients are added up.

n texts, b batch, k labels. All processes hold the same weights and the same targets, and draw the same batches; what
one of them sees of a batch is its share. After a step the weights are those of the whole batch, but for rounding and
for what chance draws in each share.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed


@dataclass(frozen=True, slots=True)
class Group:
    """This process among those that train together, over `torch.distributed` where there is more than one.

    Attributes:
        rank: this process, from 0.
        world: how many there are.

    Example:
        >>> Group(1, 3).share(np.arange(7))
        array([1, 4])
        >>> ALONE.share(np.arange(3))
        array([0, 1, 2])
    """

    rank: int = 0
    world: int = 1

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that are this process's; of few rows it may be none."""
        return rows[self.rank :: self.world]

    def agree(self, network: torch.nn.Module) -> None:
        """All take the weights of the first, which new heads were drawn for."""
        if self.world > 1:
            for weight in (*network.parameters(), *network.buffers()):
                distributed.broadcast(weight.detach(), src=0)

    def add_up(self, loss: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        """Make the gradients those of the whole batch, on every process; returns the whole batch's loss.

        Args:
            loss: of this process's share, a scalar; the shares' losses add up to the batch's.
            network: with the gradients of this process's share.
        """
        if self.world == 1:
            return loss
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        for weight in weights:
            # A share of no rows has none.
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        total = loss.to(weights[0].device)
        works = [distributed.all_reduce(part, async_op=True) for part in (total, *_gradients(network))]
        for work in works:
            work.wait()
        return total

    def gather(self, share: NDArray[np.float32], n: int, device: str) -> NDArray[np.float32]:
        """(n, k), on every process.

        Args:
            share: (rows of this process, k), in the order of `share`.
            n: rows of all.
            device: where the processes' tensors meet.
        """
        if self.world == 1:
            return share
        longest = -(-n // self.world)
        padded = torch.zeros((longest, share.shape[1]), device=device)
        padded[: len(share)] = torch.from_numpy(share)
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded)
        # Row i of the whole is row i // world of the share of process i % world.
        whole: NDArray[np.float32] = torch.stack(parts, dim=1).flatten(0, 1)[:n].cpu().numpy()
        return whole


ALONE = Group()


def _gradients(network: torch.nn.Module) -> Iterator[torch.Tensor]:
    return (weight.grad for weight in network.parameters() if weight.grad is not None)
