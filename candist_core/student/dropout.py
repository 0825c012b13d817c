"""Dropout on a CPU at a tenth of torch's price, for as long as a student trains there.

torch draws its masks one number after the other, which took a fifth of a training step of 128-token texts, and its
attention with dropout checks every row for masks that hide it whole. Here a mask is a byte a number, drawn 64 bits at
a time, so rates are multiples of 1/256. Invariant: equal states of torch's generator give equal masks.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

_LEVELS = 256
_SAME_SIZE = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class QuickDropout(TorchFunctionMode):
    """While entered, `dropout` and attention with dropout take their masks from here, on CPU tensors only.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> with QuickDropout():
        ...     torch.nn.functional.dropout(torch.ones(6), 0.5).tolist()
        [0.0, 0.0, 2.0, 2.0, 2.0, 2.0]
    """

    def __init__(self) -> None:
        super().__init__()
        # Seeded from torch, whose state alone then fixes a training.
        self.bits = np.random.SFC64(int(torch.randint(2**62, ()).item()))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Take over the two functions; every other one passes through."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.dropout:
            return self._dropout(*args, **kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(
        self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        cut = round(p * _LEVELS)
        if not training or inplace or not 0 < cut < _LEVELS or not _is_ours(input):
            return torch.nn.functional.dropout(input, p, training, inplace)
        mask, factor = self._mask(input.shape, cut), _LEVELS / (_LEVELS - cut)
        dropped: torch.Tensor = _Drop.apply(input, mask, factor)  # type: ignore[no-untyped-call]
        return dropped

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """(..., t, d). Without dropout torch's own way is as fast, and it never holds all of (t, t)."""
        if not dropout_p or is_causal or enable_gqa or not _is_ours(query):
            return torch.nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        scores = (query * (scale or 1 / sqrt(query.shape[-1]))) @ key.transpose(-1, -2)  # (..., t, t)
        if attn_mask is not None and attn_mask.dtype is torch.bool:
            # The smallest number and not -inf: a row that is hidden whole stays finite.
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return self._dropout(scores.softmax(dim=-1), dropout_p) @ value

    def _mask(self, shape: torch.Size, cut: int) -> torch.Tensor:
        """Ones where a number stays and zeros where it goes, uint8."""
        n = shape.numel()
        drawn = torch.from_numpy(self.bits.random_raw(-(-n // 8)).view(np.uint8)[:n])
        return drawn.ge_(cut).view(shape)


class _Drop(torch.autograd.Function):
    """x · mask · factor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, mask: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(mask)
        ctx.factor = factor
        return _masked(x, mask, factor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _masked(gradients[0], mask, ctx.factor), None, None


def _masked(x: torch.Tensor, mask: torch.Tensor, factor: float) -> torch.Tensor:
    # The numbers' bits times 0 or 1, as integers: torch is six times slower where a float meets another type.
    return (x.view(_SAME_SIZE[x.dtype]) * mask).view(x.dtype).mul_(factor)


def _is_ours(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in _SAME_SIZE
