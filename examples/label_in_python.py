"""A whole run from Python, without Prefect or Dask: texts of a CSV, the zero-shot teacher, a student in seconds.

    python examples/label_in_python.py FOLDER

writes `FOLDER/messages.csv`, and a version under `FOLDER/published`. Nothing is asked of any server.
"""

import sys
from pathlib import Path

import polars as pl

import candist_core as candist

MESSAGES = {
    "delivery": ["Where is my parcel?", "The package has not arrived", "My order was delivered to the wrong house"],
    "refund": ["I want my money back", "Please refund my last payment", "When do I get the refund?"],
    "login": ["I cannot log in", "My password does not work", "The sign-in page shows an error"],
}


def settings(folder: Path) -> dict[str, object]:
    """What a YAML file would hold; deployments/configs/demo.yaml is one."""
    return {
        "name": "messages",
        "task": {
            "instruction": "Each text is a message to the support of a web shop.",
            "labels": [
                {"name": "delivery", "description": "about a parcel, its way or its arrival"},
                {"name": "refund", "description": "wants money back"},
                {"name": "login", "description": "cannot sign in to the account"},
            ],
        },
        "source": {"uri": str(folder / "messages.csv"), "gold": "gold"},
        "store": {"uri": str(folder / "store")},
        "teacher": {"kind": "zeroshot"},
        "student": {"kind": "frozen", "device": "cpu"},
        # Nine texts are too few for bounds on shares.
        "checks": {"on_fail": "warn", "max_review_rate": 1.0},
        "publish": {"uri": str(folder / "published")},
    }


def main(folder: Path) -> pl.DataFrame:
    """Label the messages and publish them; returns the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(text, label) for label, texts in MESSAGES.items() for text in texts]
    pl.DataFrame(rows, schema=["text", "gold"], orient="row").write_csv(folder / "messages.csv")
    config = candist.RunConfig.model_validate(settings(folder))

    corpus, plan = candist.ingest_corpus(config), candist.plan_annotation(config)
    annotated = [candist.annotate_shard(plan, shard) for shard in corpus.texts]
    student = candist.distill_student(config, corpus.texts, annotated)
    predicted = [candist.predict_shard(config, *pair, student) for pair in zip(corpus.texts, annotated, strict=True)]
    reports = candist.RunReports(
        ingested=corpus,
        annotated=annotated,
        student=student,
        predicted=predicted,
        metrics=candist.evaluate_labels(config, corpus, annotated, predicted, student),
        checks=[*candist.check_annotations(config, annotated), *candist.check_labels(config, annotated, predicted)],
        quality=candist.assess_quality(config, corpus.texts, annotated, student, predicted),
    )
    version = candist.publish_version(config, reports)
    print(f"version {version.number} at {version.uri}")
    return candist.load(f"{version.uri}@{version.number}").collect()


if __name__ == "__main__":
    labels = main(Path(sys.argv[1] if len(sys.argv) > 1 else "example"))
    print(labels.select("text", "label", "confidence", "candidates", "needs_review"))
