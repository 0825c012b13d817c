"""Train one student in several processes of this machine, each on a GPU of its own where there are such.

The processes are started anew from a folder that holds the task as plain files (JSON and arrays), and meet in a file
of it: `torchrun` does the same over a port that listens on every interface. What they say to each other afterwards
goes over the loopback interface or between the GPUs. When one of them dies the others are ended, and all of them end
with the process that waits for them.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter

from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.ports import OnProgress, Progress, ignore_progress
from candist_core.recipe import Recipe, recipe_of
from candist_core.reports import EpochReport
from candist_core.student.distill import Distilled, distill
from candist_core.student.group import Group
from candist_core.student.train import Trained

_RECIPE = TypeAdapter(Recipe)
_POLL_S, _WATCH_S, _PATIENCE_S = 0.05, 0.1, 10.0


class _Task(BaseModel):
    """What the processes are to do, but for the arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    config: StudentConfig
    recipe: dict[str, Any]
    seed: int
    out_dir: Path
    scratch: Path | None
    n_threads: int | None
    parent: int


class _Outcome(BaseModel):
    """What the first of the processes found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    device_reason: str
    n_train: int
    epochs: tuple[EpochReport, ...]
    n_held_out: int
    held_out_accuracies: tuple[float, ...]
    warm_epoch: int | None
    noise_rate: float
    places: list[Any]
    restored_epoch: int | None


def distill_in_parallel(
    texts: Sequence[str],
    S: NDArray[np.bool_],
    ranks: NDArray[np.integer] | None,
    labels: Sequence[str],
    config: StudentConfig,
    seed: int,
    out_dir: Path,
    on_progress: OnProgress = ignore_progress,
    n_threads: int | None = None,
    recipe: Recipe | None = None,
    posterior: NDArray[np.floating] | None = None,
    scratch: Path | None = None,
) -> Distilled:
    """Train a student in `config.processes` processes; arguments and result are those of `distill`.

    A batch is shared out among them, so `config.batch_rows` is what all of them take together. On GPUs process i has
    device `cuda:i`. The weights are those of one process but for rounding and dropout; the same number of processes
    on CPUs gives equal weights.

    Raises:
        StudentError: what `distill` raises, fewer GPUs than processes, or a process that died.
    """
    started = time.monotonic()
    _require_devices(config)
    with tempfile.TemporaryDirectory(prefix="candist-parallel-") as name:
        folder = Path(name)
        task = _Task(
            texts=tuple(texts),
            labels=tuple(labels),
            config=config,
            recipe=asdict(recipe or recipe_of(config)),
            seed=seed,
            out_dir=out_dir.absolute(),
            scratch=scratch and scratch.absolute(),
            n_threads=n_threads and max(1, n_threads // config.processes),
            parent=os.getpid(),
        )
        (folder / "task.json").write_text(task.model_dump_json(), encoding="utf-8")
        arrays: dict[str, Any] = {"S": S, "ranks": ranks, "posterior": posterior}
        np.savez(folder / "arrays.npz", **{key: array for key, array in arrays.items() if array is not None})
        _run(folder, config.processes, on_progress)
        found = _Outcome.model_validate_json((folder / "outcome.json").read_bytes())
    trained = Trained(
        found.epochs, found.n_held_out, found.held_out_accuracies, found.warm_epoch, found.noise_rate,
        np.array(found.places), found.restored_epoch,
    )  # fmt: skip
    why = f"{found.device_reason}; {config.processes} processes"
    return Distilled(out_dir, config.model, found.device, why, found.n_train, trained, time.monotonic() - started)


def _require_devices(config: StudentConfig) -> None:
    """Refuse more processes than there are GPUs, where these are meant."""
    if config.device.startswith("cuda:"):
        thing, step = f"student.processes {config.processes}", "leave the number out of student.device, or take one"
        raise StudentError(thing, f"student.device {config.device!r}", "a device for each process", step)
    n_devices = torch.cuda.device_count()
    is_cuda = config.device == "cuda" or (config.device == "auto" and n_devices > 0)
    if is_cuda and n_devices < config.processes:
        raise StudentError(
            "student.processes",
            f"{config.processes} for {n_devices} GPUs",
            "one GPU for each",
            "lower student.processes",
        )


def _run(folder: Path, world: int, on_progress: OnProgress) -> None:
    """Start the processes and wait for their end; hand on what the first one tells.

    Raises:
        StudentError: what one of them raised, or that one died.
    """
    environment = {**os.environ, "WORLD_SIZE": str(world)}
    # On one machine nobody else has a part in it.
    environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "candist_core.student.parallel", str(folder)]
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(world):
            children.append(subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stdin=subprocess.DEVNULL))
        seen = 0
        while any(child.poll() is None for child in children) and not _dead(children):
            seen = _tell(folder, seen, on_progress)
            time.sleep(_POLL_S)
        _tell(folder, seen, on_progress)
    finally:
        _end(children)
    for path in sorted(folder.glob("error-*.json")):
        raise StudentError(*json.loads(path.read_text(encoding="utf-8")))
    if codes := [child.returncode for child in children if child.returncode]:
        thing, step = "student training", "run again; lower student.batch_rows or student.processes if it dies again"
        raise StudentError(thing, f"a process that died with exit status {codes[0]}", "one that ends", step)


def _dead(children: Sequence[subprocess.Popen[bytes]]) -> bool:
    return any(child.poll() not in (None, 0) for child in children)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: at once, because what is kept is replaced whole."""
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait(_PATIENCE_S)


def _tell(folder: Path, seen: int, on_progress: OnProgress) -> int:
    """Hand on the lines of progress after the first `seen` bytes; returns where the next ones begin."""
    path = folder / "progress.jsonl"
    if not path.exists():
        return seen
    with path.open("rb") as file:
        file.seek(seen)
        for line in file:
            # The last line may be half written.
            if line.endswith(b"\n"):
                seen += len(line)
                on_progress(Progress(**json.loads(line)))
    return seen


def _watch(parent: int) -> None:
    """End this process when the one that waits for it is gone."""
    while True:
        time.sleep(_WATCH_S)
        try:
            os.kill(parent, 0)
        except OSError:
            os._exit(1)


def _train(folder: Path, rank: int, world: int) -> None:
    task = _Task.model_validate_json((folder / "task.json").read_bytes())
    threading.Thread(target=_watch, args=(task.parent,), daemon=True).start()
    with np.load(folder / "arrays.npz", allow_pickle=False) as file:
        arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    is_cuda = torch.cuda.is_available() and task.config.device != "cpu"
    config = task.config.model_copy(update={"device": f"cuda:{rank}"}) if is_cuda else task.config
    if is_cuda:
        torch.cuda.set_device(rank)
    where = f"file://{folder / 'meet'}"
    torch.distributed.init_process_group("nccl" if is_cuda else "gloo", where, rank=rank, world_size=world)
    try:
        found = distill(
            task.texts, arrays["S"], arrays.get("ranks"), task.labels, config, task.seed, task.out_dir,
            on_progress=_teller(folder) if rank == 0 else ignore_progress, n_threads=task.n_threads,
            recipe=_RECIPE.validate_python(task.recipe), posterior=arrays.get("posterior"), scratch=task.scratch,
            group=Group(rank, world),
        )  # fmt: skip
    finally:
        torch.distributed.destroy_process_group()
    if rank == 0:
        trained = found.trained
        outcome = _Outcome(
            device=found.device, device_reason=found.device_reason, n_train=found.n_train, epochs=trained.epochs,
            n_held_out=trained.n_held_out, held_out_accuracies=trained.held_out_accuracies,
            warm_epoch=trained.warm_epoch, noise_rate=trained.noise_rate, places=trained.places.tolist(),
            restored_epoch=trained.restored_epoch,
        )  # fmt: skip
        (folder / "outcome.json").write_text(outcome.model_dump_json(), encoding="utf-8")


def _teller(folder: Path) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        with (folder / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(progress)) + "\n")

    return tell


def main() -> None:
    """One of the processes: `python -m candist_core.student.parallel FOLDER`, with RANK and WORLD_SIZE."""
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    try:
        _train(folder, rank, int(os.environ["WORLD_SIZE"]))
    except StudentError as error:
        (folder / f"error-{rank}.json").write_text(json.dumps(error.args), encoding="utf-8")
        # At once: the others wait for this one in the middle of a step.
        os._exit(1)


if __name__ == "__main__":
    main()
