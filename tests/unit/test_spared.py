"""What a command needs is not written over by its result."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from adapterbot.commands.spared import spare
from adapterbot.errors import InputError
from tests import command_line


def test_a_file_is_known_by_any_of_its_names(tmp_path: Path) -> None:
    needed = tmp_path / "needed"
    (tmp_path / "folder").mkdir()
    (tmp_path / "way").symlink_to(tmp_path)
    hard = tmp_path / "hard"
    for present in (False, True):
        if present:
            needed.write_text("x")
            hard.hardlink_to(needed)
        for name in ("needed", "folder/../needed", "way/needed", *(["hard"] if present else [])):
            with pytest.raises(InputError, match="--out: is a file that the command itself needs"):
                spare(tmp_path / name, tmp_path / "other", needed, field="--out")
    spare(tmp_path / "another", needed, None, tmp_path / "folder", field="--out")
    with pytest.raises(InputError, match=r"lies inside .*folder"):
        spare(tmp_path / "way" / "folder" / "new", tmp_path / "folder", field="--out")


OPTIONS = "adapter/adapter_config.json"
WHY = ("is a file that the command itself needs", "lies inside", "is the name of another kind")


@pytest.mark.parametrize(
    ("command", "keeps"),
    [
        ("lock write -o soup.yaml", "soup.yaml"),
        ("lock write -o soup-env.lock", "soup-env.lock"),
        (f"lock write --adapter adapter -o {OPTIONS}", OPTIONS),
        ("env lock --from requirements.txt -o requirements.txt", "requirements.txt"),
        (f"pr A --base-sha {'a' * 40} --adapter adapter --eval e.json -o e.json", "e.json"),
        (f"pr A --base-sha {'a' * 40} --adapter adapter -o {OPTIONS}", OPTIONS),
        ("bank export users users/ann", "users"),
        ("mole route mixture Hi --html mixture/routes.html", "mixture"),
        ("bisect A B --eval-command './judge.sh {ckpt}' -o judge.sh", "judge.sh"),
        ("bisect A B --eval-command 'sh judge.sh {ckpt}' -o judge.sh", "judge.sh"),
        ("bisect A B --eval-command 'sh -c \"sh judge.sh {ckpt}\"' -o judge.sh", "judge.sh"),
        ("bisect A B --eval-command 'true {ckpt} --by=e.json' -o e.json", "e.json"),
        ("env lock -o soup.lock", "soup.lock"),
        ("env lock -o adapterbot.yaml", "adapterbot.yaml"),
        (f"env lock -o {OPTIONS}", OPTIONS),
        ("lock write -o adapterbot.yaml", "adapterbot.yaml"),
        ("bank export users soup.lock", "soup.lock"),
    ],
)
def test_no_result_takes_the_place_of_what_it_is_made_from(
    tmp_path: Path, command: str, keeps: str
) -> None:
    (tmp_path / "soup.yaml").write_text("base: org/model\ndata: {train: rows.jsonl}\n")
    (tmp_path / "adapter").mkdir()
    for name in ("soup-env.lock", OPTIONS, "requirements.txt", "e.json", "soup.lock"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "adapterbot.yaml").write_text("adapters: [{path: adapter}]\n")
    (tmp_path / "judge.sh").write_text("#!/bin/sh\n")
    (tmp_path / "judge.sh").chmod(0o755)
    for folder in ("users", "mixture", "A", "B"):
        (tmp_path / folder).mkdir()
    path = tmp_path / keeps
    before = sorted(path.iterdir()) if path.is_dir() else path.read_bytes()
    done = command_line.run(*shlex.split(command), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert any(why in done.stderr for why in WHY)
    assert (sorted(path.iterdir()) if path.is_dir() else path.read_bytes()) == before
