"""Train the student towards targets that are refined after every epoch.

n texts, b batch, k labels; S (n, k) candidates, P (n, k) the student's belief, Q (n, k) targets.
Gold has no way in. After each epoch one pass without dropout gives P for all training texts; the next targets and
the label-free signals come from it. It takes a fifth of the epoch's time, but beliefs gathered while training are
stale: with them dr dropped 20 % of an almost clean corpus, with the pass 3 to 4 %. Rows without a target are not
even run forward. Invariant: on a CPU, equal inputs, seed and thread count give equal weights.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from candist_core.candidates import has_candidates
from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.ports import OnProgress, Progress, ignore_progress
from candist_core.refine import Targets, refine
from candist_core.reports import EpochReport
from candist_core.student.device import Device, choose_device
from candist_core.student.encode import Tokens, find_weights, shuffled_batches, tokenise
from candist_core.student.model import Classifier, load_classifier, predict_probs, save_classifier

WARMUP_SHARE = 0.1
"""Share of all steps over which the learning rate rises; it then falls to zero (usual for encoders)."""
HEAD_FACTOR = 10.0
"""Learning rate of the new head over the encoder's. Measured on the sample corpus, four epochs, batches of 32:
0.90 of the labels right, against 0.81 with one rate for both."""
STEPS_A_NOTE = 20
WEIGHT_DECAY, MAX_GRADIENT_NORM = 0.01, 1.0


@dataclass(frozen=True, slots=True)
class Distilled:
    """A trained student in `folder`. `n_train` texts had candidates; `seconds` is the wall time of everything."""

    folder: Path
    base_model: str
    device: str
    device_reason: str
    n_train: int
    epochs: tuple[EpochReport, ...]
    seconds: float


def distill(
    texts: Sequence[str],
    S: NDArray[np.bool_],
    ranks: NDArray[np.integer] | None,
    labels: Sequence[str],
    config: StudentConfig,
    seed: int,
    out_dir: Path,
    on_progress: OnProgress = ignore_progress,
    n_threads: int | None = None,
) -> Distilled:
    """Train a student on candidate sets and save it as a `transformers` folder.

    Texts without candidates are passed over. The process-wide random state and thread count of torch are as
    before on return; two calls at once in one process would share them.

    Args:
        texts: n texts.
        S: (n, k) candidate mask.
        ranks: R, (n, k), the teacher's order; None where it says nothing.
        labels: k names in column order.
        config: the model, method and settings of training.
        seed: fixes the new head, dropout and the order of texts.
        out_dir: where model, configuration and tokenizer are written; made if missing.
        on_progress: told about every 20 steps.
        n_threads: threads torch may use; None leaves that as it is.

    Raises:
        StudentError: no text has candidates, no usable weights, no such device, or training diverged.

    Source:
        Xia et al., CanDist, ACL 2025, without its augmentations (back-translation, mixup).
    """
    started = time.monotonic()
    usable = np.flatnonzero(has_candidates(S))
    if not usable.size:
        raise StudentError(
            "training texts", f"0 of {len(texts)} with candidates", "at least one", "check the teacher's replies"
        )
    device = choose_device(config.device)
    with _torch_state(seed, n_threads, device):
        classifier = load_classifier(find_weights(config.model), device, labels, config.max_tokens)
        tokens = tokenise(classifier.tokenizer, [texts[row] for row in usable.tolist()])
        ranks = None if ranks is None else ranks[usable]
        epochs = _train(classifier, tokens, S[usable], ranks, config, seed, on_progress)
        save_classifier(classifier, out_dir)
    seconds = time.monotonic() - started
    return Distilled(out_dir, config.model, device.name, device.why, len(usable), epochs, seconds)


@contextmanager
def _torch_state(seed: int, n_threads: int | None, device: Device) -> Iterator[None]:
    """Seed torch for the new head and dropout, and leave its state as it was found."""
    before = torch.get_num_threads()
    with torch.random.fork_rng([device.name] if device.name.startswith("cuda") else []):
        torch.manual_seed(seed)
        torch.set_num_threads(n_threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _train(
    classifier: Classifier,
    tokens: Tokens,
    S: NDArray[np.bool_],
    ranks: NDArray[np.integer] | None,
    config: StudentConfig,
    seed: int,
    on_progress: OnProgress,
) -> tuple[EpochReport, ...]:
    optimizer = _optimizer(classifier.network)
    P: NDArray[np.float32] | None = None
    reports = []
    for epoch in range(1, config.epochs + 1):
        targets = refine(P, S, config, epoch, ranks)
        rng = np.random.default_rng((seed, epoch))
        watch = _Watch(epoch, config.epochs, len(tokens), on_progress)
        loss = _train_epoch(classifier, optimizer, tokens, targets, config, rng, watch)
        P = predict_probs(classifier, tokens)
        # The last step of an epoch may ruin the weights after its own loss was still a number.
        watch.require_finite(float(P.sum()))
        reports.append(_report(epoch, loss, P, S, targets))
    return tuple(reports)


@dataclass(frozen=True, slots=True)
class _Watch:
    """Which epoch of how many, over how many texts, and who wants to know."""

    epoch: int
    epochs: int
    n_texts: int
    on_progress: OnProgress

    def require_finite(self, loss: float) -> None:
        """Refuse to go on from a loss or a belief that is no number."""
        if not math.isfinite(loss):
            raise StudentError(
                "student training",
                f"a loss of {loss} in epoch {self.epoch}",
                "a finite one",
                "lower student.learning_rate or choose another student.model",
            )

    def tell(self, share: float, loss: float) -> None:
        """Report a share of this epoch."""
        self.require_finite(loss)
        done = round((self.epoch - 1 + share) * self.n_texts)
        note = f"epoch {self.epoch}/{self.epochs} loss {loss:.3f}"
        self.on_progress(Progress("distill", "", done, self.epochs * self.n_texts, note=note))


def _train_epoch(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    tokens: Tokens,
    targets: Targets,
    config: StudentConfig,
    rng: np.random.Generator,
    watch: _Watch,
) -> float:
    """One pass over the rows that have a target; returns the mean loss."""
    network, device = classifier.network, classifier.device.name
    network.train()
    lengths = [len(row) for row in tokens]
    batches = shuffled_batches(np.flatnonzero(targets.kept), lengths, config.batch_rows, rng)
    # The sum stays on the device: reading every step's loss would make a GPU wait for the host.
    total, n_seen = torch.zeros((), device=device), 0
    for step, rows in enumerate(batches, start=1):
        # The middle of a step: at its end the very last one, perhaps the only one, would have a rate of zero.
        middle = (watch.epoch - 1 + (step - 0.5) / len(batches)) / watch.epochs
        _set_learning_rate(optimizer, config.learning_rate, middle)
        Q = torch.from_numpy(targets.Q[rows]).to(device)  # (b, k)
        loss = torch.nn.functional.cross_entropy(classifier.logits(classifier.pad(tokens, rows)), Q)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        total += loss.detach() * len(rows)
        n_seen += len(rows)
        if step % STEPS_A_NOTE == 0 or step == len(batches):
            watch.tell(step / len(batches), total.item() / n_seen)
    return total.item() / max(n_seen, 1)


def _optimizer(network: Any) -> torch.optim.Optimizer:
    """AdamW; the head, which starts from nothing, learns faster than the pretrained encoder."""
    encoder: list[torch.nn.Parameter] = []
    head: list[torch.nn.Parameter] = []
    of_encoder = {id(weight) for weight in network.base_model.parameters()}
    for name, weight in network.named_parameters():
        (encoder if id(weight) in of_encoder and "pooler" not in name else head).append(weight)
    groups = [{"params": encoder, "factor": 1.0}, {"params": head, "factor": HEAD_FACTOR}]
    return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)


def _set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, share_done: float) -> None:
    """Linear rise to the peak, then linear fall to zero, by the share of all training that is done."""
    factor = min(share_done / WARMUP_SHARE, (1 - share_done) / (1 - WARMUP_SHARE))
    for group in optimizer.param_groups:
        group["lr"] = peak * factor * group["factor"]


def _report(epoch: int, loss: float, P: NDArray[np.float32], S: NDArray[np.bool_], targets: Targets) -> EpochReport:
    predicted = P.argmax(axis=1)
    is_inside = S[np.arange(len(S)), predicted]
    inside_mass = np.where(S, P, 0.0).sum(axis=1)
    share = P[np.arange(len(P)), predicted] / np.maximum(inside_mass, np.finfo(np.float32).tiny)
    return EpochReport(
        epoch=epoch,
        loss=loss,
        in_set_rate=float(is_inside.mean()),
        approximate_accuracy=float(np.where(is_inside, share, 0.0).mean()),
        kept_rate=float(targets.kept.mean()),
        reliable_rate=float(targets.reliable.mean()),
    )
