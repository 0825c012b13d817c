"""What a run shows in Prefect once it is published: summary, numbers and place of its report, sizes of the sets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from candist_core.config import RunConfig
from candist_core.publish import NUMBERS, Published
from candist_core.stages.publish import open_publish_store
from flows.summary import report_uri, summary_markdown

# Tables of the version's `metrics.json`.
_TABLES = {
    "measures": "Everything measured on the labels",
    "labels": "Labels, with texts, review, confidence, precision and recall",
    "findings": "Signs of a failure, with evidence, consequence and remedy",
    "cost": "What the labels cost",
}

_BAR, _GAP, _LEFT, _WIDTH = 22, 8, 60, 420


def show_version(config: RunConfig, published: Published) -> None:
    """Make the artifacts of a version: summary, link to the report, its numbers, plot of the sizes of candidate sets.

    The numbers are read from the version itself; one of before there was `metrics.json` shows none.
    """
    create_markdown_artifact(summary_markdown(published), key="summary", description="What the run made")
    if uri := report_uri(published):
        link = uri if "://" in uri else Path(uri).absolute().as_uri()
        create_link_artifact(link, key="report", link_text=uri, description="The report, one page without a network")
    sizes = published.manifest.metrics.set_sizes
    create_image_artifact(
        "data:image/svg+xml," + quote(size_plot(sizes)), key="set-sizes", description="Texts by number of candidates"
    )
    if not any(file.path == NUMBERS for file in published.manifest.files):
        return
    data = open_publish_store(config).read_bytes(f"{published.manifest.folder}/{NUMBERS}")
    numbers: dict[str, Any] = json.loads(data)
    for name, description in _TABLES.items():
        create_table_artifact(numbers[name], key=name, description=description)


def size_plot(sizes: Mapping[int, int]) -> str:
    """Texts by the size of their candidate set, as an SVG that any page may hold.

    Args:
        sizes: number of texts by size; 0 are texts for which the teacher named none.

    Example:
        >>> size_plot({1: 3, 2: 1}).count("<rect")
        3
    """
    rows, most = sorted(sizes.items()), max(sizes.values(), default=1)
    height = _GAP + len(rows) * (_BAR + _GAP)
    parts = [f'<rect width="{_LEFT + _WIDTH + 90}" height="{height}" fill="#ffffff"/>']
    for i, (size, n) in enumerate(rows):
        top, width = _GAP + i * (_BAR + _GAP), max(1, round(_WIDTH * n / most))
        middle = top + _BAR * 0.7
        parts.append(f'<text x="{_LEFT - 12}" y="{middle}" text-anchor="end">{size}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{top}" width="{width}" height="{_BAR}" fill="#1f6f8b"/>')
        parts.append(f'<text x="{_LEFT + width + 8}" y="{middle}">{n:,}</text>')
    box = f'viewBox="0 0 {_LEFT + _WIDTH + 90} {height}" width="{_LEFT + _WIDTH + 90}" height="{height}"'
    style = 'font-family="sans-serif" font-size="14" fill="#1a2129"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} {style}>{"".join(parts)}</svg>'
