"""How a node writes its log: one line an event, to stderr.

What it is: `configure`, called once per process, and `get_logger`.

What it assumes and guarantees: whatever logs, our own code or a library, comes out in one form,
text for people or one JSON object a line, and each line is one write, so that the processes of a
node can share one stderr. A field that is given to `configure` is on every line.

What it does not know: what is worth logging. No value, secret or context of a client belongs in it.

Where the idea is from: structlog's guide to rendering the standard library's log in the same form.
"""

import logging
import sys

import structlog
from aiohttp.http import HttpProcessingError
from aiohttp.web import RequestPayloadError
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger


def configure(log_level: str, log_format: str, **always: object) -> None:
    """From now on this process logs at `log_level` in `log_format`, with `always` on each line."""

    def add_always(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**always, **event}

    shared: list[Processor] = [
        add_always,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
    ]
    if log_format == "json":
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
        last: list[Processor] = [
            # Plain text, for a traceback of objects would hold local variables, and so secrets.
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        shared.append(structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False))
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    level = logging.getLevelNamesMapping()[log_level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # One line per request or per selector chosen is noise at any level that a person would set.
    for noisy in ("asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    logging.getLogger("aiohttp.server").filters[:] = [_without_what_was_sent]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


def _without_what_was_sent(record: logging.LogRecord) -> bool:
    """Somebody sent what is no HTTP: that is no error of ours, and what it was is not repeated.

    aiohttp would show the line that it cannot read, which may hold a context or a value.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError | RequestPayloadError):
        sender = f" from {record.args[0]}" if isinstance(record.args, tuple) and record.args else ""
        record.msg, record.args = f"bad HTTP{sender}: {type(error).__name__}", ()
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return record.levelno >= logging.getLogger().level


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger for the module `name`; `configure`, now or later, says how it writes."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger
