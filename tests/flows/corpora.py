"""Configurations over slices of the sample corpus, written into a temporary folder."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from candist_core.config import RunConfig, parse_config

DEMO = files("candist_core").joinpath("demo")


def demo_rows(n: int) -> list[dict[str, str]]:
    """The first n rows of the sample corpus."""
    return [json.loads(line) for line in DEMO.joinpath("corpus.jsonl").read_text().splitlines()[:n]]


def demo_replies(n: int) -> list[dict[str, str]]:
    """The recorded replies to them."""
    return [json.loads(line) for line in DEMO.joinpath("replies_ca_add.jsonl").read_text().splitlines()[:n]]


def recipe_rows(n: int) -> list[dict[str, str]]:
    """Rows of another kind than the sample corpus."""
    foods = ("leek", "plum", "rice", "lentil", "quince", "barley")
    return [
        {"id": f"recipe-{i}", "text": f"Simmer the {foods[i % 6]} with {i} cloves and salt, then serve it warm."}
        for i in range(n)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def demo_labels() -> list[dict[str, str]]:
    lines = DEMO.joinpath("labels.tsv").read_text().splitlines()
    return [dict(zip(("name", "description"), line.split("\t"), strict=True)) for line in lines]


def demo_config(folder: Path, n: int = 200, epochs: int = 2, **changes: dict[str, Any]) -> RunConfig:
    """A run over n rows with everything inside the folder; `changes` replace settings group by group.

    The student is a head, which trains in a second; a test about whole encoders says so.
    """
    write_jsonl(folder / "corpus.jsonl", demo_rows(n))
    write_jsonl(folder / "replies.jsonl", demo_replies(n))
    data: dict[str, Any] = {
        "name": "slice",
        "task": {"labels": demo_labels(), "instruction": "Sort messages to a telecoms provider by intent."},
        "source": {"uri": str(folder / "corpus.jsonl"), "id": "id", "gold": "gold", "shard_rows": 100},
        "store": {"uri": str(folder / "work")},
        "teacher": {"kind": "replay", "replies_uri": str(folder / "replies.jsonl")},
        "student": {"kind": "frozen", "epochs": epochs, "warmup_epochs": 1},
        "checks": {"max_review_rate": 1.0},
        "compute": {"workers": 2, "processes": False},
        "publish": {"uri": str(folder / "published")},
    }
    for group, values in changes.items():
        data[group] = {**data.get(group, {}), **values}
    return parse_config(data)


def write_config(folder: Path, config: RunConfig) -> Path:
    path = folder / "candist.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    return path
