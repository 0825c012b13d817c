"""Published versions to read, made by `publish` itself from tables in memory."""

from uuid import uuid4

from candist_core.config import Location
from candist_core.edges.store import Store, open_store
from tests.core.test_publish import Run

SPLIT_COUNTS = {"train": 3, "test": 2}
"""Rows by split of what `publish_mails` publishes: r0 to r4, texts that say buy, hello, again."""


def publish_mails(place: Location, confidence: float = 0.5, **changes: object) -> Store:
    """Publish five rows as the data set `mails` of a place; other confidences are other versions."""
    work = open_store(Location(uri=f"memory://work-{uuid4().hex}"))
    store = open_store(place)
    Run(work, confidence=confidence, **changes).publish(store)
    return store


def dataset_at(place: Location, version: str = "") -> Location:
    """The reference to the data set, or to one of its versions."""
    return place.model_copy(update={"uri": f"{place.uri}/mails{version and '@'}{version}"})
