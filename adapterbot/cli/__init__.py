"""The command line: options in, exit codes out. Errors end here; nothing else maps them.

One module per command, imported for its options only; what a command does lies in
`adapterbot.commands` and is imported when it runs.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

# In the order in which the help shows them.
from adapterbot.cli import (  # noqa: F401
    answer,
    attest,
    bank,
    bank_exchange,
    bisect,
    bisect_journal,
    demo,
    doctor,
    evaluate,
    explain,
    finish,
    gate,
    history,
    init,
    inspect,
    lock,
    merge,
    mole,
    pr,
    publish,
    report,
    serve,
)
from adapterbot.cli.app import app
from adapterbot.cli.output import (
    drop_what_stderr_cannot_take,
    ignore_a_width_of_zero,
    interrupted,
    replace_what_stdout_cannot_encode,
    say,
    tell,
)
from adapterbot.errors import AdapterbotError, ExitCode, InputError
from adapterbot.files import atomic, scratch

__all__ = ["app", "main", "program"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(given)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        if error.errno == errno.ENOSPC:
            say("error: standard output: could not be written: the disk is full (free some space)")
        # What it did not take is tried once more as we end, and must not fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(int(ExitCode.FAILURE))


def _run(given: list[str]) -> NoReturn:
    as_json = "--json" in given
    try:
        _check_text(given)
        app(args=given, prog_name="adapterbot")  # whatever file began it: the action's is another
    except AdapterbotError as error:
        tell(error, as_json=as_json)
        sys.exit(int(error.exit_code))
    except OSError as error:
        failed = _of_the_machine(error)
        if failed is None:
            raise
        tell(failed, as_json=as_json)
        sys.exit(int(failed.exit_code))
    except KeyboardInterrupt:  # while the options were still being read
        interrupted(as_json=as_json)
        sys.exit(int(ExitCode.FAILURE))
    raise AssertionError("typer always exits")


def _of_the_machine(error: OSError) -> AdapterbotError | None:
    """The error to report if a path, or any path of this machine, cannot be read or written."""
    if scratch.nowhere(error):
        return scratch.not_written(error)
    if error.filename is None:
        return _removed_from_under_us() if error.errno == errno.ENOENT else None
    if error.errno in (errno.EACCES, errno.EROFS, errno.ENAMETOOLONG):
        return InputError(
            f"cannot be used: {error.strerror}",
            file=str(error.filename),
            fix="name a path that you may read and write",
        )
    if error.errno == errno.ENOSPC:
        return atomic.not_written(str(error.filename), error)
    return None


def _removed_from_under_us() -> InputError | None:
    try:
        Path.cwd()
    except FileNotFoundError:
        return InputError(
            "does not exist any more", file="the current directory", fix="go to one that does"
        )
    return None


def _check_text(arguments: Sequence[str]) -> None:
    """Bytes that are no text in this locale cannot go into a report, a lock or a request."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                "is no text in this locale",
                field=ascii(argument),
                fix="write it in UTF-8, and set such a locale: LC_ALL=C.UTF-8",
            ) from error


def _open_what_is_closed() -> None:
    """Opens closed standard streams to /dev/null: the next file would get the number of one, and
    what a library writes to the stream would end up in it."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - for as long as we are


def program(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command line as a process of its own.

    Once torch is loaded, taking it apart object by object costs a quarter of a second and frees
    what the operating system frees anyway. SIGTERM is as Ctrl-C: the kernel keeps it from the first
    process of a container that does not handle it, and `docker stop` would wait and kill. SIGHUP
    is, too, unless `nohup` has it ignored: programs that we run would outlive a closed terminal.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    _open_what_is_closed()
    replace_what_stdout_cannot_encode()
    drop_what_stderr_cannot_take()
    ignore_a_width_of_zero()
    try:
        main(arguments)
    except SystemExit as ended:
        if "torch" not in sys.modules or not isinstance(ended.code, int):
            raise
        atexit._run_exitfuncs()  # noqa: SLF001 what others registered still happens
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code)
    raise AssertionError("main always exits")
