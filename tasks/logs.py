"""Logs as JSON lines, for those who collect them: CANDIST_LOG_FORMAT=json, in the environment of flow and workers.

Each line says which run, stage and shard it is about. No text of the corpus, no reply and no key is ever logged.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

VARIABLE = "CANDIST_LOG_FORMAT"
LOGGERS = ("candist_core", "prefect.flow_runs", "prefect.task_runs")
_about: ContextVar[dict[str, str] | None] = ContextVar("candist_log_about", default=None)


@contextmanager
def logged_about(**about: str) -> Iterator[None]:
    """What is logged inside is about this: stage, shard.

    Example:
        >>> with logged_about(stage="annotate"), logged_about(shard="000012"):
        ...     record = logging.LogRecord("candist_core.annotate", logging.INFO, "", 0, "done", None, None)
        ...     line = json.loads(JsonFormatter().format(record))
        >>> line["stage"], line["shard"], line["message"]
        ('annotate', '000012', 'done')
    """
    token = _about.set({**(_about.get() or {}), **about})
    try:
        yield
    finally:
        _about.reset(token)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, run, run_id, task, stage, shard."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        # Prefect's run loggers name the run and the task.
        for key, name in (("run", "flow_run_name"), ("run_id", "flow_run_id"), ("task", "task_run_name")):
            if value := getattr(record, name, None):
                line[key] = str(value)
        line |= _about.get() or {}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Lines(logging.StreamHandler[Any]):
    """Writes JSON lines to stderr."""


def logs_json() -> bool:
    """Whether the environment asks for JSON lines."""
    return os.environ.get(VARIABLE) == "json"


def set_up_logs() -> None:
    """Log as JSON lines in this process if the environment asks for it; again is no harm."""
    if not logs_json():
        return
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _Lines) for handler in logger.handlers):
            handler = _Lines(sys.stderr)
            handler.setFormatter(JsonFormatter())
            logger.addHandler(handler)
            logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
