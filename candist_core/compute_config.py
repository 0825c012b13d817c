"""Settings of where the work runs. Part of `RunConfig`.

The model is a form in the Prefect UI: no unions, no free dicts.
"""

import json
from enum import StrEnum
from typing import Annotated, Any, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from candist_core.spec import Settings


class DistillOn(StrEnum):
    """Where the student is trained."""

    LOCAL = "local"
    DASK = "dask"
    DEPLOYMENT = "deployment"


def _as_yaml(value: Any) -> Any:
    """A value that YAML has already read, as the text it came from: in a file `4` may stand without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


class ClusterArgument(Settings):
    """One argument of a cluster class."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Its name, for example cores or queue.")
    value: Annotated[str, BeforeValidator(_as_yaml)] = Field(
        description='Its value as YAML: 4, 16GB, true, ["--gres=gpu:1"].'
    )

    @property
    def parsed(self) -> Any:
        """The value as the class is given it.

        Example:
            >>> ClusterArgument(name="cores", value="4").parsed, ClusterArgument(name="memory", value="16GB").parsed
            (4, '16GB')
        """
        return yaml.safe_load(self.value)

    @model_validator(mode="after")
    def _value_is_yaml(self) -> Self:
        try:
            yaml.safe_load(self.value)
        except yaml.YAMLError as error:
            raise ValueError(f"found {self.value!r} for {self.name}, wanted a value in YAML; quote it") from error
        return self


class ComputeConfig(Settings):
    """Where the work runs: a local Dask cluster, one at an address, or one that a class makes (SLURM, Kubernetes)."""

    address: str | None = Field(None, description="Dask scheduler, tcp://host:8786; empty for a cluster of the run's.")
    cluster_class: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        description="Class of the run's cluster, dask_jobqueue.SLURMCluster for example; empty: workers on this "
        "machine.",
    )
    cluster_args: tuple[ClusterArgument, ...] = Field((), description="Arguments of the cluster class.")
    workers: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Workers to start; empty: on this machine one for each core that has 2 GiB of memory, else one.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Threads of a worker on this machine; empty: one, or more where memory allows no worker for each "
        "core.",
    )
    min_workers: int = Field(0, ge=0, le=10_000, description="Adaptive scaling: workers kept when there is no work.")
    max_workers: int | None = Field(
        None, ge=1, le=10_000, description="Adaptive scaling: most workers at once; empty: their number stays the same."
    )
    processes: bool = Field(True, description="Workers on this machine are processes; off: threads of one process.")
    distill: DistillOn = Field(
        DistillOn.LOCAL,
        description="Where the student is trained. local: by the flow's own process. dask: on a worker that holds the "
        "resource GPU. deployment: by the deployment below, on the work pool of its own.",
    )
    distill_deployment: str = Field(
        "distill-student/distill-student",
        pattern=r"^[^/]+/[^/]+$",
        description="Flow and deployment that train the student where distill is deployment.",
    )

    @model_validator(mode="after")
    def _is_one_cluster(self) -> Self:
        if self.address is not None:
            given = {"cluster_class": self.cluster_class, "max_workers": self.max_workers}
            if name := next((name for name, value in given.items() if value is not None), None):
                step = f"remove compute.address or compute.{name}"
                raise ValueError(f"found address beside {name}, wanted one of them: others scale that cluster; {step}")
        if self.cluster_args and self.cluster_class is None:
            raise ValueError("found cluster_args without cluster_class, wanted the class; set compute.cluster_class")
        if self.max_workers is None and self.min_workers:
            raise ValueError("found min_workers without max_workers, wanted both; set compute.max_workers")
        if self.max_workers is not None and self.max_workers < self.min_workers:
            raise ValueError(
                f"found max_workers {self.max_workers} below min_workers {self.min_workers}, wanted at least as many; "
                "raise compute.max_workers"
            )
        return self
