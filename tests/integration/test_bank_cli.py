"""`adapterbot bank …` as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest

from adapterbot.cli import app
from adapterbot.errors import AdapterbotError, InputError
from tests import command_line
from tests.bank_worlds import QV, save_user
from tests.programs import python


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bank(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `adapterbot bank … --json`; gives the exit code and the document."""

    def run(*arguments: object) -> tuple[int, Any]:
        code = 0
        try:
            app(args=["bank", *map(str, arguments), "--json"])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_bank_of_vectors_from_making_to_compacting(bank: Any, here: Path) -> None:
    code, made = bank("create", "users", "--base", "any", "--dimension", 4, "--dtype", "int8")
    assert (code, made["users"], made["row_bytes"]) == (0, 0, 8)
    lines = [json.dumps({"user": f"u{i}", "vector": [i, 0.5, -1, 2]}) for i in range(30)]
    (here / "v.jsonl").write_text("\n".join(lines))
    assert bank("add", "users", "v.jsonl")[1]["users"] == 30
    with pytest.raises(InputError, match="--replace"):
        bank("add", "users", "v.jsonl")
    assert bank("add", "users", "v.jsonl", "--replace")[0] == 0
    assert bank("list", "users", "--prefix", "u2", "--limit", 3)[1] == {
        "users": ["u2", "u20", "u21"]
    }
    assert bank("show", "users", "u7")[1]["source"] == "v.jsonl"
    (here / "empty").write_text("")
    with pytest.raises(InputError, match="empty: holds no user"):
        bank("add", "users", "empty")
    assert bank("remove", "users", "u7", "u8")[1]["users"] == 2
    assert bank("show", "users")[1]["users"] == 28
    assert bank("verify", "users") == (0, {"path": "users", "findings": []})
    assert bank("compact", "users")[1]["after"] > 0
    assert len(bank("list", "users")[1]["users"]) == 28
    assert bank("size", "users", "--users", 1000)[1]["rows"] == 8000
    sizes = bank("size", "--users", 10, "--dimension", 128)[1]
    assert (sizes["soup"], sizes["rows"]) == (4 * 128 * 138, 5120)


@pytest.mark.parametrize("folder", ["users", "n" * 250])
def test_a_bank_made_where_one_stands_goes_by_that_folders_name(
    bank: Any, here: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (folder, f"copy/{folder}"):
        (here / name).mkdir(parents=True)
    monkeypatch.chdir(here / folder)
    assert bank("create", ".", "--base", "any", "--dimension", 2)[1]["name"] == folder[:200]
    (here / folder / "v.jsonl").write_text('{"user": "a", "vector": [1, 2]}')
    bank("add", ".", "v.jsonl")
    bank("export", ".", here / "out.safetensors")
    monkeypatch.chdir(here / "copy" / folder)
    assert bank("import", ".", here / "out.safetensors")[1]["name"] == folder[:200]


def test_a_person_reads_words_and_a_program_the_fields(
    bank: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bank("create", "users", "--base", "any", "--dimension", 4, "--dtype", "int8")
    known = bank("show", "users")[1]
    assert {"base_model", "row_bytes", "payload_bytes", "file_bytes"} < set(known)
    shown = []
    for arguments in (["show", "users"], ["size", "--users", "10", "--dimension", "128"]):
        with pytest.raises(SystemExit):
            app(args=["bank", *arguments])
        lines = capsys.readouterr().out.splitlines()
        shown.append({line[:16].rstrip(): line[16:] for line in lines})
    assert not [label for labels in shown for label in labels if "_" in label]
    assert shown[0]["bytes a user"] == str(known["row_bytes"])
    assert shown[1]["bytes of rows"] == "5,120"


def test_damage_is_a_finding(bank: Any, here: Path) -> None:
    bank("create", "users", "--base", "any", "--dimension", 4)
    (here / "v.jsonl").write_text('{"user": "a", "vector": [1.25, 2.5, 3.75, 5.125]}')
    bank("add", "users", "v.jsonl")
    file = here / "users" / "rows-1.bin"
    raw = file.read_bytes()
    file.write_bytes(raw.replace(b"\x00\x00\xa0\x3f", b"\x00\x00\xa1\x3f"))
    code, found = bank("verify", "users")
    assert (code, found["findings"]) == (3, ["a: the row was altered"])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bank of 15,000 users, and the file that they came from."""
    folder = tmp_path_factory.mktemp("many")
    rows = [json.dumps({"user": f"u{i:05}", "vector": [i, 1, 2, 3]}) for i in range(15_000)]
    (folder / "v.jsonl").write_text("\n".join(rows))
    for command in ("create b --base any --dimension 4", "add b v.jsonl"):
        done = command_line.run("bank", *command.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("name", "share"),
    [
        *[("rows-1.mdb", share) for share in (0.0, 0.005, 0.01, 0.3, 0.6)],
        *[("rows-1.bin", share) for share in (0.0, 0.9999)],
    ],
)
def test_a_file_that_was_cut_short_is_a_line_and_no_crash(
    many: Path, here: Path, name: str, share: float
) -> None:
    shutil.copytree(many, here, dirs_exist_ok=True)
    file = here / "b" / name
    os.truncate(file, int(share * file.stat().st_size))
    for command in (
        ("list", "b"),
        ("show", "b", "u00007"),
        ("export", "b", "out.safetensors"),
        ("remove", "b", "u00007"),
        ("add", "b", "v.jsonl", "--replace"),
        ("compact", "b"),
    ):
        left = file.stat().st_size
        done = command_line.run("bank", *command, cwd=here)
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert f"{name} is damaged: " in done.stderr
        assert file.stat().st_size == left
    done = command_line.run("bank", "verify", "b", cwd=here)
    assert done.returncode == 3, done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "{}",
        '{"user": "a", "vector": [1]}',
        '{"user": "a", "vector": [1, 2, 3, "4"]}',
        '{"user": "a", "vector": [1, 2, 3, true]}',
        '{"user": 1, "vector": [1, 2, 3, 4]}',
        '{"user": "a", "vector": [1, 2, 3, NaN]}',
        '{"user": "a", "vector": [1, 2, 3, 1e39]}',
        '{"user": "a", "vector": [1, 2, 3, -1e999]}',
        f'{{"user": "a", "vector": [1, 2, 3, 1{"0" * 400}]}}',
        '{"user": "a", "vector": [1, 2, 3, 4]}\n{"user": "a", "vector": [1, 2, 3, 4]}',
    ],
)
def test_a_bad_line_adds_nobody(bank: Any, here: Path, line: str) -> None:
    bank("create", "users", "--base", "any", "--dimension", 4)
    (here / "v.jsonl").write_text('{"user": "good", "vector": [1, 2, 3, 4]}\n' + line)
    with pytest.raises(InputError) as caught:
        bank("add", "users", "v.jsonl")
    assert str(caught.value.field).startswith("line ")
    assert caught.value.file == "v.jsonl"
    assert bank("list", "users")[1] == {"users": []}


def test_a_user_who_is_there_twice_is_refused_however_far_apart(
    bank: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterbot.bank.batch.BATCH_BYTES", 16)  # two rows
    bank("create", "users", "--base", "any", "--dimension", 2)
    rows = [json.dumps({"user": user, "vector": [1, at]}) for at, user in enumerate("abcda")]
    (here / "v.jsonl").write_text("\n".join(rows))
    with pytest.raises(InputError, match="'a' is there twice") as caught:
        bank("add", "users", "v.jsonl", "--replace")
    assert caught.value.field == "line 5"


@pytest.mark.parametrize(
    ("said", "field"),
    [
        (("export", "users", "o", "--as", "soup", "--store-shared"), "--store-shared"),
        (("export", "users", "o", "--no-projection"), "--no-projection"),
        (("size", "users", "--users", 3, "--dimension", 9), "--dimension"),
        (("size", "users", "--users", 3, "--dtype", "int8"), "--dtype"),
        (("create", "o", "--base", "any", "--dimension", 2, "--rank", 8), "--rank"),
        (
            ("create", "o", "--base", "any", "--dimension", 2, "--rank", 256, "--targets", "k"),
            "--targets, --rank",
        ),
    ],
)
def test_an_option_that_would_not_be_read_is_refused(
    bank: Any, here: Path, said: tuple[Any, ...], field: str
) -> None:
    bank("create", "users", "--base", "any", "--dimension", 2)
    with pytest.raises(InputError) as caught:
        bank(*said)
    assert caught.value.field == field
    assert not (here / "o").exists()


def test_a_name_that_no_record_holds_is_refused(bank: Any, here: Path) -> None:
    with pytest.raises(InputError, match=r"^users: name: "):
        bank("create", "users", "--base", "any", "--dimension", 2, "--name", "n" * 201)
    assert not (here / "users").exists()


def test_a_base_that_no_record_holds_is_refused_by_an_import_too(bank: Any, here: Path) -> None:
    bank("create", "users", "--base", "any", "--dimension", 2)
    bank("export", "users", "out.safetensors")
    with pytest.raises(InputError, match=r"^copy: base_model: "):
        bank("import", "copy", "out.safetensors", "--base", "b/" * 1001)
    assert not (here / "copy").exists()


def test_a_device_that_there_cannot_be_is_named(bank: Any) -> None:
    with pytest.raises(InputError, match=r"--device: cannot be 'gpu' \(write auto, cpu, cuda or"):
        bank("fit", "users", "--users", "rows.jsonl", "--device", "gpu")


def test_peft_adapters_come_and_go(bank: Any, base: Path, here: Path) -> None:
    config = peft.VeraConfig(r=8, target_modules=QV, task_type="CAUSAL_LM")
    for seed, user in enumerate(("ann", "bob"), 1):
        save_user(base, here / user, config, seed)
    made = bank("import", "users", "ann", "robert=bob", "--dtype", "fp16")[1]
    assert (made["users"], made["kind"], made["modules"]) == (2, "vera", 4)
    assert bank("list", "users")[1] == {"users": ["ann", "robert"]}
    bank("export", "users", "out/ann", "--user", "ann", "--as", "peft")
    bank("export", "users", "out/lora", "--user", "ann", "--as", "lora")
    # What is there may be somebody's training.
    for form in ("peft", "lora"):
        with pytest.raises(InputError, match=r"out/lora: exists already"):
            bank("export", "users", "out/lora", "--user", "robert", "--as", form)
    assert json.loads((here / "out/lora/adapter_config.json").read_text())["peft_type"] == "LORA"
    bank("export", "users", "all.safetensors")
    again = bank("import", "copy", "all.safetensors")[1]
    assert (again["users"], again["dtype"]) == (2, "fp16")
    wide = bank("import", "wide", "all.safetensors", "--dtype", "fp32")[1]
    assert (wide["users"], wide["dtype"]) == (2, "fp32")
    with pytest.raises(InputError, match=r"keeps its rows in fp16 \(leave it out") as caught:
        bank("import", "users", "carl=bob", "--dtype", "fp32")
    assert (caught.value.file, caught.value.field) == ("users", "--dtype")
    assert bank("import", "copy", "carl=bob", "--dtype", "fp16")[1]["users"] == 3
    other = peft.VeraConfig(r=9, target_modules=QV, task_type="CAUSAL_LM")
    save_user(base, here / "odd", other, 3)
    # One source that is no good, and nothing of the others is written.
    for path, sources, problem in (
        ("users", ["carl=bob", "odd"], "other modules, ranks or kind"),
        ("users", ["carl=bob", "ann"], "already"),
        ("users", ["carl=bob", "carl=ann"], "named twice"),
        ("users", ["carl=bob", "carl=an"], "an: does not exist"),
        ("users", ["none/such"], "none/such: does not exist"),
        ("fresh", ["carl=bob", "carl=ann"], "named twice"),
        ("fresh", ["ann", "odd"], "other modules, ranks or kind"),
    ):
        with pytest.raises(InputError, match=problem):
            bank("import", path, *sources)
    assert bank("list", "users")[1] == {"users": ["ann", "robert"]}
    assert not (here / "fresh").exists()
    assert [bank("show", "users", user)[1]["source"] for user in ("ann", "robert")] == [
        "ann",
        "bob",
    ]
    bank("import", "users", "robert=bob", "robert=ann", "--replace")
    sources = [bank("show", "users", user)[1]["source"] for user in ("ann", "robert")]
    assert sources == ["ann", "ann"], "the last of two"
    with pytest.raises(InputError, match="cannot hold"):
        bank("export", "users", "bank.json", "--as", "soup")
    with pytest.raises(InputError, match="one user"):
        bank("export", "users", "x", "--as", "peft")


def test_users_of_another_base_do_not_come_into_a_bank(
    bank: Any, here: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterbot.bank import VectorBank, write_bank

    def soup(name: str, model: str) -> str:
        file = f"{name}.json"
        write_bank(VectorBank("b", model, {name: (0.5, 1.0)}, projection_seed=3), file)
        return file

    bank("import", "users", soup("a", "org/one"))
    with pytest.raises(InputError) as caught:
        bank("import", "users", soup("b", "org/one"), "--base", "org/two")
    assert caught.value.message == "is 'org/two', and the bank is of 'org/one'"
    assert (caught.value.file, caught.value.field) == ("users", "--base")
    with pytest.raises(InputError, match=r"c.json: is of 'org/two', and the bank of 'org/one'"):
        bank("import", "users", soup("c", "org/two"))
    with pytest.raises(InputError, match=r"c.json: is of 'org/two', and the bank of 'org/one'"):
        bank("import", "fresh", "a.json", "c.json")
    assert bank("list", "users")[1] == {"users": ["a"]}
    assert not (here / "fresh").exists()
    # One model under two names, which only a person can know.
    bank("import", "users", "b.json", "c.json", "--base", "Org/one")
    assert bank("list", "users")[1] == {"users": ["a", "b", "c"]}
    # A path says nothing of the model; two that lead to one folder are one base.
    bank("import", "users", soup("d", "/home/me/one"))
    assert bank("import", "local", "a.json", "--base", str(base))[1]["base_model"] == str(base)
    monkeypatch.chdir(base.parent)
    again = ("import", here / "local", here / "b.json", "--base", base.name)
    assert bank(*again)[1]["users"] == 2
    with pytest.raises(InputError, match=f"is 'other', and the bank is of '{base}'"):
        bank("import", here / "local", here / "c.json", "--base", "other")


def test_soups_bank_comes_and_goes(bank: Any, here: Path) -> None:
    from adapterbot.bank import VectorBank, read_bank, write_bank

    given = VectorBank(
        name="b", base_model="m", entries={"a": (0.5, 1.0), "b": (2.0, -1.0)}, projection_seed=3
    )
    write_bank(given, "bank.json")
    assert bank("import", "users", "bank.json")[1]["shared"] == "seed 3"
    bank("export", "users", "again.json", "--as", "soup")
    again = read_bank("again.json")
    assert (dict(again.entries), again.projection_seed) == (dict(given.entries), 3)


def test_a_number_of_soups_beyond_fp32_is_named_with_its_file(bank: Any, here: Path) -> None:
    from adapterbot.bank import VectorBank, write_bank

    entries = {"a": (0.5, 1.0), "b": (1e39, 1.0)}
    write_bank(VectorBank(name="b", base_model="m", entries=entries), "bank.json")
    with pytest.raises(InputError, match=r"bank\.json: b: has a number too large for fp32"):
        bank("import", "users", "bank.json")
    assert not Path("users").exists()


def test_a_vera_bank_is_made_from_a_bases_config(bank: Any, base: Path) -> None:
    made = bank("create", "users", "--base", base, "--rank", 16, "--targets", "all-linear")[1]
    assert (made["modules"], made["kind"]) == (14, "vera")
    with pytest.raises(InputError, match="no module"):
        bank("create", "other", "--base", base, "--targets", "nothing")
    with pytest.raises(InputError, match="exists already"):
        bank("create", "users", "--base", base)
    assert not Path("other").exists()


def test_a_base_that_nobody_has_is_said_at_once_in_one_line(here: Path) -> None:
    # The Hub's client reads its settings once, so in a process of its own.
    done = python(
        *("-m", "adapterbot", "bank", "create", "users", "--base", "nope"),
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(here / "hf")},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: nope: --base: 'nope' is not on this machine, and the Hub did not answer"
    )
    assert done.stderr.count("\n") == 1
    assert not (here / "users").exists()


WITHOUT_TORCH = """
import contextlib, io, json, sys
sys.modules["torch"] = None
from adapterbot.cli import main
found = []
for command in sys.argv[1:]:
    errors, code = io.StringIO(), 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try: main(["bank", *command.split()])
        except SystemExit as ended: code = ended.code
    found.append([code, errors.getvalue()])
print(json.dumps(found))
"""


def test_what_takes_torch_names_the_extra_that_brings_it_and_all_else_does_without(
    bank: Any, here: Path
) -> None:
    bank("create", "users", "--base", "any", "--dimension", 2, "--store-shared")
    bank("create", "drawn", "--base", "any", "--dimension", 2)
    (here / "v.jsonl").write_text('{"user": "ann", "vector": [1, 2]}')
    commands = {
        "add users v.jsonl": 0,
        "add drawn v.jsonl": 0,
        "export drawn file": 0,
        "export drawn bank.json --as soup": 0,
        "verify drawn": 0,
        "verify users": 1,
        "export users other": 1,
        "export users ann --user ann --as peft": 1,
        "create more --base any --dimension 2": 1,
    }
    done = python("-c", WITHOUT_TORCH, *commands, check=True)
    found = json.loads(done.stdout)
    assert [code for code, _ in found] == list(commands.values()), found
    for code, errors in found:
        assert ("pip install 'adapterbot[bank,eval]'" in errors) == (code == 1)


def test_a_key_is_shown_once_and_revoked(bank: Any, here: Path) -> None:
    bank("create", "users", "--base", "any", "--dimension", 1)
    (here / "v.jsonl").write_text('{"user": "a", "vector": [1]}')
    bank("add", "users", "v.jsonl")
    key = bank("key", "users", "a")[1]["key"]
    raw = (here / "users" / "rows-1.mdb").read_bytes()
    assert key.encode() not in raw
    bank("key", "users", "a", "--revoke")
    with pytest.raises(AdapterbotError, match="not in the bank"):
        bank("key", "users", "nobody")


def test_a_key_stands_alone_on_its_line_for_a_shell_to_take(
    bank: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank("create", "users", "--base", "any", "--dimension", 1)
    (here / "v.jsonl").write_text('{"user": "a", "vector": [1]}')
    bank("add", "users", "v.jsonl")
    with pytest.raises(SystemExit):
        app(args=["bank", "key", "users", "a"])
    key = capsys.readouterr().out.removesuffix("\n")
    assert key.startswith("ab-")
    assert not set(key) & set(" \n")
