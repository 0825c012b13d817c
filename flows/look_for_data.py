"""The sensor `look-for-data`: polls the files of a corpus and says by an event that they have changed.

What was seen last is a Prefect variable. Losing it costs one run that finds everything done.
Invariant: a change is told only once it has held still for a while, and is then told once.
"""

import time
from typing import Annotated

from prefect import flow
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.variables import Variable
from pydantic import Field

from candist_core.config import SourceConfig
from candist_core.edges.source import find_files
from candist_core.errors import EmptySourceError
from candist_core.paths import public_uri
from candist_core.spec import fingerprint

EVENT = "candist.data.arrived"
"""Event of new data; its resource is `candist.data.NAME`."""


@flow(name="look-for-data", flow_run_name="look for {name}", persist_result=False)
def look_for_data(
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")],
    source: SourceConfig,
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 10.0,
) -> bool:
    """Say by an event whether the files of a corpus are other than when this was last said.

    Args:
        name: name of the data: small letters, digits, dashes. The event's resource is candist.data.NAME.
        source: the corpus; only its files are listed, nothing is read.
        settle_s: files that change within so many seconds are still being written, and are told of next time.

    Returns:
        Whether there was anything new to tell.

    Raises:
        SourceError: the place cannot be listed.
    """
    state = _state(source)
    place, variable = public_uri(source.uri), f"candist_seen_{name.replace('-', '_')}"
    if state is None or Variable.get(variable) == state:
        get_run_logger().info("nothing new in %s", place)
        return False
    time.sleep(settle_s)
    if _state(source) != state:
        get_run_logger().info("%s is still being written", place)
        return False
    emit_event(EVENT, resource={"prefect.resource.id": f"candist.data.{name}"}, payload={"uri": place})
    Variable.set(variable, state, overwrite=True)
    get_run_logger().info("new data in %s", place)
    return True


def _state(source: SourceConfig) -> str | None:
    """Fingerprint of the files with sizes and tokens; None while there are none."""
    try:
        return fingerprint([file.model_dump() for file in find_files(source)])
    except EmptySourceError:
        return None
