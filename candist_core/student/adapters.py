"""Low-rank adapters: an encoder that stays as it is but for small matrices beside its own, and a new head.

Needs peft, the extra `lora`. Invariant: once merged, a network has the layers and the names that it had before, so
whoever reads a student needs no peft.
"""

import importlib
from typing import Any

import torch

from candist_core.errors import StudentError

SCALE = 2
"""What the adapters add is weighed by this, whatever their rank (alpha is twice the rank, as usual)."""
DROPOUT = 0.05


def add_adapters(network: Any, rank: int) -> Any:
    """Put adapters of some rank beside every linear layer of the encoder, and fix all else but the head, in place.

    Args:
        network: a `transformers` classifier.
        rank: 1 or more.

    Returns:
        What `merge_adapters` takes.

    Raises:
        StudentError: peft is not installed, or the encoder has no linear layer.

    Source:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
    """
    try:
        peft = importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise StudentError(
            "student.lora_rank", f"{rank} without peft", "the extra lora", 'pip install "candist[lora]"'
        ) from error
    encoder = network.base_model
    prefix = network.base_model_prefix
    linear = [f"{prefix}.{name}" for name, layer in encoder.named_modules() if isinstance(layer, torch.nn.Linear)]
    # The pooler is new wherever the head is, and learns as a whole.
    targets = [name for name in linear if "pooler" not in name]
    if not targets:
        raise StudentError(
            "student.lora_rank",
            f"{rank} for an encoder without linear layers",
            "0 for it",
            "set student.lora_rank to 0",
        )
    of_encoder = {id(weight) for name, weight in encoder.named_parameters() if "pooler" not in name}
    settings = peft.LoraConfig(r=rank, lora_alpha=SCALE * rank, lora_dropout=DROPOUT, target_modules=targets)
    tuner = peft.tuners.lora.LoraModel(network, {"default": settings}, "default")
    # peft fixes every weight that is not its own; those of the head are to learn.
    for name, weight in network.named_parameters():
        weight.requires_grad_("lora_" in name or id(weight) not in of_encoder)
    return tuner


def merge_adapters(tuner: Any) -> Any:
    """Add the adapters to the weights they stand beside; returns the network as it was before, but for its numbers."""
    return tuner.merge_and_unload()
