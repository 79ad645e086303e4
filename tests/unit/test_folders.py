"""Where a command that is run by hand puts what it was asked to put nowhere else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from adapterbot.commands.folders import left_here, out_directory
from adapterbot.errors import InputError
from tests.programs import python


@pytest.mark.parametrize("link", [".adapterbot", ".adapterbot/results", ".adapterbot/a/b.json"])
def test_attack_a_branchs_own_folder_does_not_lead_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    for folder in (home, (checkout / link).parent):
        folder.mkdir(parents=True)
    (checkout / link).symlink_to(home)
    monkeypatch.chdir(checkout)
    with pytest.raises(InputError, match="is a symbolic link") as caught:
        out_directory(None, {})
    assert caught.value.file == str(checkout / link)
    assert not list(home.iterdir())


def test_git_does_not_see_our_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert out_directory(None, {}) == tmp_path / ".adapterbot"
        assert (tmp_path / ".adapterbot" / ".gitignore").read_text() == "*\n"


def test_from_a_folder_of_a_checkout_results_go_to_its_root_and_are_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an adapter's own folder they would be files of the adapter."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "adapters" / "dates").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "adapters" / "dates")
    assert out_directory(None, {}) == tmp_path / ".adapterbot"
    (tmp_path / ".adapterbot" / "report.json").write_text("{}")
    report = Path(".adapterbot/report.json")
    assert left_here(report, report) == tmp_path / ".adapterbot/report.json"
    assert list(Path.cwd().iterdir()) == []


_OF_ANOTHER = """
import os, sys, tempfile
from pathlib import Path
from adapterbot.commands.folders import out_directory
from adapterbot.errors import InputError
folder = Path(sys.argv[1])
with tempfile.TemporaryDirectory() as own:
    # The other user may not read what is imported on the way.
    out_directory(None, {"RUNNER_TEMP": own})
os.chdir(folder)
for path in (folder, folder / ".adapterbot"):
    path.chmod(0o555)
if os.geteuid() == 0:
    os.setuid(65534)
try:
    out_directory(None, {})
except InputError as error:
    print(error)
"""


def test_a_folder_of_an_earlier_run_that_may_not_be_written_is_told_before_the_work() -> None:
    """A container left it, as root."""
    # pytest's own folders may not be entered by another user.
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        folder = Path(top, "checkout").resolve()
        (folder / ".adapterbot").mkdir(parents=True)
        (folder / ".adapterbot" / ".gitignore").write_text("*\n")
        told = python("-c", _OF_ANOTHER, folder, check=True)
        for path in (folder, folder / ".adapterbot"):
            path.chmod(0o755)
    assert f"{folder / '.adapterbot'}: cannot be written" in told.stdout
    assert "(name another folder: --out)" in told.stdout


@pytest.mark.parametrize("out", ["report", "report/inner", "./a/../report"])
def test_attack_a_folder_that_a_workflow_names_does_not_lead_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    for folder in (checkout / ".git", checkout / "a", elsewhere):
        folder.mkdir(parents=True)
    (checkout / "report").symlink_to(elsewhere)
    monkeypatch.chdir(checkout)
    with pytest.raises(InputError, match="is a symbolic link"):
        out_directory(Path(out), {"GITHUB_ACTIONS": "true"})
    assert list(elsewhere.iterdir()) == []
    assert out_directory(elsewhere, {"GITHUB_ACTIONS": "true"}) == elsewhere
    assert out_directory(Path(out), {}) == Path(out), "a person's own link"
