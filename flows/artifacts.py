"""What a run shows in Prefect once it is published: the numbers of its report, read from the version itself."""

import json
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from candist_core.config import RunConfig
from candist_core.publish import NUMBERS, Published
from candist_core.stages.publish import open_publish_store
from flows.summary import summary_markdown

_TABLES = {
    "measures": "Everything measured on the labels",
    "labels": "Labels, with texts, review, confidence, precision and recall",
    "findings": "Signs of a failure, with evidence, consequence and remedy",
    "cost": "What the labels cost",
}


def keep_artifacts(config: RunConfig, published: Published) -> None:
    """Show the summary, and the tables of the version's `metrics.json`; versions of before there was one have none."""
    create_markdown_artifact(summary_markdown(published), key="summary", description="What the run made")
    if not any(file.path == NUMBERS for file in published.manifest.files):
        return
    data = open_publish_store(config).read_bytes(f"{published.manifest.folder}/{NUMBERS}")
    numbers: dict[str, Any] = json.loads(data)
    for name, description in _TABLES.items():
        create_table_artifact(numbers[name], key=name, description=description)
