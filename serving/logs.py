"""Logs as JSON lines: events and errors, never a body or a value of one."""

from __future__ import annotations

import json
import logging
import os
import sys
import time


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its time in UTC and, for errors, where it happened."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "pid": os.getpid(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure() -> None:
    """Send all logs to standard error, in place of whatever handlers there are."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.getLogger("serving").setLevel(logging.INFO)
    for name in list(logging.root.manager.loggerDict):
        # MLflow and uvicorn bring handlers of their own, which write plain text.
        logger = logging.getLogger(name)
        if name.split(".")[0] in {"mlflow", "uvicorn"}:
            logger.handlers.clear()
            logger.propagate = True
