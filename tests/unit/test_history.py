"""Results per commit: both stores keep the same, and nothing is lost when several write at once."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.commands.history import read
from adapterbot.config import HistoryConfig
from adapterbot.errors import InputError, OurFailure
from adapterbot.git.program import ask_remote
from adapterbot.history.branch import FILE, Branch
from adapterbot.history.database import Database
from adapterbot.history.results import from_lines, merged, of_report, to_lines, trends
from adapterbot.history.table import tables
from adapterbot.records.history import History, PastMetric, PastResult
from tests.golden.reports import REPORTS

HERE = {
    **os.environ,
    "GIT_AUTHOR_NAME": "dev",
    "GIT_AUTHOR_EMAIL": "dev@example.invalid",
    "GIT_COMMITTER_NAME": "dev",
    "GIT_COMMITTER_EMAIL": "dev@example.invalid",
}


def result(
    commit: int, level: float | None = 0.5, adapter: str = "dates", name: str = "m"
) -> PastResult:
    return PastResult(
        commit=f"{commit:040x}",
        time=1_790_000_000 + commit,
        adapter=adapter,
        outcome="passed",
        metrics=(PastMetric(metric=name, unit="fraction", direction="higher", value=level, n=100),),
    )


results = st.builds(
    result,
    st.integers(0, 5),
    st.one_of(st.none(), st.floats(-1, 1)),
    st.sampled_from(["dates", "names"]),
)


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, env=HERE)
    return os.fsdecode(done.stdout)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a commit of its own, of a bare repository."""
    git(tmp_path, "init", "-q", "--bare", "origin.git")
    git(tmp_path, "clone", "-q", "origin.git", "clone")
    found = tmp_path / "clone"
    (found / "file").write_text("text")
    git(found, "add", "-A")
    git(found, "commit", "-q", "-m", "first")
    return found


@given(st.lists(st.lists(results, max_size=4), max_size=4))
def test_a_database_keeps_what_lines_keep(runs: list[list[PastResult]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "a" / "history.sqlite")
        known: tuple[PastResult, ...] = ()
        for new in runs:
            database.append(new)
            known = from_lines(to_lines(merged(known, new)), "history.jsonl")
        assert database.read() == known


def test_a_branch_keeps_results_and_touches_nothing_else(clone: Path) -> None:
    branch = Branch(clone, "adapter/history")
    assert branch.read() == ()
    assert not branch.is_known()
    before = git(clone, "status", "--porcelain=v2", "--branch")
    branch.append([result(1), result(2)], HERE, "Results of 1")
    branch.append([result(2, 0.75), result(3)], HERE, "Results of 2")
    branch.append([result(3)], HERE, "nothing new")
    assert git(clone, "status", "--porcelain=v2", "--branch") == before
    git(clone, "fetch", "-q")
    assert branch.read() == (result(1), result(2, 0.75), result(3))
    subjects = git(clone, "log", "--format=%s", "origin/adapter/history").split("\n")[:-1]
    assert subjects == ["Results of 2", "Results of 1"]


def test_what_else_lies_on_the_branch_stays(clone: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    (clone / odd).write_text("a name that is no text")
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "second")
    git(clone, "push", "-q", "origin", "HEAD:refs/heads/gh-pages")
    Branch(clone, "gh-pages").append([result(1)], HERE, "Results")
    git(clone, "fetch", "-q")
    listed = os.fsencode(git(clone, "ls-tree", "-z", "--name-only", "origin/gh-pages"))
    assert sorted(listed.split(b"\0")[:-1]) == sorted(map(os.fsencode, ["file", FILE, odd]))


def test_what_cannot_be_read_is_not_taken_for_nothing_and_written_over(clone: Path) -> None:
    branch = Branch(clone, "history")
    branch.append([result(1)], HERE, "Results")
    git(clone, "fetch", "-q")
    blob = git(clone, "rev-parse", f"origin/history:{FILE}").strip()
    (clone / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(OurFailure):
        branch.append([result(2)], HERE, "Results")
    with pytest.raises(OurFailure):
        branch.read()


@pytest.mark.parametrize("how", ["the file", "a journal of it", "a link"])
def test_attack_a_file_that_comes_with_the_checkout_is_no_history(clone: Path, how: str) -> None:
    config = HistoryConfig(file="state/history.sqlite")
    Database(clone / "state" / "history.sqlite").append([result(1)])
    assert read(config, clone) == (result(1),)
    if how == "a link":
        (clone / "state").rename(clone / "elsewhere")
        (clone / "state").symlink_to("elsewhere")
    elif how == "a journal of it":
        (clone / "state" / "history.sqlite-journal").write_text("x")
        git(clone, "add", "-f", "state/history.sqlite-journal")
    else:
        git(clone, "add", "-f", "state/history.sqlite")
    with pytest.raises(InputError):
        read(config, clone)


def test_attack_a_way_around_to_a_file_of_the_checkout_is_no_history(
    clone: Path, tmp_path: Path
) -> None:
    """A runner's workspace may lie behind a link."""
    (tmp_path / "way").symlink_to(clone)
    config = HistoryConfig(file=str(tmp_path / "way" / "history.sqlite"))
    Database(clone / "history.sqlite").append([result(1)])
    assert read(config, clone) == (result(1),)
    git(clone, "add", "-f", "history.sqlite")
    with pytest.raises(InputError, match="is a file of this repository"):
        read(config, clone)


def test_two_that_write_at_once_lose_nothing(clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "origin.git", "other")

    def write(place: Path, first: int) -> None:
        for i in range(first, first + 4):
            Branch(place, "history").append([result(i)], HERE, f"Results of {i}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (clone, tmp_path / "other"), (0, 100)))
    git(clone, "fetch", "-q")
    kept = {int(found.commit, 16) for found in Branch(clone, "history").read()}
    assert kept == {0, 1, 2, 3, 100, 101, 102, 103}


def test_whoever_is_overtaken_by_many_looks_again(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the last of a matrix's legs is, by all others."""
    monkeypatch.setattr("adapterbot.history.branch._LONGEST_WAIT", 0.0)
    Branch(clone, "history").append([result(1)], HERE, "Results of 1")
    hook = tmp_path / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("""#!/bin/sh
[ $(git rev-list --count history) -gt 9 ] && exit 0
unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
git update-ref refs/heads/history $(git commit-tree history^{tree} -p history -m faster)
exit 1
""")
    hook.chmod(0o755)
    Branch(clone, "history").append([result(2)], HERE, "Results of 2")
    git(clone, "fetch", "-q")
    assert Branch(clone, "history").read() == (result(1), result(2))


def test_a_refused_push_is_told_at_once(clone: Path, tmp_path: Path) -> None:
    hook = tmp_path / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(OurFailure, match="git push failed") as caught:
        Branch(clone, "history").append([result(1)], HERE, "Results")
    assert "contents: write" in str(caught.value)


def test_a_network_that_says_nothing_is_not_waited_for(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "bin" / "git"
    silent.parent.mkdir()
    silent.write_text("#!/bin/sh\nexec sleep 20\n")
    silent.chmod(0o755)
    for patience in ("history.branch._SECONDS", "git.program._NETWORK_SECONDS"):
        monkeypatch.setattr(f"adapterbot.{patience}", 0.2)
    environment = {**HERE, "PATH": f"{silent.parent}:{os.environ['PATH']}"}
    with pytest.raises(OurFailure, match="did not end within"):
        Branch(clone, "history").append([result(1)], environment, "Results")
    monkeypatch.setenv("PATH", environment["PATH"])
    with pytest.raises(OurFailure, match="did not end within"):
        ask_remote(clone, "fetch", "origin")


def test_a_file_that_was_made_for_the_gate_to_fill_holds_none(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").touch()
    database = Database(tmp_path / "history.sqlite")
    assert database.read() == ()
    database.append([result(1)])
    assert database.read() == (result(1),)


def test_a_file_below_what_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    path = tmp_path / "taken" / "history.sqlite"
    assert Database(path).read() == ()
    with pytest.raises(InputError, match=r"history\.sqlite"):
        Database(path).append([result(1)])


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"x" * 200])
def test_a_file_that_is_no_history_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(content)
    for use in (lambda: Database(path).read(), lambda: Database(path).append([result(1)])):
        with pytest.raises(InputError, match=r"history\.sqlite"):
            use()
    assert path.read_bytes() == content


def test_a_file_that_another_program_holds_is_a_failure_and_no_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterbot.history.database._SECONDS_TO_WAIT", 0.05)
    database = Database(tmp_path / "history.sqlite")
    database.append([result(1)])
    with contextlib.closing(sqlite3.connect(database.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for use in (database.read, lambda: database.append([result(2)])):
            with pytest.raises(OurFailure, match="database is locked"):
                use()
    assert database.read() == (result(1),)


def test_what_a_newer_version_wrote_is_not_to_be_mended_by_hand() -> None:
    line = to_lines([result(1)]).replace('"version":1', '"version":2')
    with pytest.raises(InputError, match=r"history\.jsonl:1: version.*newer adapterbot"):
        from_lines(line, "history.jsonl")


def test_a_broken_line_is_named_by_its_number() -> None:
    with pytest.raises(InputError, match=r"history\.jsonl:2"):
        from_lines(to_lines([result(1)]) + "{}\n", "history.jsonl")


# ---------------------------------------------------------------- of reports, and shown


def test_attack_a_name_that_could_pass_for_two_lines_breaks_no_history() -> None:
    kept = [result(1, name=f"a{end}b") for end in ("\u2028", "\x85", "\x0b", "\n", "\r\n")]
    kept = [one.model_copy(update={"commit": f"{i:040x}"}) for i, one in enumerate(kept)]
    assert list(from_lines(to_lines(kept), "f")) == kept


def test_a_gate_that_ends_late_does_not_make_its_commit_the_newest() -> None:
    kept = merged(merged((), [result(3)]), [result(1, 0.25), result(2)])
    assert kept == (result(1, 0.25), result(2), result(3))
    assert merged(kept, [result(1, 0.75)]) == (result(1, 0.75), result(2), result(3))


def test_only_what_was_judged_is_kept() -> None:
    (kept,) = of_report(REPORTS["regressed"](), "a" * 40, 7)
    assert {m.metric: m.value for m in kept.metrics}["dates [us]"] == 0.525
    assert of_report(REPORTS["bad_input"](), "a" * 40, 7) == ()


def test_a_trend_has_a_gap_where_a_metric_was_not_measured() -> None:
    other = result(2).model_copy(update={"metrics": ()})
    past = [result(1, 0.25), other, result(3, None), result(4, 0.75), result(5, adapter="names")]
    (trend,) = trends(past, "dates")
    assert [point.value for point in trend.points] == [0.25, None, None, 0.75]
    (short,) = trends(past, "dates", limit=2)
    assert [point.value for point in short.points] == [None, 0.75]
    assert trends(past, "nobody") == ()


def test_a_table_shows_names_as_they_are() -> None:
    from rich.console import Console

    past = [result(i, level, name="[red]x[/]\u202e") for i, level in ((1, 0.9), (2, 0.6))]
    history = History(adapters={"dates": trends(past, "dates")}, results=tuple(past))
    console = Console(width=120, record=True, file=io.StringIO())
    for table in tables(history, console.width):
        console.print(table)
    shown = console.export_text()
    for part in ("[red]x[/]⟨U+202E⟩", "█▁", "90.0%", "60.0%", "−30.0%"):
        assert part in shown


@pytest.mark.parametrize("width", [20, 80])
def test_a_narrow_table_keeps_its_figures_and_the_newest_commits(width: int) -> None:
    from rich.console import Console

    levels = [*(0.1 + i / 1000 for i in range(28)), None, 1.0]
    past = [result(i, level, name="w" * 50) for i, level in enumerate(levels)]
    history = History(adapters={"dates": trends(past, "dates")}, results=tuple(past))
    console = Console(width=width, record=True, file=io.StringIO())
    for table in tables(history, width):
        console.print(table, crop=False)
    shown = console.export_text()
    for part in (" 10.0% ", " 100.0% ", " +90.0% ", "·█ ", " 29 "):
        assert part in shown
    assert shown.count("w") == 50
