"""Other looks at the same texts: words left out, embeddings mixed.

b texts. Chance comes from the generator that is passed in. Invariant: no text loses all its words, and a network is
as before once `mixing` is left.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

WORD_DROP = 0.1
"""Share of a text's tokens, or of an embedding's numbers, that a perturbed view lacks (EDA, Wei and Zou 2019)."""

_BETA = 4.0
"""Both parameters of the Beta distribution that shares are drawn from (CanDist, appendix A.2)."""


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """Row i of a batch is mixed with row `partners`[i], of which it takes `share`, at most a half, (b,) int64."""

    partners: NDArray[np.int64]
    share: float

    def blend(self, rows: torch.Tensor) -> torch.Tensor:
        """(1 - share) · row + share · partner, (b, ...)."""
        return torch.lerp(rows, rows[torch.from_numpy(self.partners).to(rows.device)], self.share)


def draw_mix(n_kept: int, n: int, rng: np.random.Generator) -> Mix:
    """Pair the first `n_kept` of n rows with one another; the others stay by themselves.

    Source:
        Zhang et al., mixup, ICLR 2018; the larger share stays with the row itself (MixMatch, NeurIPS 2019).
    """
    share = float(rng.beta(_BETA, _BETA))
    partners = np.concatenate([rng.permutation(n_kept), np.arange(n_kept, n)]).astype(np.int64)
    return Mix(partners, min(share, 1 - share))


def drop_words(
    tokens: Sequence[Sequence[int]], specials: Collection[int], rng: np.random.Generator, share: float = WORD_DROP
) -> list[list[int]]:
    """Leave out a share of each text's tokens by chance, never the special ones, and never all others.

    Example:
        >>> drop_words([[1, 7, 8, 2]], {1, 2}, np.random.default_rng(0), share=1.0)
        [[1, 7, 8, 2]]
    """
    views = []
    for text in tokens:
        stays = rng.random(len(text)) >= share
        view = [token for token, stay in zip(text, stays, strict=True) if stay or token in specials]
        views.append(view if any(token not in specials for token in view) else list(text))
    return views


@contextmanager
def mixing(network: Any, mix: Mix) -> Iterator[None]:
    """Let a classifier return 2b rows of logits for b texts: the plain ones, then the mixed ones.

    What is mixed is the first thing that the encoder hands to the head, so the encoder runs once for both.
    """
    has_mixed = False

    def double(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        nonlocal has_mixed
        if has_mixed:
            return None
        has_mixed = True
        return (torch.cat([args[0], mix.blend(args[0])]), *args[1:])

    of_head = [child for child in network.children() if child is not network.base_model]
    handles = [child.register_forward_pre_hook(double) for child in of_head]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
