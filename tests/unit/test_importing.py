"""What somebody reads who lacks the packages of an extra."""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
from pathlib import Path

import pytest

from adapterbot.errors import OurFailure
from adapterbot.importing import extras
from tests.programs import python


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("bank", "pip install 'adapterbot[bank]'"),
        ("eval,ray", "pip install 'adapterbot[eval,ray]'; `adapterbot doctor` tells more"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(names, told):
    with pytest.raises(OurFailure) as caught, extras(names, "juggling"):
        importlib.import_module("clubs_and_rings")
    assert "packages for juggling do not load: No module named 'clubs_and_rings'" in str(
        caught.value
    )
    assert caught.value.fix == told


def test_a_library_that_does_not_load_is_no_crash_and_a_bug_is_none_of_ours_to_hide(monkeypatch):
    with pytest.raises(OurFailure, match="libcuda"), extras("eval", "evaluating"):
        raise OSError("libcuda.so.1: cannot open shared object file")
    with monkeypatch.context() as full:
        full.setattr(tempfile, "tempdir", None)
        full.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
        with pytest.raises(OurFailure, match="TMPDIR"), extras("eval", "evaluating"):
            tempfile.gettempdir()  # as torch does
    with pytest.raises(ValueError, match="ours"), extras("eval", "evaluating"):
        raise ValueError("ours")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("diff file file", "file: is not a directory"),
        ("diff nowhere nowhere", "nowhere: does not exist"),
        ("scan folder", "folder: is no adapter"),
        ("serve --base ./nowhere --bank folder", "./nowhere: --base: does not exist"),
        ("serve --base folder --bank folder", "folder: is not a vector bank"),
        ("serve --base folder --bank folder --slots 1", "--slots: 1 is fewer than"),
        ("bank create full --base ./base", "full: exists already"),
        ("bank create bank --base ./nowhere", "./nowhere: --base: does not exist"),
        ("bank fit folder --users nowhere", "nowhere: does not exist"),
        ("bank fit folder --users rows", "folder: is not a vector bank"),
    ],
)
def test_a_mistyped_name_is_refused_before_torch_is_imported(words, says, tmp_path: Path):
    """Whose import takes seconds."""
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "torch.py").write_text("raise ImportError('torch was imported')")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    (tmp_path / "rows").write_text('{"user": "a", "prompt": "x", "expected": "y"}')
    done = python(
        *f"-m adapterbot {words}".split(), cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "stubs")}
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("package", ["bank", "merge", "mole", "weights"])
def test_no_name_that_a_package_loads_late_is_that_of_a_module_of_it(package: str) -> None:
    """Whoever imports such a module puts it in the name's place."""
    found = importlib.import_module(f"adapterbot.{package}")
    modules = {module.name for module in pkgutil.iter_modules(found.__path__)}
    assert not modules & set(found.__all__)
