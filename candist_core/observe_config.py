"""Settings of what a run tells monitoring while it goes on. Part of `RunConfig`."""

from pydantic import Field

from candist_core.spec import Settings


class ObserveConfig(Settings):
    """What a run tells monitoring; OpenTelemetry goes by its own variables, OTEL_EXPORTER_OTLP_ENDPOINT first."""

    prometheus_port: int | None = Field(
        None, ge=0, le=65_535, description="Port of the run's Prometheus endpoint, 0 for any; empty: there is none."
    )
    prometheus_host: str = Field(
        "127.0.0.1", min_length=1, description="Address that it listens on; 0.0.0.0 lets other machines read it."
    )
