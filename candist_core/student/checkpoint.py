"""Training that outlives its process: after every epoch all that the next one starts from, in one file.

The file is safetensors with a JSON note, so that reading it can run nothing. It is replaced whole. Its key is a hash of
all that fixes a training, and a file of another training is passed over. Chance needs no keeping: every epoch is seeded
by its number. Invariant: on a CPU, a training that goes on from here ends in the weights of an undisturbed one.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from candist_core.answers import Answers
from candist_core.memory import Memory
from candist_core.reports import EpochReport

logger = logging.getLogger(__name__)

FILE = "training.safetensors"

State = dict[str, torch.Tensor]

_ARRAYS = ("n_same", "n_outside", "stored", "places", "P", "P_view")
"""The fields of a `Memory` that are arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What the epochs behind leave to the next one, beside the network and its optimizer.

    Attributes:
        memory: of beliefs.
        reports: one an epoch.
        best: mean agreement of the epoch that the guard would go back to.
        best_state: the weights of then; empty while there is none.
        part_rows: texts in a forward pass that memory was found to have room for.
    """

    memory: Memory
    reports: tuple[EpochReport, ...] = ()
    best: float = -1.0
    best_state: Mapping[str, torch.Tensor] | None = None
    part_rows: int = 2**31


class _Note(BaseModel):
    """The part of a checkpoint that is no tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    reports: tuple[EpochReport, ...]
    accuracies: tuple[float, ...]
    in_set_rates: tuple[float, ...]
    warm_epoch: int | None
    noise_rate: float
    best: float
    part_rows: int


class Checkpoint:
    """The latest epoch of one training, in a folder of its own on this machine."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path, self.key = folder / FILE, key

    def save(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer, past: Past) -> None:
        """Replace what is kept. Without room for it training goes on, and is not resumed from here."""
        memory = past.memory
        arrays = {f"memory/{name}": getattr(memory, name) for name in _ARRAYS if getattr(memory, name) is not None}
        # Copies of what is small: safetensors refuses tensors that share memory, as some models' buffers do.
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        tensors |= {f"best/{name}": value for name, value in (past.best_state or {}).items()}
        tensors |= {name: value.detach().cpu().contiguous() for name, value in _moving(network, optimizer)}
        tensors |= {f"network/{name}": value.detach().cpu().clone() for name, value in network.named_buffers()}
        note = _Note(
            key=self.key,
            reports=past.reports,
            accuracies=memory.accuracies,
            in_set_rates=memory.in_set_rates,
            warm_epoch=memory.warm_epoch,
            noise_rate=memory.noise_rate,
            best=past.best,
            part_rows=past.part_rows,
        )
        # The name of this process: another one may train the same student.
        partial = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata={"note": note.model_dump_json()})
            partial.replace(self.path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                partial.unlink()
            logger.warning("epoch %d is not kept for a restart: %s", len(past.reports), type(error).__name__)

    def load(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer, begun: Memory) -> Past | None:
        """Bring network and optimizer to the latest epoch kept; None, and nothing changed, where there is none.

        Args:
            network: as it was when training began.
            optimizer: likewise.
            begun: the memory of then.
        """
        if not self.path.exists():
            return None
        try:
            note, tensors = _read(self.path)
        except (OSError, SafetensorError, ValidationError, KeyError, TypeError) as error:
            logger.warning("a training is begun anew, what was kept of it is no checkpoint: %s", type(error).__name__)
            return None
        if note.key != self.key:
            return None
        with torch.no_grad():
            for name, value in _weights(network):
                value.copy_(tensors[f"network/{name}"])
        _load_moments(optimizer, _under("optimizer", tensors))
        arrays: dict[str, Any] = {name: value.numpy() for name, value in _under("memory", tensors).items()}
        memory = replace(
            begun,
            **arrays,
            accuracies=note.accuracies,
            in_set_rates=note.in_set_rates,
            warm_epoch=note.warm_epoch,
            noise_rate=note.noise_rate,
        )
        return Past(memory, note.reports, note.best, _under("best", tensors) or None, note.part_rows)


def training_key(network: torch.nn.Module, answers: Answers, settings: Sequence[object]) -> str:
    """A hash of what fixes a training.

    Args:
        network: before its first step; all its weights count.
        answers: what is to be learned.
        settings: all else that counts, as JSON would hold it.
    """
    digest = sha256(json.dumps([settings, torch.__version__, torch.get_num_threads()], sort_keys=True).encode())
    for field in fields(answers):
        _update(digest, field.name, getattr(answers, field.name))
    for name, value in _weights(network):
        _update(digest, name, value.detach().cpu().numpy())
    return digest.hexdigest()


def _update(digest: Any, name: str, value: Any) -> None:
    digest.update(name.encode())
    if not isinstance(value, np.ndarray):
        digest.update(repr(value).encode())
        return
    digest.update(f"{value.dtype} {value.shape}".encode())
    digest.update(np.ascontiguousarray(value))


def _weights(network: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Each once, also where two layers share one."""
    yield from network.named_parameters()
    yield from network.named_buffers()


def _moving(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in _weights(network):
        yield f"network/{name}", value
    for i, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            yield f"optimizer/{i}/{name}", value


def _load_moments(optimizer: torch.optim.Optimizer, tensors: State) -> None:
    state: dict[int, State] = {}
    for path, value in tensors.items():
        i, _, name = path.partition("/")
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _read(path: Path) -> tuple[_Note, State]:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return _Note.model_validate_json(file.metadata()["note"]), {name: file.get_tensor(name) for name in names}


def _under(folder: str, tensors: State) -> State:
    prefix = f"{folder}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
