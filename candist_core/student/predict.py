"""Labels from a trained student.

n texts, k labels, P (n, k) float32, rows sum to one, columns in the order of `labels`.
Invariant: rows of P stand in the order of the texts, and equal texts of one call have equal rows. In another call,
among other texts, a row may differ by what bfloat16 rounds away.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candist_core.errors import StudentError
from candist_core.ports import OnProgress, Progress, ignore_progress
from candist_core.student.device import choose_device
from candist_core.student.encode import Weights, distinct_texts, tokenise
from candist_core.student.model import Classifier, load_classifier, predict_probs
from candist_core.student.quick import quick_probs, why_not_quick

_log = logging.getLogger(__name__)


class Student:
    """A trained student, ready to predict."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> "Student":
        """Read a student that `distill` saved.

        Raises:
            StudentError: the folder holds no student, or there is no such device.
        """
        if not folder.is_dir():
            raise StudentError("student", f"no folder {folder}", "a trained student", "run distill first")
        weights = Weights(str(folder), str(folder), is_local=True)
        return cls(load_classifier(weights, choose_device(device)))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names in column order, k of them."""
        return self.classifier.labels

    def predict(
        self, texts: Sequence[str], on_progress: OnProgress = ignore_progress, part: str = ""
    ) -> NDArray[np.float32]:
        """P, (n, k): the student's belief about each text. Equal texts are computed once.

        Args:
            texts: n texts, none of them changed.
            on_progress: told after each batch how many distinct texts are done.
            part: which shard, for `on_progress`.
        """
        distinct, places = distinct_texts(texts)

        def tell(done: int) -> None:
            on_progress(Progress("predict", part, done, len(distinct)))

        tokens = tokenise(self.classifier.tokenizer, distinct)
        if not tokens:
            return predict_probs(self.classifier, tokens, tell)
        if reason := why_not_quick(self.classifier, tokens):
            _log.info("predicting by the whole network: %s", reason)
            return predict_probs(self.classifier, tokens, tell)[places]
        return quick_probs(self.classifier, tokens, tell)[places]
