"""Fine-tune a pretrained encoder on candidate sets, and keep it as a folder.

n texts, k labels; S (n, k) candidates, R (n, k) the teacher's order. Gold has no way in. What is learned in which
epoch, and how, is `candist_core.student.train`'s; this module brings the encoder.
Invariant: on a CPU, equal inputs, seed and thread count give equal weights.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from candist_core.answers import read_answers
from candist_core.candidates import has_candidates
from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.ports import OnProgress, ignore_progress
from candist_core.recipe import Recipe, recipe_of
from candist_core.reports import EpochReport
from candist_core.student.adapters import add_adapters, merge_adapters
from candist_core.student.checkpoint import Checkpoint, training_key
from candist_core.student.device import Device, choose_device
from candist_core.student.dropout import QuickDropout
from candist_core.student.encode import Tokens, find_weights, shuffled_batches, tokenise
from candist_core.student.group import ALONE, Group
from candist_core.student.model import Classifier, load_classifier, predict_probs, save_classifier
from candist_core.student.train import Trained, seeded, train
from candist_core.student.views import Mix, drop_words, mixing
from candist_core.version import __version__

FRESH_FACTOR = 10.0
"""Learning rate of new weights, the head's and those of adapters, over the encoder's. Measured for the head on the
sample corpus, four epochs, batches of 32: 0.90 of the labels right, against 0.81 with one rate for both."""

CPU_TOKENS = 4096
"""Tokens, padding among them, in one pass of training on a CPU: memory grows with them, and no error tells there when
it runs out. Larger passes are no faster (32 texts of 128 tokens at once: 0.97 s a step; in halves 1.00, quarters 1.19).
"""


@dataclass(frozen=True, slots=True)
class Distilled:
    """A trained student in `folder`. `n_train` texts had candidates; `seconds` is the wall time of everything."""

    folder: Path
    base_model: str
    device: str
    device_reason: str
    n_train: int
    trained: Trained
    seconds: float

    @property
    def epochs(self) -> tuple[EpochReport, ...]:
        """Label-free signals after each epoch."""
        return self.trained.epochs


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
    recipe: Recipe | None = None,
    posterior: NDArray[np.floating] | None = None,
    scratch: Path | None = None,
    group: Group = ALONE,
) -> Distilled:
    """Train a student on candidate sets and save it as a `transformers` folder.

    Texts without candidates are passed over unless the recipe uses open texts. The process-wide random state and
    thread count of torch are as before on return; two calls at once in one process would share them.

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
        recipe: targets, losses and extras; None takes those of the settings.
        posterior: (n, k), what a label model makes of each text, for the recipe that learns from it.
        scratch: a folder on this machine where each epoch is kept and a training that was killed goes on from; it is
            the caller's to remove, once the student is safe. None keeps nothing.
        group: this process among those that train the same student; only the first writes it.

    Raises:
        StudentError: no text has candidates, no usable weights, no such device, training diverged, or memory does
            not suffice for a single text.

    Source:
        Xia et al., CanDist, ACL 2025; without back-translation, for which words are left out.
    """
    started = time.monotonic()
    recipe = recipe or recipe_of(config)
    is_usable = has_candidates(S)
    # With none to learn from all are handed on, to be counted in what is said about it.
    rows = np.flatnonzero(is_usable | recipe.uses_open | (not is_usable.any()))
    R, Q = None if ranks is None else ranks[rows], None if posterior is None else posterior[rows]
    answers = read_answers(S[rows], R, recipe, seed, Q)
    device = choose_device(config.device)
    with seeded(seed, device, n_threads):
        classifier = load_classifier(find_weights(config.model), device, labels, config.max_tokens)
        tokens = tokenise(classifier.tokenizer, [texts[row] for row in rows.tolist()])
        adapters = add_adapters(classifier.network, config.lora_rank) if config.lora_rank else None
        group.agree(classifier.network)
        learner = EncoderLearner(classifier, tokens, config.batch_rows)
        checkpoint = None
        if scratch is not None:
            settings = config.model_dump(mode="json", exclude={"model"})
            facts = [settings, asdict(recipe), seed, repr(device), __version__, tokens]
            checkpoint = Checkpoint(scratch, training_key(classifier.network, answers, facts))
        trained = train(learner, answers, recipe, config.learning_rate, seed, on_progress, checkpoint, group)
        if adapters is not None:
            classifier = replace(classifier, network=merge_adapters(adapters))
        if group.rank == 0:
            save_classifier(classifier, out_dir)
    seconds = time.monotonic() - started
    return Distilled(out_dir, config.model, device.name, device.why, int(is_usable.sum()), trained, seconds)


class EncoderLearner:
    """A pretrained encoder with a new head, and the tokens of the texts that it learns from."""

    def __init__(self, classifier: Classifier, tokens: Tokens, batch_rows: int) -> None:
        self.classifier, self.tokens, self.batch_rows = classifier, tokens, batch_rows
        self.lengths = [len(text) for text in tokens]
        self.specials = frozenset(classifier.tokenizer.all_special_ids)

    @property
    def network(self) -> torch.nn.Module:
        """Encoder and head."""
        network: torch.nn.Module = self.classifier.network
        return network

    @property
    def device(self) -> Device:
        """Where it computes."""
        return self.classifier.device

    def groups(self) -> list[dict[str, object]]:
        """Head and adapters, which start from nothing, learn faster than the pretrained encoder."""
        encoder: list[torch.nn.Parameter] = []
        fresh: list[torch.nn.Parameter] = []
        of_encoder = {id(weight) for weight in self.classifier.network.base_model.parameters()}
        for name, weight in self.network.named_parameters():
            is_fresh = id(weight) not in of_encoder or "pooler" in name or "lora_" in name
            if weight.requires_grad:
                (fresh if is_fresh else encoder).append(weight)
        groups: list[dict[str, object]] = [
            {"params": encoder, "factor": 1.0},
            {"params": fresh, "factor": FRESH_FACTOR},
        ]
        return [group for group in groups if group["params"]]

    def batches(self, rows: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Texts of like length together, in random order."""
        return shuffled_batches(rows, self.lengths, self.batch_rows, rng)

    def rows_at_once(self, rows: NDArray[np.int64]) -> int:
        """As many as the token budget of a CPU has room for; a GPU tells by itself when memory runs out."""
        if self.device.name != "cpu":
            return len(rows)
        longest: int = max(self.lengths[row] for row in rows.tolist())
        return max(1, CPU_TOKENS // longest)

    def logits(
        self, rows: NDArray[np.int64], rng: np.random.Generator | None = None, mix: Mix | None = None
    ) -> torch.Tensor:
        """(b, k); with `rng` some words are left out, with `mix` (2b, k), the mixed rows last."""
        tokens: Tokens = [self.tokens[row] for row in rows.tolist()]
        if rng is not None:
            tokens = drop_words(tokens, self.specials, rng)
        batch = self.classifier.pad(tokens, np.arange(len(tokens)))
        with QuickDropout() if self.device.name == "cpu" else nullcontext():
            if mix is None:
                return self.classifier.logits(batch)
            with mixing(self.network, mix):
                logits = self.classifier.logits(batch)
        if len(logits) != 2 * len(rows):
            raise StudentError("student mixup", "a model that mixes no embeddings", "an encoder", "switch mixup off")
        return logits

    def believe(self, rows: NDArray[np.int64], rng: np.random.Generator | None = None) -> NDArray[np.float32]:
        """P, (b, k), of some texts without dropout; with `rng` some words are left out."""
        tokens: Tokens = [self.tokens[row] for row in rows.tolist()]
        return predict_probs(self.classifier, tokens if rng is None else drop_words(tokens, self.specials, rng))
