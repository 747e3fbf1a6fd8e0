"""``--log-format json``: each log event as a flat JSON object in a line."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from twisted.internet.interfaces import IReactorThreads
from twisted.logger import FileLogObserver, ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python import logfile

from txserf.arguments import reactor_or_global


def flat(event: LogEvent) -> dict[str, Any]:
    """
    Return a log event as an object of scalars.

    It has ``time`` (ISO 8601, UTC), ``level``, ``namespace`` and ``text``; then the event's own fields, if they
    are text, numbers, booleans or None; then a failure's ``traceback``.
    """
    time = datetime.fromtimestamp(event.get("log_time", 0.0), timezone.utc)
    told: dict[str, Any] = {
        "time": time.isoformat(timespec="microseconds"),
        "level": event.get("log_level", LogLevel.info).name,
        "namespace": event.get("log_namespace", ""),
        "text": formatEvent(event),
    }
    if "isError" not in event:  # an event of twisted.python.log has fields that repeat all this
        for name, value in event.items():
            if not name.startswith("log_") and name not in told and _is_scalar(value):
                told[name] = value
    failure = event.get("log_failure")
    if failure is not None:
        told["traceback"] = failure.getTraceback()
    return told


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, int))


def line(event: LogEvent) -> str:
    """Return a log event as a line of ASCII."""
    return json.dumps(flat(event)) + "\n"


def observer(twistd: Mapping[str, Any]) -> ILogObserver:
    """
    Make the observer that writes where ``twistd`` would write its own log.

    :param twistd: the options of ``twistd`` itself. A log file is rotated on SIGUSR1, as by ``twistd``.
    """
    name = twistd.get("logfile")
    if name == "-" or (not name and twistd.get("nodaemon")):
        return FileLogObserver(sys.stdout, line)
    file = logfile.LogFile.fromFullPath(name or "twistd.log")

    def rotate(*_: object) -> None:
        IReactorThreads(reactor_or_global()).callFromThread(file.rotate)

    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, rotate)
    return FileLogObserver(file, line)
