"""How the log looks: one line a message for people, or one JSON object a line for programs."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

QUIET = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "aiohttp",
    "openai",
    "uvicorn.access",
)
NOISY = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")  # warn at every load and request


REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the HTTP request that this code runs for; "" where there is none, as on lanes."""


class ConsoleFormatter(logging.Formatter):
    """A line for people; what belongs to a request ends with its id."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Renders the line without what may follow it, a traceback."""
        request = REQUEST_ID.get()
        return super().formatMessage(record) + (f" [request {request}]" if request else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message.

    request_id: of the request that it belongs to. traceback: of an error.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Renders one record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := REQUEST_ID.get():
            line["request_id"] = request
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(level: str, style: str) -> None:
    """Sends every log message to standard error. Called once, by `app.py`.

    HTTP libraries log whole addresses, which may carry signatures, and OpenAI's client what is asked: they
    are heard only when something is wrong.
    """
    out = logging.StreamHandler(sys.stderr)
    console = ConsoleFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    out.setFormatter(JsonFormatter() if style == "json" else console)
    logging.basicConfig(level=level, handlers=[out], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
