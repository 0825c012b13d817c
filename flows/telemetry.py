"""What a run tells monitoring: traces and metrics over OpenTelemetry, a Prometheus endpoint.

All of it comes from what the flow's own process hears, so workers need no set-up. Numbers alone leave the run: names
of stages and shards, counts, seconds, dollars.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from candist_core.config import RunConfig
from candist_core.errors import ConfigError
from flows.progress import StageNumbers, Watch

_ENDPOINTS = tuple(f"OTEL_EXPORTER_OTLP_{part}ENDPOINT" for part in ("", "TRACES_", "METRICS_"))
_FLUSH_MS = 5_000

_NUMBERS = {
    "done": ("candist_stage_done", "Units of a stage that are done, texts or shards"),
    "total": ("candist_stage_total", "Units that a stage has in all"),
    "cost_usd": ("candist_stage_cost_usd", "US dollars that a stage's replies cost in this run"),
    "seconds": ("candist_stage_seconds", "Seconds that a stage has taken so far"),
}


@contextmanager
def observed(config: RunConfig, run: str, watch: Watch) -> Iterator[None]:
    """Tell monitoring of the run inside, as far as it is asked for.

    Raises:
        ConfigError: the Prometheus port is taken.
    """
    with ExitStack() as stack:
        if config.observe.prometheus_port is not None:
            stack.enter_context(_prometheus(config, watch))
        if any(os.environ.get(name) for name in _ENDPOINTS) and os.environ.get("OTEL_SDK_DISABLED") != "true":
            if find_spec("opentelemetry.exporter") and find_spec("opentelemetry.sdk"):
                stack.enter_context(_open_telemetry(config, run, watch))
            else:
                watch.say("OpenTelemetry is asked for and not installed; `pip install candist[otel]` brings it")
        yield


@contextmanager
def _prometheus(config: RunConfig, watch: Watch) -> Iterator[None]:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Stages(Collector):
        """The stages of one run, read when asked for."""

        def collect(self) -> Iterable[GaugeMetricFamily]:
            """One gauge for each kind of number."""
            for field, (name, help_text) in _NUMBERS.items():
                family = GaugeMetricFamily(name, help_text, labels=["run", "stage", "unit"])
                for stage in watch.numbers():
                    family.add_metric([config.name, stage.stage, stage.unit], getattr(stage, field))
                yield family

    registry = CollectorRegistry()
    registry.register(Stages())
    host, port = config.observe.prometheus_host, config.observe.prometheus_port or 0
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"observe.prometheus_port {port}", error.strerror or "an error", f"a free port on {host}", "choose another"
        ) from error
    watch.say(f"Prometheus endpoint: http://{host}:{server.server_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _open_telemetry(config: RunConfig, run: str, watch: Watch) -> Iterator[None]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "candist"}
    resource = Resource.create({**name, "candist.run": config.name, "candist.run_id": run})
    # Providers of the run's own: the global ones may be someone else's.
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    meters = MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource, shutdown_on_exit=False
    )
    meter, tracer = meters.get_meter("candist"), tracers.get_tracer("candist")

    def observe(field: str) -> Any:
        def callback(options: CallbackOptions) -> Iterable[Observation]:
            for stage in watch.numbers():
                yield Observation(getattr(stage, field), {"stage": stage.stage, "unit": stage.unit})

        return callback

    for field, (metric, help_text) in _NUMBERS.items():
        meter.create_observable_gauge(metric.replace("_", ".", 2), [observe(field)], description=help_text)
    root = tracer.start_span(f"run {config.name}")
    spans = _Spans(tracer, set_span_in_context(root))
    watch.observers.append(spans)
    try:
        yield
    except BaseException as error:
        # The kind alone: a sentence may quote what a user gave.
        root.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        watch.observers.remove(spans)
        root.end()
        for provider in (tracers, meters):
            provider.force_flush(_FLUSH_MS)
            provider.shutdown()


class _Spans:
    """Stages and groups of shards as spans below the run's."""

    def __init__(self, tracer: Any, of_run: Any) -> None:
        self._tracer, self._of_run, self._of_stage = tracer, of_run, of_run
        self._stage: Any = None

    def stage_began(self, stage: StageNumbers) -> None:
        """Open the stage's span."""
        from opentelemetry.trace import set_span_in_context

        self._stage = self._tracer.start_span(stage.stage, self._of_run)
        self._of_stage = set_span_in_context(self._stage, self._of_run)

    def stage_ended(self, stage: StageNumbers) -> None:
        """Close it, with its numbers."""
        for name in ("done", "total", "unit", "cost_usd"):
            self._stage.set_attribute(f"candist.{name}", getattr(stage, name))
        self._stage.end()
        self._of_stage = self._of_run

    def group_ended(self, name: str, n_shards: int, n_failed: int, seconds: float) -> None:
        """A span of the length that its worker has told."""
        now_ns = time.time_ns()
        span = self._tracer.start_span(f"shards {name}", self._of_stage, start_time=now_ns - int(seconds * 1e9))
        span.set_attribute("candist.shards", n_shards)
        span.set_attribute("candist.shards_failed", n_failed)
        span.end(end_time=now_ns)
