"""This process as the driver of a Ray cluster. (ray)

What Ray does to a driver for the sake of notebooks is undone here: it has workers import from the
driver's current directory before anything else, takes SIGTERM for itself and writes to standard
output.
"""

from __future__ import annotations

import logging
import signal
import socket
import sysconfig
import threading
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._private import worker as driver

from adapterbot.errors import InputError

_LOG = logging.getLogger(__name__)

# Ray itself would go on trying for many minutes.
_ANSWERS_SECONDS = 10.0


def join(address: str) -> None:
    """Connects this process to a cluster, or starts one for `local`.

    Raises:
        InputError: there is none at the address, or it is of another version.
    """
    # Neither is standard output a place for what Ray has to say, nor has it a setting for another.
    driver.print_to_stdstream = _log
    logging.getLogger("ray").propagate = True
    ended_by = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        # The current directory may be a pull request's: a `json.py` in it would run in every
        # worker that sees it. The standard library comes first on their path anyway.
        with chdir(sysconfig.get_path("stdlib")):
            ray.init(
                address=address,
                log_to_driver=False,
                include_dashboard=False,
                configure_logging=False,
            )
    except (OSError, ValueError, RuntimeError) as error:
        # Of versions that differ Ray tells in several lines.
        reason = " ".join(str(error).partition("\n\n")[0].split())
        raise InputError(
            f"no Ray cluster can be joined at {address!r}: {reason}",
            field="--ray",
            fix="name a running cluster, or `local` to start one on this machine",
        ) from error
    finally:
        # Ray's would end this process before whoever is to report its end could.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ended_by)


def seen_everywhere(base: Path | str) -> str:
    """A base model as a worker can find it, whose current directory is another."""
    return str(Path(base).absolute()) if Path(base).is_dir() else str(base)


def _knock(address: str) -> None:
    """
    Raises:
        OSError: the address has a host and a port, and nobody answers there.
    """
    place = address.removeprefix("ray://")
    if ":" not in place or "://" in place:
        return
    found = urlsplit(f"//{place}")
    if found.hostname and found.port:
        socket.create_connection((found.hostname, found.port), _ANSWERS_SECONDS).close()


def _log(data: Mapping[str, Any], **_: object) -> None:
    """What Ray has to say of the cluster: that a node died, or a worker for want of memory."""
    for line in data["lines"]:
        _LOG.warning("%s", line)
