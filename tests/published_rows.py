"""Rows and manifests of versions that no run made: what a report is drawn from."""

import json
from typing import Any

import numpy as np
import polars as pl

from candist_core.manifest import Manifest, decode_manifest

NAMES = ("outage", "billing", "roaming")
_SCHEMA = {
    "doc_id": pl.String,
    "text": pl.String,
    "label": pl.String,
    "confidence": pl.Float32,
    "candidates": pl.List(pl.String),
    "teacher_label": pl.String,
    "source": pl.String,
    "needs_review": pl.Boolean,
    "reason": pl.String,
    "gold": pl.String,
}


def row(doc_id: str, text: str = "a text", label: str = "outage", confidence: float = 0.9, **changes: Any) -> dict:
    """One published row; below 0.8 it wants review."""
    is_doubtful = confidence < 0.8
    return {
        "doc_id": doc_id, "text": text, "label": label, "confidence": confidence, "candidates": [label],
        "teacher_label": label, "source": "agreed", "needs_review": is_doubtful,
        "reason": "low confidence" if is_doubtful else None, "gold": None,
    } | changes  # fmt: skip


def frame(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=_SCHEMA)


def many_rows(n: int, seed: int = 0, names: tuple[str, ...] = NAMES, has_gold: bool = True) -> pl.DataFrame:
    """n rows drawn by chance; about a fifth wants review, and gold is the label as often as the confidence says."""
    chance = np.random.default_rng(seed)
    confidence = 1 - 0.6 * chance.beta(1, 4, n)
    k = len(names)
    label = chance.integers(0, k, n)
    other = (label + chance.integers(1, k, n)) % k
    is_right = chance.random(n) < confidence
    return frame(
        *(
            row(
                f"doc-{i}",
                f"text number {i} about {names[label[i]]}",
                names[label[i]],
                float(confidence[i]),
                candidates=[names[label[i]], names[other[i]]] if i % 3 == 0 else [names[label[i]]],
                gold=(names[label[i]] if is_right[i] else names[other[i]]) if has_gold else None,
            )
            for i in range(n)
        )
    )


def manifest_of(names: tuple[str, ...] = NAMES, **changes: Any) -> Manifest:
    """A manifest of a version without gold, in which every check passed."""
    value = {
        "contract": "manifest/1", "dataset": "mails", "number": 3, "version": "0123456789abcdef",
        "created_at": "2026-11-21T12:00:00Z", "run_id": "r", "code_version": "1", "seed": 0,
        "spec": {"labels": [{"name": name, "description": f"about {name}"} for name in names]}, "spec_fingerprint": "f",
        "config": {"publish": {"uri": "published"}, "teacher": {"kind": "openai", "model": "m"}}, "source_files": [],
        "files": [], "usage": {"n_requests": 10, "cost_usd": 0.5}, "checks": [check("rates", True)],
        "counts": {"rows": 10, "texts": 10, "needs_review": 2, "rejects": 0},
        "student": {"folder": "", "files": [], "key": "", "base_model": "minilm", "device": "cpu",
                    "device_reason": "no GPU", "n_train": 0, "epochs": [], "seconds": 2.0},
        "metrics": {"n_rows": 10, "n_labelled": 10, "n_review": 2, "mean_set_size": 1.2, "set_sizes": {},
                    "statuses": {}, "class_counts": {}, "agreement": 1, "mean_confidence": 0.9, "gold": None},
    }  # fmt: skip
    return decode_manifest(json.dumps(value | changes).encode(), "test")


def check(name: str, passed: bool, on_fail: str = "fail") -> dict[str, Any]:
    return {"name": name, "passed": passed, "observed": "0.4", "wanted": "at most 0.1", "on_fail": on_fail}


def share(value: float, low: float, high: float, n: int = 100) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def with_gold(kept: dict[str, Any]) -> dict[str, Any]:
    """Metrics with gold, the accuracy of rows without review as given."""
    metrics = json.loads(manifest_of().metrics.model_dump_json())
    gold = {"teacher_accuracy": share(0.9, 0.8, 0.95), "final_accuracy": share(0.9, 0.8, 0.95), "macro_f1": 0.9,
            "coverage": share(0.95, 0.9, 0.99), "kept_accuracy": kept, "lift": 3.0}  # fmt: skip
    return metrics | {"gold": gold}


def quality(*findings: tuple[str, str]) -> dict[str, Any]:
    """A quality report with findings of a name and a severity."""
    return {
        "n_sets": 10, "mean_set_size": 1.2, "set_sizes": {"1": 8, "2": 2}, "single_share": 0.8, "identical_share": 0.1,
        "entropy": 0.9, "confusable": [{"first": "outage", "second": "billing", "n": 4, "lift": 6.5}],
        "coverage": share(0.9, 0.85, 0.94), "is_audited": False, "in_set_entropy": 0.3,
        "findings": [
            {"name": name, "severity": severity, "evidence": f"Evidence of {name}.", "consequence": "Labels are bent.",
             "remedy": "Ask another teacher."} for name, severity in findings
        ],
    }  # fmt: skip
