"""bisect by a command: real processes, the exit-code contract, hostile names, kill −9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from adapterbot.commands.bisect_command import CommandOptions, run
from adapterbot.errors import InputError
from adapterbot.probing.by_command import Reading
from tests import command_line
from tests.processes import alive

JUDGE = """
import os, sys, pathlib
with open({record!r}, "a") as record:
    record.write(sys.argv[1] + "\\0")
{body}
"""


@pytest.fixture
def place(tmp_path):
    """A folder of eight checkpoints, and a way to write the judge of them."""
    for step in range(100, 900, 100):
        (tmp_path / f"ckpt-{step}").mkdir()

    def judge(body: str) -> str:
        script = tmp_path / "judge.py"
        record = str(tmp_path / "record")
        script.write_text(JUDGE.format(record=record, body=body))
        return f"{sys.executable} judge.py {{ckpt}}"

    tmp_path.joinpath("record").write_text("")
    return tmp_path, judge


def bisect(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GITHUB_TOKEN": "s3cret", **options}
    return command_line.run("bisect", *arguments, cwd=folder, env=environment)


def asked(folder: Path) -> list[str]:
    return (folder / "record").read_text().split("\0")[:-1]


STEP = "step = int(sys.argv[1].rpartition('-')[2])\n"


def test_who_has_no_home_searches_what_is_here(place, monkeypatch) -> None:
    """A container's user without one was refused for the place of scores that no command has."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    folder, judge = place
    command = judge(STEP + "sys.exit(step >= 500)")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Path, "home", homeless)
    search = CommandOptions(("ckpt-*",), command, outcomes="exact")
    assert run(search, {}).first_broken == "ckpt-500"
    with pytest.raises(InputError, match="this user has no home folder"):
        run(replace(search, checkpoints=("hf://org/name",)), {})


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_search_begins_where_more_of_the_data_changed(place, tmp_path, elsewhere) -> None:
    folder, judge = place
    command = judge(STEP + "sys.exit(step >= 500)")
    search = ("--eval-command", command, "--outcomes", "exact", "--prior", "data")
    done = bisect(folder, "ckpt-*", *search)
    assert done.returncode == 2
    assert "--prior data: needs to know which rows each checkpoint was trained on" in done.stderr
    assert not asked(folder)
    # What costs nothing to find out is found out before data are read.
    done = bisect(folder, "ckpt-*", *search, "--output", str(folder))
    assert f"error: {folder}: --output, -o: is a directory" in done.stderr
    (folder / "adapterbot.yaml").write_text(
        "adapters:\n  - {path: adapter, archive_data: {files: 'data/{step}.jsonl', holds: added}}\n"
    )
    (folder / "data").mkdir()
    for step in range(100, 900, 100):
        rows = (f'{{"q": "{step} {i}"}}\n' for i in range(200 if step == 500 else 1))
        (folder / "data" / f"{step}.jsonl").write_text("".join(rows))
    named = [
        str(folder / f"ckpt-{step}") if elsewhere else f"ckpt-{step}"
        for step in range(100, 900, 100)
    ]
    done = bisect(folder, *named, *search)
    assert done.returncode == 3, done.stderr
    steps = [int(path.rpartition("-")[2]) for path in asked(folder)]
    # The two ends, and both sides of the one step that brought data.
    assert sorted(steps[:2]) == [100, 800]
    assert sorted(steps[2:]) == [400, 500]


def test_the_rows_between_good_and_bad_are_told(place) -> None:
    folder, judge = place
    (folder / "adapterbot.yaml").write_text(
        "adapters:\n  - path: adapter\n    archive_data:\n"
        "      files: data/{step}.jsonl\n      holds: added\n"
    )
    (folder / "data").mkdir()
    for step in range(100, 900, 100):
        rows = "".join(f'{{"q": "{step} {i}"}}\n' for i in range(step // 100))
        (folder / "data" / f"{step}.jsonl").write_text(rows)
    command = judge(STEP + "sys.exit(step >= 500)")
    done = bisect(folder, "ckpt-*", "--eval-command", command, "--outcomes", "exact")
    assert done.returncode == 3, done.stderr
    assert "training data since ckpt-400: +5 rows\n" in done.stdout
    between = json.loads((folder / ".adapterbot" / "bisect.json").read_text())["between"]
    assert between["data"]["added"] == 5
    assert all(row["after"].startswith('{"q": "500 ') for row in between["data"]["added_rows"])
    (folder / "data" / "500.jsonl").unlink()
    (folder / "data" / "500.jsonl").symlink_to("/etc/passwd")
    done = bisect(folder, "ckpt-*", "--eval-command", command, "--outcomes", "exact", "--json")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["first_broken"] == "ckpt-500"
    assert found["between"]["data"] is None
    assert "data/500.jsonl: is a symbolic link" in found["between"]["notes"][0]


def test_names_the_first_bad_checkpoint_in_natural_order(place) -> None:
    folder, judge = place
    (folder / "ckpt-1000").mkdir()  # sorted by number, not by letter
    command = judge(STEP + "sys.exit(step >= 600)")
    done = bisect(
        folder, "ckpt-*", "--eval-command", command, "--outcomes", "exact", "--json", "-o", "b.json"
    )
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((folder / "b.json").read_text())
    assert found["verdict"] == "BROKEN_AT"
    assert found["first_broken"] == "ckpt-600"
    assert found["last_good"] == "ckpt-500"
    assert found["probes"] == len(found["steps"]) == len(asked(folder)) <= 5
    assert {(step["checkpoint"], step["ok"]) for step in found["steps"]} >= {
        ("ckpt-500", True),
        ("ckpt-600", False),
    }
    assert len(list((folder / ".adapterbot" / "bisect-logs").iterdir())) == found["probes"]


@pytest.mark.parametrize(
    ("body", "verdict", "first", "code"),
    [
        ("sys.exit(0)", "ALL_OK", None, 0),
        ("sys.exit(1)", "BROKEN_AT", "ckpt-100", 3),
    ],
)
def test_the_ends_come_first_and_may_end_it(place, body, verdict, first, code) -> None:
    folder, judge = place
    exact = ("--outcomes", "exact", "--json")
    done = bisect(folder, "ckpt-*", "--eval-command", judge(body), *exact)
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["first_broken"]) == (verdict, first)
    assert found["probes"] <= 2


@pytest.mark.parametrize(
    "more", [("--probes-max", "6"), ("--outcomes", "repeat", "--confidence", "0.97")]
)
def test_a_command_that_never_fails_is_no_finding_however_unsure(place, more) -> None:
    """A greedy eval that passes everywhere exited with 3 and named the last checkpoint, since its
    eight answers cannot bring "none is broken" to what was asked for."""
    folder, judge = place
    done = bisect(folder, "ckpt-*", "--eval-command", judge("sys.exit(0)"), "--json", *more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["first_broken"]) == ("ALL_OK", None)
    assert found["none_broken"] < 0.97
    assert "less than was asked for" in found["note"]


def test_a_limit_that_leaves_most_unasked_is_no_all_clear(place) -> None:
    """Exit code 0 after two passes would let a pipeline go on that has looked at nothing."""
    folder, judge = place
    done = bisect(
        folder, "ckpt-*", "--eval-command", judge("sys.exit(0)"), "--json", "--probes-max", "2"
    )
    found = json.loads(done.stdout)
    assert found["none_broken"] <= 0.8
    assert (found["verdict"], done.returncode) == ("BROKEN_WITHIN", 3)


@pytest.mark.parametrize("steps", [(100, 200), (100, 200, 300)])
def test_a_few_checkpoints_that_all_pass_are_no_finding(place, steps) -> None:
    folder, judge = place
    done = bisect(
        folder,
        *(f"ckpt-{step}" for step in steps),
        *("--eval-command", judge("sys.exit(0)"), "--outcomes", "repeat", "--json"),
    )
    found = json.loads(done.stdout)
    assert (found["verdict"], found["probes"], done.returncode) == ("ALL_OK", len(steps), 0)


@pytest.mark.parametrize("outcomes", ["exact", "repeat", "noisy"])
def test_an_end_that_is_assumed_to_be_bad_is_no_all_clear(place, outcomes) -> None:
    folder, judge = place
    done = bisect(
        folder,
        *("ckpt-*", "--eval-command", judge("sys.exit(0)"), "--outcomes", outcomes),
        *("--assume-endpoints", "--probes-max", "100", "--json"),
    )
    found = json.loads(done.stdout)
    assert (found["first_broken"], found["none_broken"], done.returncode) == ("ckpt-800", 0.0, 3)


@pytest.mark.parametrize("outcomes", ["exact", "repeat", "noisy"])
def test_newest_checkpoints_that_cannot_tell_are_no_all_clear(place, outcomes) -> None:
    """It said ALL_OK with a probability of 23 %; and, of a noisy command, never an end."""
    folder, judge = place
    command = judge(STEP + "sys.exit(125 if step > 400 else 0)")
    done = bisect(
        folder,
        *("ckpt-*", "--eval-command", command, "--outcomes", outcomes, "--json"),
        *("--probes-max", "100"),
    )
    found = json.loads(done.stdout)
    assert (found["verdict"], done.returncode) == ("BROKEN_WITHIN", 3)
    assert found["probes"] < 100
    assert "could not be evaluated" in found["note"]


def test_a_noisy_search_ends_though_the_first_bad_one_cannot_tell(place) -> None:
    folder, judge = place
    command = judge(STEP + "sys.exit(125 if step == 500 else step > 500)")
    done = bisect(folder, "ckpt-*", "--eval-command", command, "--json", *("--probes-max", "100"))
    found = json.loads(done.stdout)
    assert found["probes"] < 40
    assert found["interval"] == ["ckpt-500", "ckpt-600"]


def test_scores_that_stay_or_improve_are_no_finding(place) -> None:
    """A score that improves at one checkpoint was a break with a probability of 0.96, and one that
    stays was asked for without end."""
    folder, judge = place
    for score in ("0.7", "0.5 + 0.4 * (step >= 500)"):
        done = bisect(
            folder,
            *("ckpt-*", "--eval-command", judge(STEP + f"print('acc', {score})")),
            *("--score-regex", r"acc (\S+)", "--json", "--probes-max", "200"),
        )
        found = json.loads(done.stdout)
        assert (found["verdict"], done.returncode) == ("ALL_OK", 0), score
        assert found["probability"] >= 0.95


def test_a_flaky_command_is_asked_until_it_is_certain(place) -> None:
    folder, judge = place
    body = STEP + (
        "import hashlib\n"
        f"n = open({str(folder / 'record')!r}).read().count(sys.argv[1] + '\\0')\n"
        "noise = hashlib.sha256(f'{step} {n}'.encode()).digest()[0] / 256 < 0.15\n"
        "sys.exit((step >= 400) != noise)"
    )
    # Of two jobs either may be first, so that other runs are asked other questions: at 0.95 one in
    # twenty would rightly end elsewhere.
    sure = ("--confidence", "0.995", "--json", "--jobs", "2")
    done = bisect(folder, "ckpt-*", "--eval-command", judge(body), *sure)
    found = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert found["first_broken"] == "ckpt-400"
    assert found["probability"] >= 0.995
    assert len(asked(folder)) > 6


def test_125_is_stepped_around_and_widens_the_answer(place) -> None:
    folder, judge = place
    command = judge(STEP + "sys.exit(125 if step in (400, 500) else step >= 500)")
    done = bisect(folder, "ckpt-*", "--eval-command", command, "--outcomes", "exact", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 3
    assert found["verdict"] == "BROKEN_WITHIN"
    assert found["interval"] == ["ckpt-400", "ckpt-600"]
    assert "could not be evaluated" in found["note"]


@pytest.mark.parametrize("body", ["sys.exit(126)", "sys.exit(200)", "os.kill(os.getpid(), 9)"])
def test_a_failure_of_ours_is_retried_and_never_called_bad(place, body) -> None:
    folder, judge = place
    done = bisect(folder, "ckpt-*", "--eval-command", judge(body), "--retries", "1")
    assert done.returncode == 1, done.stdout
    assert "the eval command failed on ckpt-800" in done.stderr
    assert asked(folder) == ["ckpt-800"] * 2
    assert not (folder / ".adapterbot" / "bisect.json").exists()


@pytest.mark.parametrize("probe", [100, 500])
def test_a_checkpoint_that_disappears_is_not_called_bad(place, probe) -> None:
    """Before its own probe, and during it."""
    folder, judge = place
    body = f"import shutil\nif step == {probe}: shutil.move('ckpt-500', 'gone')\n"
    command = judge(STEP + body + "sys.exit(not os.path.exists(sys.argv[1]) or step >= 700)")
    arguments = ("ckpt-*", "--eval-command", command, "--outcomes", "exact")
    done = bisect(folder, *arguments)
    assert done.returncode == 1
    assert (
        "error: ckpt-500: checkpoints: ckpt-500 is no longer there (restore it; then" in done.stderr
    )
    assert len(asked(folder)) == len(set(asked(folder)))
    (folder / "gone").rename(folder / "ckpt-500")
    judge(STEP + "sys.exit(step >= 700)")
    done = bisect(folder, *arguments, "--resume", "--json")
    assert json.loads(done.stdout)["first_broken"] == "ckpt-700"


def test_a_time_out_is_ours_and_the_whole_process_group_ends(place) -> None:
    folder, judge = place
    body = (
        "import subprocess, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(folder / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    done = bisect(
        folder, "ckpt-*", "--eval-command", judge(body), "--timeout", "2", "--retries", "0"
    )
    assert done.returncode == 1
    assert "still running after 2 s" in done.stderr
    pid = int((folder / "pid").read_text())
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    else:
        pytest.fail("a grandchild lives on")


def test_what_a_command_runs_ends_with_us_were_it_by_sigkill(place) -> None:
    folder, judge = place
    command = judge(
        "import os, subprocess, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "for pid in (child.pid, os.getpid()): open(f'{pid}.pid', 'w').close()\n"
        "time.sleep(60)"
    )
    process = command_line.start("bisect", "ckpt-*", "--eval-command", command, cwd=folder)
    until = time.monotonic() + 60
    while len(list(folder.glob("*.pid"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = [int(file.stem) for file in folder.glob("*.pid")]
    assert len(started) == 2, "the command, and what it started"
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, started))


def test_logs_are_of_this_search_alone(place) -> None:
    folder, judge = place
    logs = folder / ".adapterbot" / "bisect-logs"
    arguments = ["ckpt-*", "--eval-command", judge(STEP + "sys.exit(step >= 600)")]
    bisect(folder, *arguments)
    before = len(list(logs.iterdir()))
    (logs / "notes.txt").write_text("mine")
    done = bisect(folder, *arguments, "--outcomes", "exact", "--json")
    kept = sorted(path.name for path in logs.iterdir())
    assert len(kept) == json.loads(done.stdout)["probes"] + 1 < before
    assert "notes.txt" in kept
    # What is gone on with keeps its logs.
    bisect(folder, *arguments, "--outcomes", "exact", "--resume")
    assert sorted(path.name for path in logs.iterdir()) == kept


def test_a_variable_that_is_not_set_is_said_once(place) -> None:
    folder, judge = place
    arguments = ("ckpt-*", "--eval-command", judge("sys.exit(0)"), "--pass-env", "NOT_SET_HERE")
    done = bisect(folder, *arguments)
    assert done.stderr.count("--pass-env: NOT_SET_HERE is not set") == 1


def test_the_command_sees_no_secret(place) -> None:
    folder, judge = place
    body = f"pathlib.Path({str(folder / 'env')!r}).write_text(repr(dict(os.environ)))\nsys.exit(0)"
    bisect(
        folder,
        *("ckpt-*", "--eval-command", judge(body), "--outcomes", "exact"),
        *("--pass-env", "WANTED"),
        GITHUB_OUTPUT="x",
        AWS_SECRET_ACCESS_KEY="k",
        WANTED="yes",
    )
    seen = (folder / "env").read_text()
    assert "'WANTED': 'yes'" in seen
    for secret in ("s3cret", "GITHUB_", "AWS_SECRET"):
        assert secret not in seen


def test_hostile_names_are_passed_through_inert(place) -> None:
    """Names with shell syntax, quotes, newlines and our own placeholders stay one argument."""
    folder, judge = place
    names = ["a b", "$(touch pwned)", 'it\'s; "x"', "new\nline", "{index}{ckpt}", "`id`"]
    for name in names:
        (folder / name).mkdir()
    command = judge("sys.exit('line' in sys.argv[1] or sys.argv[1][0] in '{`')")
    done = bisect(folder, *names, "--eval-command", command, "--outcomes", "exact", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["first_broken"] == "new\nline"
    assert set(asked(folder)) <= set(names)
    assert not (folder / "pwned").exists()


def test_scores_are_read_and_searched_without_a_threshold(place) -> None:
    folder, judge = place
    body = STEP + 'print(\'noise 1\\n{"eval": {"acc": %s}}\' % (0.9 - 0.3 * (step >= 300)))'
    done = bisect(
        folder,
        *("ckpt-*", "--eval-command", judge(body), "--score-json", "eval.acc", "--json"),
        *("--probes-max", "40"),
    )
    found = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert found["first_broken"] == "ckpt-300"
    broken = bisect(
        folder,
        *("ckpt-*", "--eval-command", judge("print('none')"), "--score-regex", "acc=([0-9.]+)"),
        *("--retries", "0"),
    )
    assert broken.returncode == 1
    assert "ckpt-800: exit code 0, and no score on its standard output (see" in broken.stderr


def test_a_group_that_took_no_part_in_its_match_is_no_score() -> None:
    reading = Reading.of(r"acc(?:=([0-9.]+))?", None)
    assert reading is not None
    with pytest.raises(ValueError, match="no score"):
        reading.score("acc=0.5\nacc")
    assert reading.score("acc\nacc=0.5") == 0.5
    whole = Reading.of(r"[0-9.]+", None)
    assert whole is not None
    assert whole.score("1.5 and 2.5") == 2.5


@pytest.mark.parametrize("text", ["1e200", "-1e200", "inf", "nan", "1,900.5", "90%"])
def test_a_number_that_cannot_be_reckoned_with_is_no_score(text: str) -> None:
    """Its square is none: a search by it would say that a good checkpoint comes after a bad one. A
    diverged run writes `nan`: who reads of "no score" looks for it in vain."""
    reading = Reading.of(r"acc=(\S+)", None)
    assert reading is not None
    with pytest.raises(ValueError, match="its score is"):
        reading.score(f"acc={text}")


def test_probes_max_ends_with_a_range(place) -> None:
    folder, judge = place
    command = judge(STEP + "sys.exit(step >= 600)")
    done = bisect(folder, "ckpt-*", "--eval-command", command, "--probes-max", "3", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["probes"]) == (3, "BROKEN_WITHIN", 3)
    assert sum(c["probability"] for c in found["posterior"]) + found["none_broken"] >= 0.9


def test_a_score_is_the_last_one_however_much_was_logged_before_it(place) -> None:
    folder, judge = place
    command = judge(
        STEP + "print('loss 1.0')\n"
        "for _ in range(4000): print('x' * 60)\n"
        "print('loss', 9.0 if step >= 600 else 1.0)\n"
    )
    arguments = ["ckpt-*", "--eval-command", command, "--score-regex", r"loss (\S+)"]
    bisect(folder, *arguments, "--lower-is-better", "--probes-max", "12")
    lines = (folder / ".adapterbot" / "bisect.journal").read_text().splitlines()[1:]
    found = [(entry["index"], entry["outcome"]) for entry in map(json.loads, lines)]
    assert {score for index, score in found if index >= 5} == {9.0}
    assert {score for index, score in found if index < 5} == {1.0}


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_commands_in_every_thread_as_well(place, ending) -> None:
    folder, judge = place
    command = judge("import os, time; open(f'{os.getpid()}.pid', 'w').close(); time.sleep(280)")
    arguments = ["ckpt-*", "--eval-command", command, "--jobs", "2"]
    process = command_line.start("bisect", *arguments, cwd=folder)
    until = time.monotonic() + 60
    while len(list(folder.glob("*.pid"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(ending)
    assert process.wait(120) == 1
    commands = [int(file.stem) for file in folder.glob("*.pid")]
    assert len(commands) == 2, "one for each thread"
    assert not any(map(alive, commands))


def test_an_interrupt_ends_the_rest_of_a_batch_of_which_one_failed(place) -> None:
    """It was waited for; the interrupt ended the waiting, and left the command behind."""
    folder, judge = place
    command = judge(
        STEP + "import time\nif step == 800: sys.exit(127)\n"
        "open(f'{os.getpid()}.pid', 'w').close(); time.sleep(280)"
    )
    arguments = ["ckpt-*", "--eval-command", command, "--jobs", "2", "--retries", "0"]
    process = command_line.start("bisect", *arguments, cwd=folder)
    log = folder / ".adapterbot" / "bisect-logs" / "0007-000.log"
    until = time.monotonic() + 60
    while not (log.exists() and list(folder.glob("*.pid"))) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 1
    (other,) = (int(file.stem) for file in folder.glob("*.pid"))
    assert not alive(other)


def test_killed_at_any_moment_it_goes_on_without_repeating_a_probe(place) -> None:
    folder, judge = place
    command = judge(STEP + "import time; time.sleep(0.15); sys.exit(step >= 600)")
    arguments = ["ckpt-*", "--eval-command", command, "--outcomes", "exact", "--json"]
    for _ in range(3):
        process = command_line.start("bisect", *arguments, "--resume", cwd=folder)
        before = len(asked(folder))
        for _ in range(400):
            if len(asked(folder)) > before + 1:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    journal = folder / ".adapterbot" / "bisect.journal"
    finished = [json.loads(line)["index"] for line in journal.read_text().splitlines()[1:]]
    with journal.open("a") as stream:
        stream.write('{"index": 3, "outc')  # cut off in writing
    runs_before = len(asked(folder))
    done = bisect(folder, *arguments, "--resume")
    found = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert found["first_broken"] == "ckpt-600"
    indices = [step["checkpoint"] for step in found["steps"]]
    assert len(indices) == len(set(indices)), "a finished probe was repeated"
    assert len(asked(folder)) - runs_before == len(indices) - len(finished)
    replayed = bisect(folder, "replay", ".adapterbot/bisect.journal", "--json")
    assert replayed.returncode == 3
    assert json.loads(replayed.stdout) == found
    log = bisect(folder, "log", "--json")
    assert json.loads(log.stdout)["steps"] == found["steps"]
    other = bisect(folder, "ckpt-*", "--eval-command", f"{command} other", "--resume")
    assert other.returncode == 2
    assert "belongs to another search" in other.stderr


def test_what_is_in_the_way_of_the_logs_is_named(place) -> None:
    folder, judge = place
    (folder / ".adapterbot").mkdir()
    (folder / ".adapterbot" / "bisect-logs").write_text("")
    done = bisect(folder, "ckpt-*", "--eval-command", judge("sys.exit(0)"))
    assert done.returncode == 2
    assert "bisect-logs: cannot be made: File exists (remove what is in its place)" in done.stderr
    assert "Traceback" not in done.stderr
    assert asked(folder) == []


def test_a_log_that_cannot_be_written_is_named(place) -> None:
    """A full disk was said to be that of standard output."""
    folder, judge = place
    log = folder / ".adapterbot" / "bisect-logs" / "0007-000.log"
    log.mkdir(parents=True)
    done = bisect(folder, "ckpt-*", "--eval-command", judge("sys.exit(0)"))
    assert done.returncode == 1
    assert f"error: {log}: could not be written: Is a directory" in done.stderr


def test_two_searches_at_a_time_do_not_share_a_journal(place) -> None:
    folder, judge = place
    waits = judge("import time; open('begun', 'w').close(); time.sleep(280)")
    first = command_line.start("bisect", "ckpt-*", "--eval-command", waits, cwd=folder)
    until = time.monotonic() + 60
    while not (folder / "begun").exists() and time.monotonic() < until:
        time.sleep(0.02)
    journal = (folder / ".adapterbot" / "bisect.journal").read_text()
    for more in ((), ("--resume",)):
        second = bisect(folder, "ckpt-*", "--eval-command", waits, *more)
        assert second.returncode == 2
        assert "bisect.journal: is being written by another search" in second.stderr
    assert (folder / ".adapterbot" / "bisect.journal").read_text() == journal
    first.send_signal(signal.SIGINT)
    assert first.wait(120) == 1


def test_whoever_closed_standard_error_is_searched_for(place) -> None:
    """The journal was opened under its number, and the search ended before it began."""
    folder, judge = place
    command = judge(STEP + "sys.exit(step >= 600)")
    done = subprocess.run(
        [
            *("sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "adapterbot", "bisect"),
            *("ckpt-*", "--eval-command", command, "--outcomes", "exact"),
        ],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 3
    assert "BROKEN_AT ckpt-600" in done.stdout


def test_a_pattern_and_a_folder_stand_for_its_adapters_in_order(place) -> None:
    """The last one, which `save_model` wrote, has no trainer's state: it was taken for the oldest,
    and a README for a checkpoint."""
    folder, judge = place
    run = folder / "run"
    for name, step in (("checkpoint-9", 9), ("checkpoint-10", 10), ("final", None)):
        (run / name).mkdir(parents=True)
        (run / name / "adapter_config.json").write_text("{}")
        if step:
            (run / name / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    (run / "README.md").write_text("")
    (run / "latest").symlink_to("final")
    for named in ("run/*", "run", "run/"):
        command = judge("sys.exit(sys.argv[1].endswith('final'))")
        done = bisect(folder, named, "--eval-command", command, "--outcomes", "exact", "--json")
        found = json.loads(done.stdout)
        assert (found["checkpoints"], Path(found["last_good"]).name) == (3, "checkpoint-10")


def test_a_run_that_was_trained_anew_is_another_search(place) -> None:
    """Under the same names: the old run's result was told of it, and nothing was run."""
    folder, judge = place
    weights = [folder / f"ckpt-{step}" / "adapter_model.safetensors" for step in (100, 200)]
    for file in weights:
        file.write_text("old")
    arguments = ["ckpt-100", "ckpt-200", "--eval-command", judge("sys.exit(0)"), "--resume"]
    assert bisect(folder, *arguments, "--outcomes", "exact").returncode == 0
    assert bisect(folder, *arguments, "--outcomes", "exact").returncode == 0
    assert len(asked(folder)) == 1
    os.utime(weights[0], (1, 1))  # as a copy, or a checkout of a later job, has it
    assert bisect(folder, *arguments, "--outcomes", "exact").returncode == 0
    weights[1].write_text("new")
    again = bisect(folder, *arguments, "--outcomes", "exact")
    assert (again.returncode, "weights written anew" in again.stderr) == (2, True)


def test_a_score_read_otherwise_is_another_search(place) -> None:
    folder, judge = place
    command = judge(STEP + "print('loss', step); print('time', 1)")
    asked_for = ["ckpt-*", "--eval-command", command, "--probes-max", "2", "--lower-is-better"]
    bisect(folder, *asked_for, "--score-regex", r"loss (\S+)")
    again = bisect(folder, *asked_for, "--score-regex", r"loss (\S+)", "--resume")
    assert "belongs to another search" not in again.stderr
    other = bisect(folder, *asked_for, "--score-regex", r"time (\S+)", "--resume")
    assert other.returncode == 2
    assert "belongs to another search" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ckpt-100", "ckpt-200", "ckpt-100"], 2, "named twice"),
        (["ckpt-100", "./ckpt-100"], 2, "named twice"),
        (["ckpt-100", "ckpt-111"], 2, "does not exist"),
        (["ckpt-100"], 2, "a search needs two"),
        ([], 2, "names no checkpoints"),
        (["ckpt-*", "--eval-command", "true"], 2, "add {ckpt}"),
        (["ckpt-*", "--eval-command", "true {step} {index}"], 2, "{ckpt} is missing (add {ckpt}"),
        (["ckpt-*", "--eval-command", "true 'x {ckpt}"], 2, "close its quotes"),
        (["ckpt-*", "--eval-command", "sleep 3; true {ckpt}"], 2, "holds ;, but no shell"),
        (["ckpt-*", "--eval-command", "true {ckpt} && true"], 2, "holds &&, but no shell"),
        (["ckpt-*", "--eval-command", "true {ckpt} 2>/dev/null"], 2, "holds 2>, but no shell"),
        (["ckpt-*", "--eval-command", "A=1 true {ckpt}"], 2, "begins with A=, which only a shell"),
        (["ckpt-*", "--eval-command", "no-such-program {ckpt}"], 1, "there is no such program"),
        (["ckpt-*", "--outcomes", "sometimes"], 2, "sometimes"),
        (["ckpt-*", "--score-regex", "("], 2, "is not a regular expression"),
        (["ckpt-*", "--score-regex", ""], 2, "--score-regex: is empty"),
        (["ckpt-*", "--score-json", ""], 2, "--score-json: is empty"),
        (["ckpt-*", "--budget", "soon"], 2, "is not a duration"),
        (["ckpt-*", "--budget", ""], 2, "is not a duration"),
        (["ckpt-*", "--pass-env", "A=B"], 2, "--pass-env: 'A' is to be the name"),
        (["ckpt-*", "--pass-env", "GITHUB_TOKEN"], 2, "never passed on"),
        (["ckpt-*", "-o", "/proc/b.json"], 2, "/proc/b.json: --output, -o: cannot be written"),
        (["ckpt-*", "-o", "ckpt-100"], 2, "--output, -o: is a directory"),
        (
            ["ckpt-*", "-o", ".adapterbot/bisect.journal"],
            2,
            "-o: is a file that the command itself",
        ),
        (["ckpt-*", "-o", "ckpt-100/b.json"], 2, "-o: lies inside "),
        (["ckpt-*", "--out", "/proc/o"], 2, "/proc/o: --out: cannot be written"),
        (["ckpt-*", "--out", "/proc/o", "-o", "b.json"], 2, "/proc/o: --out: cannot be written"),
        (["ckpt-*", "--metric", "dates_us"], 2, "--metric: applies to a search by suite only"),
        (["ckpt-*", "--blame"], 2, "--blame: applies to a search by suite only"),
        (["ckpt-*", "--ray"], 2, "--ray: applies to a search by suite only"),
        (["ckpt-*", "--device", "cpu"], 2, "--device: applies to a search by suite only"),
        (["ckpt-*", "--head", "main"], 2, "--head: applies to a search by suite only"),
        (["ckpt-*", "--base", "main"], 2, "--base: applies to a search by suite only"),
        (["ckpt-*", "--lower-is-better"], 2, "--lower-is-better: applies to scores"),
    ],
)
def test_bad_input_is_found_before_the_first_probe(place, arguments, code, says) -> None:
    folder, judge = place
    if "--eval-command" not in arguments:
        arguments = [*arguments, "--eval-command", judge("sys.exit(0)")]
    done = bisect(folder, *arguments)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert asked(folder) == []
