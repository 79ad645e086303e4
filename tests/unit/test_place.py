"""Where a command that is run by hand puts what it was asked to put nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbot.commands.place import left_here, out_directory
from adapterbot.errors import InputError


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
