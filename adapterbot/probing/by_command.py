"""Probes by a command that the user names: argv without a shell, an environment without secrets,
and the exit codes of `git bisect run`.

0 is good, 1–124 bad, 125 undecided. Anything else (126, 127, a signal, a time-out, a program that
does not start) is a failure of the set-up: it is retried, then reported, and never called bad.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from adapterbot.bisect import Checkpoint, Observation
from adapterbot.bisect.scores import LARGEST
from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.scorers import process
from adapterbot.files import atomic

CANNOT_TELL = 125
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""")
_PARTS = re.compile(r"""[\s'"=;|&<>()]+""")
# A word that starts with what only a shell understands, or ends with its semicolon.
_OPERATOR = re.compile(r"(?:^|\s)(?:[0-9]?[<>]|[|&;])[<>|&;]*|;(?=\s|$)")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
TIMEOUT = 3600.0
RETRIES = 2
BACKOFF, LONGEST_WAIT = 1.0, 60.0  # seconds
_PLACES = ("{ckpt}", "{index}", "{step}")
# Where models and GPUs are found; none of them is a secret.
_KEPT = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Reading:
    """How a score is read from what the command wrote; at most one of the two is given.

    Attributes:
        regex: the last match's first group (or the whole match) is the score.
        json_path: keys, dot-separated, into the last line (or all) of standard output.
    """

    regex: re.Pattern[str] | None = None
    json_path: str | None = None

    @classmethod
    def of(cls, regex: str | None, json_path: str | None) -> Reading | None:
        """What was asked for on the command line; None: exit codes are enough.

        Raises:
            InputError: both are given, one is empty, or the pattern is none.
        """
        for name, given in (("--score-regex", regex), ("--score-json", json_path)):
            if given == "":
                raise InputError("is empty", field=name, fix="drop it, or say where the score is")
        if regex and json_path:
            raise InputError(
                "a score is read in one way", field="--score-regex", fix="drop --score-json"
            )
        try:
            return (
                cls(re.compile(regex) if regex else None, json_path) if regex or json_path else None
            )
        except re.error as error:
            raise InputError(
                f"is not a regular expression: {error}", field="--score-regex", fix="correct it"
            ) from error

    def score(self, output: str) -> float:
        """The score.

        Raises:
            ValueError: there is none, or none that can be reckoned with; it says which.
        """
        if self.regex:
            matches = list(self.regex.finditer(output))
            # A group that took no part in its match is None.
            found = (matches[-1][min(self.regex.groups, 1)] if matches else None) or None
        else:
            found = self._in_json(output)
        if found is None:
            raise ValueError("no score on its standard output")
        try:
            value = float(str(found))
        except ValueError:
            raise ValueError(f"its score is no number: {str(found)[:40]!r}") from None
        if not abs(value) <= LARGEST:
            raise ValueError(f"its score is {value}")
        return value

    def _in_json(self, output: str) -> object:
        for text in (output, output.strip().rpartition("\n")[2]):
            try:
                found = json.loads(text)
                for key in (self.json_path or "").split("."):
                    found = found[int(key)] if isinstance(found, list) else found[key]
            except (ValueError, KeyError, IndexError, TypeError, RecursionError):
                continue
            return found
        return None


class Command:
    """Probes checkpoints by running a command on them.

    Args:
        template: as a shell would split it, with {ckpt} and, if wanted, {index} and {step}.
        logs: folder for one log file per run.
        reading: how to read a score; None goes by the exit code.
        pass_on: names of variables that the command gets besides those that find programs.
        place: where a checkpoint lies for as long as the command runs; None: as it was named.

    Raises:
        InputError: the template cannot be split, or does not name {ckpt}; or no log can be kept.
        OurFailure: the program is not there.
    """

    def __init__(
        self,
        template: str,
        checkpoints: Sequence[Checkpoint],
        *,
        directory: Path,
        logs: Path,
        reading: Reading | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        pass_on: Sequence[str] = (),
        place: Callable[[Checkpoint], AbstractContextManager[Path]] | None = None,
    ) -> None:
        self._argv = _words(template)
        _refuse_no_names(pass_on)
        self._checkpoints = checkpoints
        self._directory = directory
        self._logs = logs
        self._reading = reading
        self._timeout = timeout
        self._retries = retries
        self._pass_on = (*_KEPT, *pass_on)
        self._place = place
        self._stopping = threading.Event()
        try:
            logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot be made: {error.strerror}",
                file=str(logs),
                fix="remove what is in its place",
            ) from error

    def files(self) -> list[Path]:
        """The files that its words name, also a word for another shell: its program, and what that
        is given."""
        named = [shutil.which(self._argv[0]) or "", *self._argv]
        named += (part for word in self._argv for part in _PARTS.split(word))
        files = (self._directory / name for name in named)
        return [file for file in files if os.path.isfile(file)]  # noqa: PTH113 a word may be long

    def forget_logs(self) -> None:
        """Remove the logs of an earlier search, which would be taken for this one's.

        Raises:
            OurFailure: one cannot be removed.
        """
        for log in self._logs.glob("[0-9]*-[0-9]*.log"):
            if log.is_file():
                try:
                    log.unlink()
                except OSError as error:
                    raise atomic.not_written(log, error) from error

    def stop(self) -> None:
        """End what runs, in whatever thread; nobody waits for what it would have said."""
        self._stopping.set()

    def __call__(self, index: int, kind: int, seen: int) -> Observation:
        """Run it once on a checkpoint; again, after a while, when it failed for reasons of ours.

        Raises:
            OurFailure: it failed so every time.
        """
        del kind
        checkpoint = self._checkpoints[index]
        if self._place is None:
            return self._probed(index, seen, checkpoint.path)
        try:
            with self._place(checkpoint) as path:
                return self._probed(index, seen, str(path))
        except InputError as error:
            return Observation(None, error.message)

    def _probed(self, index: int, seen: int, path: str) -> Observation:
        checkpoint = self._checkpoints[index]
        argv = self._filled(index, checkpoint, path)
        for attempt in range(self._retries + 1):
            log = self._logs / f"{index:04d}-{seen:03d}{f'-retry{attempt}' if attempt else ''}.log"
            self._must_be_there(checkpoint, path)
            found, why = self._once(argv, log)
            if found is None or found.outcome is not False:
                # What was not there to the end was not found bad by its weights.
                self._must_be_there(checkpoint, path)
            if found is not None:
                return found
            if attempt < self._retries:
                self._stopping.wait(min(BACKOFF * 4**attempt, LONGEST_WAIT))
        times = f", {self._retries + 1} times" if self._retries else ""
        raise OurFailure(
            f"the eval command failed on {checkpoint.label}{times}: {why}",
            field="--eval-command",
            fix=f"see {log}; then go on with --resume",
        )

    def _must_be_there(self, checkpoint: Checkpoint, path: str) -> None:
        if not os.path.lexists(self._directory / path):
            raise OurFailure(
                f"{checkpoint.label} is no longer there",
                file=path,
                field="checkpoints",
                fix="restore it; then go on with --resume",
            )

    def _filled(self, index: int, checkpoint: Checkpoint, path: str) -> list[str]:
        """The words with their places filled in one pass: a name is never taken for a place."""
        values = {
            "{ckpt}": path,
            "{index}": str(index),
            "{step}": "" if checkpoint.step is None else str(checkpoint.step),
        }
        places = re.compile("|".join(map(re.escape, _PLACES)))
        return [places.sub(lambda match: values[match.group()], word) for word in self._argv]

    def _once(self, argv: Sequence[str], log: Path) -> tuple[Observation | None, str]:
        """What one run said, or None and why it says nothing of the checkpoint."""
        with tempfile.TemporaryDirectory(prefix="adapterbot-") as home:
            env = process.environment(Path(home))
            env |= {name: os.environ[name] for name in self._pass_on if name in os.environ}
            try:
                done = process.run(
                    argv,
                    directory=self._directory,
                    env=env,
                    stdin=b"",
                    seconds=self._timeout,
                    stop=self._stopping,
                )
            except process.ProcessTimeout:
                _keep(log, f"still running after {self._timeout:g} s\n".encode())
                return None, f"still running after {self._timeout:g} s"
            except (OSError, ValueError) as error:
                _keep(log, f"{error}\n".encode())
                return None, f"it does not start: {error}"
        status = f"exit code {done.status}" if done.status >= 0 else f"signal {-done.status}"
        _keep(log, done.output + done.errors + f"\n[{status}]\n".encode())
        if done.status == CANNOT_TELL:
            return Observation(None, "exit code 125: it cannot tell"), ""
        if not 0 <= done.status < CANNOT_TELL:
            return None, status
        if self._reading is None:
            return Observation(done.status != 0, status), ""
        try:
            score = self._reading.score(done.output.decode("utf-8", "replace"))
        except ValueError as error:
            return None, f"{status}, and {error}"
        return Observation(score, f"score {score:.6g}"), ""


def _keep(log: Path, content: bytes) -> None:
    """What a run wrote, in place of what one of an earlier search did."""
    try:
        log.write_bytes(content)
    except OSError as error:
        raise atomic.not_written(log, error) from error


def _words(template: str) -> list[str]:
    """A command's words, as a shell would split it."""
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise _unusable(f"cannot be split into words: {error}", "close its quotes") from error
    if not any("{ckpt}" in word for word in words):
        raise _unusable(
            "does not say where the checkpoint goes: {ckpt} is missing",
            "add {ckpt}, its path; {index} and {step} may stand beside it",
        )
    operator = _OPERATOR.search(_QUOTED.sub("_", template))
    if operator:
        raise _unusable(
            f"holds {operator[0].strip()}, but no shell runs it",
            "name a script that does; or quote it, if it is a word of the command",
        )
    program = words[0]
    if _ASSIGNMENT.match(program):
        problem = f"begins with {program.partition('=')[0]}=, which only a shell understands"
        raise _unusable(problem, "write env before it")
    if "{" not in program and shutil.which(program, path=os.environ.get("PATH")) is None:
        raise OurFailure(
            f"{program}: there is no such program",
            field="--eval-command",
            fix="install it, or name it by its path",
        )
    return words


def _unusable(problem: str, fix: str) -> InputError:
    return InputError(problem, field="--eval-command", fix=fix)


def _refuse_no_names(variables: Sequence[str]) -> None:
    for name in variables:
        if name.startswith(("GITHUB_", "ACTIONS_", "RUNNER_")):
            raise InputError(
                f"{name} is the runner's and never passed on", field="--pass-env", fix="drop it"
            )
        if not name or "=" in name:
            raise InputError(
                f"{name.partition('=')[0]!r} is to be the name of a variable, without its value",
                field="--pass-env",
                fix="export the variable, and give its name",
            )
