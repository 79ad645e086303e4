"""The dataset diff: rows as a multiset, whatever the format, and which row became which."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from adapterbot.errors import InputError
from adapterbot.files.tree import WorkTree
from adapterbot.git.tree import GitTree
from adapterbot.lock import row_files, row_pairs
from adapterbot.lock.row_files import Row
from adapterbot.lock.rows import dataset_diff, read_rows
from adapterbot.records import DatasetDiff
from tests.example import commit, git


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def diff(folder: Path, before: dict[str, str], after: dict[str, str]) -> DatasetDiff:
    sides = []
    for side, files in (("before", before), ("after", after)):
        (folder / side).mkdir(exist_ok=True, parents=True)
        for name, text in files.items():
            (folder / side / name).write_text(text)
        sides.append(read_rows(WorkTree(folder / side), *files))
    return dataset_diff(*sides)


def counts(found: DatasetDiff) -> tuple[int, int, int]:
    return found.added, found.removed, found.changed


BASE = [{"prompt": f"question {i}", "answer": "yes", "category": "a"} for i in range(20)]


def test_rows_are_added_removed_and_changed(tmp_path: Path) -> None:
    now = [dict(row) for row in BASE[3:]]
    now[5]["answer"] = "no"
    now += [{"prompt": f"new {i}", "answer": "yes", "category": "a"} for i in range(120)]
    found = diff(tmp_path, {"t.jsonl": jsonl(*BASE)}, {"t.jsonl": jsonl(*now)})
    assert found.summary == "+120 rows, −3 rows, 1 changed"
    (example,) = found.changed_rows
    assert (example.file, example.line) == ("t.jsonl", 6)
    assert json.loads(example.before)["answer"] == "yes"
    assert json.loads(example.after)["answer"] == "no"
    assert len(found.added_rows) == 5
    assert [row.line for row in found.removed_rows] == [1, 2, 3]
    (file,) = found.files
    assert (file.rows_before, file.rows_after) == (20, 137)


def test_a_shared_category_does_not_make_two_rows_one(tmp_path: Path) -> None:
    now = [*BASE[1:], {"prompt": "other", "answer": "yes", "category": "a"}]
    assert counts(diff(tmp_path, {"t.jsonl": jsonl(*BASE)}, {"t.jsonl": jsonl(*now)})) == (1, 1, 0)


def test_a_row_of_one_text_is_known_by_its_place(tmp_path: Path) -> None:
    before = "".join(f"sentence {i}\n" for i in range(9))
    found = diff(tmp_path, {"t.txt": before}, {"t.txt": before.replace("sentence 4", "sentense 4")})
    assert counts(found) == (0, 0, 1)
    assert found.changed_rows[0].after == "sentense 4"


def test_chat_rows_are_known_by_their_question(tmp_path: Path) -> None:
    def chat(question: str, answer: str) -> object:
        return {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }

    before = [chat(f"q{i}", f"a{i}") for i in range(6)]
    after = [chat("q9", "a9"), *before[:3], chat("q3", "other"), *before[5:]]
    found = diff(tmp_path, {"t.jsonl": jsonl(*before)}, {"t.jsonl": jsonl(*after)})
    assert counts(found) == (1, 1, 1)


def test_what_is_only_written_differently_is_no_change(tmp_path: Path) -> None:
    before = "".join(json.dumps(row) + "\n" for row in BASE)
    after = "".join(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\r\n" for row in BASE)
    found = diff(tmp_path, {"t.jsonl": before}, {"t.jsonl": after})
    assert counts(found) == (0, 0, 0)
    assert found.summary == "the same rows"


def test_another_order_is_said_and_counts_nothing(tmp_path: Path) -> None:
    found = diff(tmp_path, {"t.jsonl": jsonl(*BASE)}, {"t.jsonl": jsonl(*BASE[::-1])})
    assert found.summary == "the same rows in another order"


def test_formats_compare_with_each_other(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    (tmp_path / "before").mkdir()
    parquet.write_table(arrow.Table.from_pylist(BASE), tmp_path / "before" / "t.parquet")
    csv = "prompt,answer,category\n" + "".join(f"question {i},yes,a\n" for i in range(20))
    for name, text in {"t.csv": csv, "t.json": json.dumps(BASE)}.items():
        (tmp_path / "before" / name).write_text(text)
    (tmp_path / "after").mkdir()
    (tmp_path / "after" / "t.jsonl").write_text(jsonl(*BASE[:-1]))
    after = read_rows(WorkTree(tmp_path / "after"), "t.jsonl")
    for name in ("t.parquet", "t.csv", "t.json"):
        found = dataset_diff(read_rows(WorkTree(tmp_path / "before"), name), after)
        assert counts(found) == (0, 1, 0), name
        assert found.files[0].file == f"{name} → t.jsonl"


def test_a_renamed_or_resharded_file_is_no_news(tmp_path: Path) -> None:
    before = {"a.jsonl": jsonl(*BASE), "same.jsonl": jsonl(*BASE)}
    after = {"moved.jsonl": jsonl(*BASE), "same.jsonl": jsonl(*BASE)}
    assert diff(tmp_path / "1", before, after).files == ()
    shards = {"b.jsonl": jsonl(*BASE[:8]), "c.jsonl": jsonl(*BASE[8:])}
    assert counts(diff(tmp_path / "2", {"a.jsonl": jsonl(*BASE)}, shards)) == (0, 0, 0)


def test_a_copy_beside_a_file_that_moved_is_as_many_rows_more(tmp_path: Path) -> None:
    """Twice the weight in training, and no name that both sides have."""
    one, two = {"a.jsonl": jsonl(*BASE)}, {"b.jsonl": jsonl(*BASE), "c.jsonl": jsonl(*BASE)}
    assert counts(diff(tmp_path / "1", one, two)) == (20, 0, 0)
    assert counts(diff(tmp_path / "2", two, one)) == (0, 20, 0)


def test_a_line_of_text_is_what_it_says_and_not_what_json_would_read(tmp_path: Path) -> None:
    before, after = '1.0\n{"a": 1}\n', '1.00\n{"a":1}\n'
    assert counts(diff(tmp_path, {"t.txt": before}, {"t.txt": after})) == (0, 0, 2)


def test_an_id_of_one_is_an_id(tmp_path: Path) -> None:
    """Which to Python equals true, and true tells no row from another."""
    rows = [{"id": i, "answer": f"a{i}"} for i in range(4)]
    after = [*rows[2:], {"id": 0, "answer": "x"}, {"id": 1, "answer": "y"}]
    found = diff(tmp_path, {"t.jsonl": jsonl(*rows)}, {"t.jsonl": jsonl(*after)})
    assert counts(found) == (0, 0, 2)


def test_json_that_says_two_things_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.json: has the key 'a' twice"):
        diff(tmp_path, {"t.json": '[{"a": 1, "a": 2}]'}, {"t.json": '[{"a": 3, "a": 2}]'})


def test_two_git_refs(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    big = [{"prompt": f"question {i}", "answer": "y" * 100} for i in range(4000)]
    commits = []
    for rows in (big, [*big[:-2], {"prompt": "new", "answer": "z"}]):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "train.jsonl").write_text(jsonl(*rows))
        commits.append(GitTree(tmp_path, commit(tmp_path)))
    before, after = (read_rows(tree, "data") for tree in commits)
    assert counts(dataset_diff(before, after)) == (1, 2, 0)
    assert counts(dataset_diff(after, before)) == (2, 1, 0)


def test_the_rows_that_are_shown_come_from_all_over_and_are_always_the_same(
    tmp_path: Path,
) -> None:
    # Sorted by file, and taking turns within it.
    for name in ("a.jsonl", "b.jsonl"):
        rows = (f'{{"q": "{name} {i}", "kind": {i % 3}}}\n' for i in range(96))
        (tmp_path / name).write_text("".join(rows))

    def look() -> DatasetDiff:
        return dataset_diff({}, read_rows(WorkTree(tmp_path), "a.jsonl", "b.jsonl"), examples=12)

    found = look()
    assert found.added == 192
    places = [(row.file, row.line) for row in found.added_rows]
    assert places == sorted(set(places))
    assert {file for file, _ in places} == {"a.jsonl", "b.jsonl"}
    assert {line % 3 for _, line in places} == {0, 1, 2}
    assert look() == found


def test_a_great_many_are_counted_and_not_paired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_pairs, "MAX_PAIRED", 10)
    after = [{**row, "answer": "no"} for row in BASE]
    files = {"t.jsonl": jsonl(*BASE)}
    assert counts(diff(tmp_path / "1", files, {"t.jsonl": jsonl(*after)})) == (20, 20, 0)
    compact = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in BASE)
    assert counts(diff(tmp_path / "2", files, {"t.jsonl": compact})) == (0, 0, 0)


def test_hostile_rows_are_compared_as_text_or_refused_by_line(tmp_path: Path) -> None:
    odd = b'{"a": 1, "a": 2}\n\xff\xfe\n' + b"[" * 5000 + b"\n\x00\n"
    (tmp_path / "a.jsonl").write_bytes(odd)
    (tmp_path / "b.jsonl").write_bytes(odd.replace(b'"a": 1', b'"a": 3'))
    tree = WorkTree(tmp_path)
    found = dataset_diff(read_rows(tree, "a.jsonl"), read_rows(tree, "b.jsonl"))
    assert found.changed == 1  # a key given twice hides a value from `json.loads`
    found.model_dump_json()
    (tmp_path / "long.jsonl").write_bytes(b"x" * (17 << 20))
    with pytest.raises(InputError, match="line 1"):
        dataset_diff(read_rows(tree, "a.jsonl"), read_rows(tree, "long.jsonl"))
    for name, content in {"n.csv": b'a\n"' + b"x" * 200_000, "n.parquet": b"PAR1"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            dataset_diff({}, read_rows(tree, name))
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(InputError, match="not a file whose rows"):
        read_rows(tree, "x.bin")
    with pytest.raises(InputError, match="does not exist"):
        read_rows(tree, "nowhere")


def test_a_line_of_csv_without_end_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "ROW_LIMIT", 1000)
    (tmp_path / "long.csv").write_text("a,b\n1,2\n" + "x," * 501)
    with pytest.raises(InputError, match=r"long\.csv: line 3: is longer than the 1,000"):
        dataset_diff({}, read_rows(WorkTree(tmp_path), "long.csv"))


def test_json_that_is_read_and_too_deep_to_be_written_is_refused(tmp_path: Path) -> None:
    for depth in range(900, 1000):
        (tmp_path / "deep.json").write_text('{"a":' * depth + "1" + "}" * depth)
        with suppress(InputError):
            assert len(list(read_rows(WorkTree(tmp_path), "deep.json")["deep.json"])) == 1


@pytest.mark.parametrize("kind", ["text", "date", "duration", "names"])
def test_parquet_with_values_that_python_has_not_is_refused(kind: str, tmp_path: Path) -> None:
    no_text = pa.py_buffer(b"\xff\xfe")
    column = {
        "text": pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), no_text),
        "date": pa.array([2**30], pa.date32()),
        "duration": pa.array([2**62], pa.duration("s")),
        "names": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]),
    }[kind]
    parquet.write_table(pa.table({"a": column}), tmp_path / "odd.parquet")
    with pytest.raises(InputError, match=r"odd\.parquet: row 1 .*has no value for"):
        dataset_diff({}, read_rows(WorkTree(tmp_path), "odd.parquet"))


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 9), max_size=25),
    st.lists(st.integers(0, 9), max_size=25),
    st.randoms(use_true_random=False),
)
def test_the_multisets_balance(
    tmp_path_factory: pytest.TempPathFactory, old: list[int], new: list[int], order: random.Random
) -> None:
    """Independent reference: Counter arithmetic, where no cell can tell which row became which."""
    folder = tmp_path_factory.mktemp("rows")
    texts = [jsonl(*(f"row {i}" for i in side)) for side in (old, new)]
    found = diff(folder, {"t.jsonl": texts[0]}, {"t.jsonl": texts[1]})
    left, right = Counter(old), Counter(new)
    assert found.added + found.changed == (right - left).total()
    assert found.removed + found.changed == (left - right).total()
    order.shuffle(new)
    again = diff(folder, {"t.jsonl": texts[0]}, {"t.jsonl": jsonl(*(f"row {i}" for i in new))})
    assert again.added + again.changed == (right - left).total()


def test_a_row_nested_deeper_than_our_stack_is_paired_all_the_same(monkeypatch) -> None:
    """From Python 3.12 on JSON is read to depths that a function of ours cannot follow."""
    nested: object = "x"
    for _ in range(5000):
        nested = [nested]
    monkeypatch.setattr(row_pairs, "_value", lambda row: {"id": "seven", "tree": nested})
    before, after = (row_pairs.Unmatched() for _ in range(2))
    old, new = (Row("train.jsonl", 1, content) for content in (b"old", b"new"))
    before.add(b"", old)
    after.add(b"", new)
    assert row_pairs.pair_by_cells(before, after, []) == [(old, new)]
