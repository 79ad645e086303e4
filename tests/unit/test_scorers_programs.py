"""Scorers that are programs: what they see, how they end, and that nothing of them stays."""

import errno
import json
import os
import shutil
import sys
import tempfile
import time

import pytest

from adapterbot.errors import InputError, OurFailure
from adapterbot.eval import scorers
from adapterbot.eval.answers import Answer, Sample
from adapterbot.eval.scorers import process
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from tests.processes import alive

SAMPLE = Sample(id="s", prompt="p", expected="4", fields={"expected": 4, "unit": "km"})
ANSWER = Answer(text="::set-output name=x::y\n4")


def command(*argv, **options):
    return scorers.get("command", {"argv": list(argv), **options})


def python(source, **options):
    return command(sys.executable, "-c", source, **options)


@pytest.mark.parametrize(
    ("printed", "score", "missing"),
    [
        ("0.25", 0.25, None),
        ("true", 1.0, None),
        ('{"score": 3}', 3.0, None),
        ('{"missing": "no unit"}', None, "no unit"),
        ("", None, "neither a number nor JSON"),
        ("NaN", None, "neither a number nor JSON"),
        ('"1"', None, "no number"),
        ('{"score": null}', None, "no number"),
        ("[1]", None, "no number"),
        ("1 " * 50_000, None, "neither a number nor JSON"),
    ],
)
def test_what_a_command_replies(printed, score, missing):
    found = command("printf", "%s", printed).score(SAMPLE, ANSWER)
    assert found.score == score
    assert missing is None or missing in found.missing


def test_a_command_is_told_the_sample_and_the_output():
    source = (
        "import json, sys; asked = json.load(sys.stdin); "
        "fields, output = asked['fields'], asked['output']; "
        "print(int(fields['unit'] == 'km' and output[-1] == '4' and asked['expected'] == '4'))"
    )
    assert python(source).score(SAMPLE, ANSWER).score == 1.0


def test_the_environment_holds_no_secret(monkeypatch):
    for name in (
        "GITHUB_TOKEN",
        "GITHUB_OUTPUT",
        "ACTIONS_RUNTIME_TOKEN",
        "OPENAI_API_KEY",
        "HOME",
    ):
        monkeypatch.setenv(name, "secret")
    source = "import os; print(int(any('secret' in v for v in os.environ.values())))"
    assert python(source).score(SAMPLE, ANSWER).score == 0.0


def test_a_command_is_run_without_a_shell():
    found = command("echo", "1; echo 2").score(SAMPLE, ANSWER)
    assert found.score is None


def test_a_failing_command_says_why():
    found = python("import sys; print('x\\nno licence', file=sys.stderr); sys.exit(3)").score(
        SAMPLE, ANSWER
    )
    assert found == (None, "the command ended with status 3: no licence", ())


def test_a_missing_program_is_the_suites_mistake():
    with pytest.raises(InputError, match="cannot run 'no-such-program'"):
        command("no-such-program").score(SAMPLE, ANSWER)


def test_a_machine_without_a_shell_is_told_so_and_starts_no_program(tmp_path, monkeypatch):
    """Nobody would end it when we are killed; the suite's program was called missing."""
    monkeypatch.setattr(process, "_SHELL", str(tmp_path / "sh"))
    with pytest.raises(OurFailure, match="is missing; without it, programs would go on"):
        command("touch", str(tmp_path / "ran")).score(SAMPLE, ANSWER)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "kind", ["python:checks.dates:score", {"name": "command", "argv": ["true"]}]
)
def test_no_room_for_temporary_files_is_no_verdict_on_a_sample(tmp_path, monkeypatch, kind):
    """The function was said to have ended its process, and the program to be missing."""
    task = suite(tmp_path, kind, **{"checks/dates.py": "def score(sample, output):\n    return 1"})
    scorer = scorers.get(task.scorer, task.scorer_options)
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # where nothing can be made
    with pytest.raises(OurFailure, match=r"no temporary file can be written: .*TMPDIR"):
        scorer.score(task.samples[0], ANSWER)


@pytest.mark.parametrize("leader_waits", [True, False])
def test_the_whole_process_group_ends(tmp_path, leader_waits):
    """A child that outlives its parent, and holds its output open, goes with it."""
    note = tmp_path / "pid"
    child = "import time; time.sleep(600)"
    source = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        f"open({str(note)!r}, 'w').write(str(child.pid)); "
        "print(1, flush=True); "
    ) + ("time.sleep(600)" if leader_waits else "")
    started = time.monotonic()
    found = python(source, timeout=2.0).score(SAMPLE, ANSWER)
    assert time.monotonic() - started < 60
    assert found.score == (None if leader_waits else 1.0)
    for _ in range(100):
        if not alive(int(note.read_text())):
            break
        time.sleep(0.02)
    assert not alive(int(note.read_text()))


@pytest.mark.parametrize("leader_waits", [True, False])
def test_programs_end_on_a_system_that_cannot_look_at_an_unreaped_leader(
    tmp_path, monkeypatch, leader_waits
):
    """macOS before Python 3.13."""
    monkeypatch.delattr(os, "waitid", raising=False)
    test_the_whole_process_group_ends(tmp_path, leader_waits)


def test_a_group_that_has_ended_need_not_be_killed(monkeypatch):
    """macOS refuses to signal processes that are dead and not reaped."""

    def refused(group, number):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "killpg", refused)
    assert python("print(1)").score(SAMPLE, ANSWER).score == 1.0


def test_endless_output_is_cut_and_ended():
    started = time.monotonic()
    found = python("while True: print('x' * 1000)", timeout=1.0).score(SAMPLE, ANSWER)
    assert time.monotonic() - started < 60
    assert found.missing == "the command did not end in 1 s"


def test_a_command_that_never_reads_cannot_block_us():
    big = SAMPLE.model_copy(update={"prompt": "x" * 5_000_000})
    assert python("print(1)").score(big, ANSWER).score == 1.0


def suite(tmp_path, scorer, **files):
    folder = tmp_path / "evals"
    folder.mkdir(exist_ok=True)
    (folder / "d.jsonl").write_text('{"prompt": "p", "expected": "4"}\n')
    (folder / "s.yaml").write_text(
        json.dumps(
            {
                "version": 1,
                "tasks": [{"name": "t", "data": "d.jsonl", "margin": 0.1, "scorer": scorer}],
            }
        )
    )
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return load_suite(WorkTree(tmp_path), "evals/s.yaml").tasks[0]


def test_a_command_runs_with_the_files_of_the_suites_ref(tmp_path):
    files = {"check.py": "import sys, lib; print(lib.VALUE)", "lib.py": "VALUE = 0.5"}
    spec = {"name": "command", "argv": [sys.executable, "check.py"], "files": sorted(files)}
    task = suite(tmp_path, spec, **files)
    shutil.rmtree(tmp_path / "evals")  # what the working tree does later does not matter
    scorer = scorers.get(task.scorer, task.scorer_options)
    assert scorer.score(task.samples[0], ANSWER).score == 0.5
    scorer.close()
    changed = suite(tmp_path, spec, **{**files, "lib.py": "VALUE = 0.6"})
    assert changed.digest != task.digest


class TestPython:
    def scorer(self, tmp_path, source, function="score", **options):
        spec = {"name": "python", "module": "checks.dates", "function": function, **options}
        task = suite(tmp_path, spec, **{"checks/dates.py": source})
        return scorers.get(task.scorer, task.scorer_options)

    def test_a_function_can_be_named_in_one_word(self, tmp_path):
        source = "def score(sample, output):\n    return output.endswith(sample['expected'])"
        task = suite(tmp_path, "python:checks.dates:score", **{"checks/dates.py": source})
        scorer = scorers.get(task.scorer, task.scorer_options)
        assert scorer.score(task.samples[0], ANSWER).score == 1.0
        assert scorer.score(task.samples[0], Answer(text="5")).score == 0.0
        scorer.close()

    def test_one_process_for_all_samples_and_prints_are_no_replies(self, tmp_path):
        source = (
            "import os\nprint(99)\ndef score(sample, output):\n"
            "    print('{\"score\": 99}', flush=True)\n    return os.getpid()"
        )
        scorer = self.scorer(tmp_path, source)
        pids = {scorer.score(SAMPLE, ANSWER).score for _ in range(5)}
        assert len(pids) == 1
        scorer.close()
        assert not alive(int(pids.pop()))

    @pytest.mark.parametrize(
        ("body", "missing"),
        [
            ("raise ValueError('no date')", "ValueError: no date"),
            ("return 'x'", "returned a str"),
            ("return float('nan')", "not JSON"),
            ("return {'score': object()}", "TypeError"),
            ("import time; time.sleep(60)", "did not return in 0.5 s"),
            ("import os; os._exit(3)", "ended its process"),
            ("return {'missing': 'x' * 1000}", "x" * 300),
            ("return {'missing': 'x' * 1_000_000}", "not JSON"),
        ],
    )
    def test_what_goes_wrong_is_no_score_and_the_next_sample_is_judged(
        self, tmp_path, body, missing
    ):
        source = f"def score(sample, output):\n    if output == 'ok': return 1\n    {body}"
        scorer = self.scorer(tmp_path, source, timeout=0.5)
        found = scorer.score(SAMPLE, ANSWER)
        assert found.score is None
        assert missing in found.missing
        assert scorer.score(SAMPLE, Answer(text="ok")).score == 1.0
        scorer.close()

    @pytest.mark.parametrize(
        ("source", "function", "reason"),
        [
            ("import nowhere_to_be_found", "score", "ModuleNotFoundError"),
            ("x = 1", "score", "AttributeError"),
            ("def", "score", "SyntaxError"),
            ("raise SystemExit", "score", "SystemExit"),
        ],
    )
    def test_what_cannot_be_loaded_is_the_suites_mistake(self, tmp_path, source, function, reason):
        scorer = self.scorer(tmp_path, source, function)
        with pytest.raises(InputError, match=reason):
            scorer.score(SAMPLE, ANSWER)
        scorer.close()

    def test_it_is_isolated(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("GITHUB_TOKEN", "secret")
        (tmp_path / "outside.py").write_text("")
        source = (
            "import importlib.util, os\nfound = importlib.util.find_spec('outside') is not None\n"
            "def score(sample, output): return found + ('GITHUB_TOKEN' in os.environ)"
        )
        scorer = self.scorer(tmp_path, source)
        assert scorer.score(SAMPLE, ANSWER).score == 0.0
        scorer.close()

    def test_big_samples_pass(self, tmp_path):
        scorer = self.scorer(tmp_path, "def score(sample, output): return len(output)")
        assert scorer.score(SAMPLE, Answer(text="ä" * 900_000)).score == 900_000
        scorer.close()

    def test_a_missing_module(self, tmp_path):
        with pytest.raises(InputError, match="does not exist"):
            suite(tmp_path, "python:nowhere:score")

    def test_a_file_outside_the_repository(self, tmp_path):
        with pytest.raises(InputError, match="leaves the repository"):
            self.scorer(tmp_path, "", files=["../../etc/passwd"])


def test_the_test_can_see_processes():
    assert alive(os.getpid())
    assert not alive(2**30)
