"""The flow `collect-garbage`: what killed publishers left behind, on a schedule or by a click."""

from prefect import flow
from prefect.artifacts import create_table_artifact

from candist_core.config import Location
from candist_core.stages.gc import collect_garbage as collect

_HOUR_S = 3600.0


@flow(name="collect-garbage", flow_run_name="gc {place.uri}", persist_result=False)
def collect_garbage(place: Location, delete: bool = False, older_than_hours: float = 24.0) -> int:
    """List what killed publishers left behind, and remove it if that is wanted. Published versions are never touched.

    Args:
        place: a folder of published data sets, or one of them.
        delete: remove what may go; else it is only listed.
        older_than_hours: what was written to within so many hours stays.

    Returns:
        How many leftovers may go, or are gone.

    Raises:
        BadInputError: no data set there, or no right to list or to remove.
    """
    found = collect(place, older_than_s=older_than_hours * _HOUR_S, delete=delete)
    done = "removed" if delete else "may go"
    rows = [
        {"what": left.kind, "where": left.path, "hours": round(left.age_s / _HOUR_S, 1), "": left.kept or done}
        for left in found
    ]
    create_table_artifact(rows, key="leftovers", description=f"{len(rows)} leftovers in {place.uri}")
    return sum(not left.kept for left in found)
