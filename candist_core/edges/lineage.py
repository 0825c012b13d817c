"""OpenLineage: one event for each new version, for catalogues such as Marquez, DataHub or OpenMetadata.

Datasets are named as OpenLineage says (`s3://bucket` and the key, `file` and the path). An event that cannot be sent is
logged and nothing else: the version stands whoever knows of it.
"""

import logging
import os
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from candist_core.errors import ConfigError
from candist_core.manifest import Manifest
from candist_core.version import __version__

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

log = logging.getLogger(__name__)

KEY_ENV = "OPENLINEAGE_API_KEY"
"""Variable with the key of the receiver, where it wants one; the name is OpenLineage's."""
_PRODUCER = f"urn:candist:{__version__}"
_NAMESPACE = UUID("6f1a3c52-7c0e-5c8e-9d5b-3f6f0c1f9a01")
"""Of run ids made from versions: drawn once."""


def check_client() -> None:
    """See that events can be made here, before a run pays for what they are to tell of.

    Raises:
        ConfigError: the OpenLineage client is not installed.
    """
    # Other packages share its namespace, so that the outer name alone says nothing.
    if find_spec("openlineage") is None or find_spec("openlineage.client") is None:
        step = "install candist[lineage], or leave it empty"
        raise ConfigError("publish.lineage_url", "no OpenLineage client", "openlineage-python", step)


def tell_lineage(url: str, manifest: Manifest, uri: str) -> bool:
    """Send the event of a new version; False where the receiver did not take it, or there is no client to send it by.

    Args:
        url: of the receiver, such as http://marquez:5000.
        manifest: the version's.
        uri: the data set's place, `PLACE/DATASET`.
    """
    try:
        from openlineage.client import OpenLineageClient
        from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport
    except ImportError:
        log.warning("OpenLineage was not told of %s version %d: candist[lineage] is missing", uri, manifest.number)
        return False
    config = HttpConfig(url=url, timeout=10.0, retry={"total": 2, "backoff_factor": 0.3})
    if key := os.environ.get(KEY_ENV):
        config.auth = ApiKeyTokenProvider({"api_key": key})
    try:
        with closing(OpenLineageClient(transport=HttpTransport(config))) as client:
            client.emit(_event(manifest, uri))
    # Whatever its transports raise, a URL that is none among it: the client says of none which.
    except Exception as error:
        log.warning("OpenLineage was not told of %s version %d: %s", uri, manifest.number, type(error).__name__)
        return False
    return True


def _event(manifest: Manifest, uri: str) -> "RunEvent":
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import dataset_version_dataset, output_statistics_output_dataset

    tables = [file for file in manifest.files if file.path.startswith("data/")]
    size = sum(file.size_bytes for file in tables)
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=manifest.counts.rows, size=size, fileCount=len(tables)
    )
    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=f"{manifest.number}")
    namespace, name = _named(uri)
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=manifest.created_at.isoformat(),
        run=Run(runId=str(uuid5(_NAMESPACE, f"{manifest.dataset}/{manifest.version}/{manifest.run_id}"))),
        job=Job(namespace="candist", name=manifest.dataset),
        producer=_PRODUCER,
        inputs=[InputDataset(*_named(file.uri)) for file in manifest.source_files],
        outputs=[
            OutputDataset(namespace, name, facets={"version": version}, outputFacets={"outputStatistics": statistics})
        ],
    )


def _named(uri: str) -> tuple[str, str]:
    """Namespace and name of what lies at a URL or path.

    Example:
        >>> _named("s3://bucket/sets/reviews"), _named("file:///sets/reviews")
        (('s3://bucket', 'sets/reviews'), ('file', '/sets/reviews'))
    """
    url = urlsplit(uri)
    if url.scheme in ("", "file"):
        return "file", os.path.abspath(url.path)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}", url.path.lstrip("/")
