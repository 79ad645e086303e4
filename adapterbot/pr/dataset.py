"""The dataset diff of an adapter pull request, from whichever form it is at hand in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.files.validation import bad_input
from adapterbot.git.checkout import repository_root
from adapterbot.git.commits import resolve_commit
from adapterbot.git.tree import GitTree
from adapterbot.lock.rows import Rows, dataset_diff, read_rows, training_rows
from adapterbot.pr.jsonfile import parse, read_text, whole
from adapterbot.records import DatasetDiff
from adapterbot.records.pulls import MAX_DATASET_DIFF

_FIX = (
    "name a file with the diff, OLD..NEW (two refs), or give the option twice: old data, new data"
)


def read_dataset_diff(given: Sequence[str], config: str) -> DatasetDiff | str | None:
    """What changed in the training data.

    Args:
        given: nothing; a file with a `DatasetDiff` as JSON, or with a diff as text; two refs as
            "OLD..NEW", compared in the data that `config` names there; or two data paths.
        config: the training config, from the repository root.

    Raises:
        InputError: what was given is none of these, or its data cannot be read.
    """
    if not given:
        return None
    if len(given) == 2:
        return dataset_diff(*(_rows_at(Path(name)) for name in given))
    if len(given) > 2:
        raise InputError("is given more than twice", field="--dataset-diff", fix=_FIX)
    path = Path(given[0])
    if there.is_file(path):
        return _file(path)
    old_ref, dots, new_ref = given[0].partition("..")
    if not dots:
        raise InputError(
            "is neither a file nor two refs", file=given[0], field="--dataset-diff", fix=_FIX
        )
    return _between(old_ref, new_ref.removeprefix("."), config)


def _file(path: Path) -> DatasetDiff | str:
    text = read_text(path)
    if path.suffix == ".json":
        try:
            return DatasetDiff.model_validate(parse(text, str(path)))
        except ValidationError as error:
            raise bad_input(
                error,
                file=str(path),
                fix="pass a dataset diff of adapterbot's, or a text file with the diff",
            ) from error
    if len(text) > MAX_DATASET_DIFF:
        raise InputError(
            f"is {len(text):,} characters, more than {MAX_DATASET_DIFF:,}",
            file=str(path),
            fix="summarise it",
        )
    return whole(text)


def _rows_at(path: Path) -> Rows:
    folder = path if there.is_dir(path) else path.parent
    tree = WorkTree(folder.absolute(), label=str(folder))
    return read_rows(tree, "" if there.is_dir(path) else path.name)


def _between(old: str, new: str, config: str) -> DatasetDiff:
    root = repository_root(Path.cwd())
    trees: list[Tree] = [GitTree(root, resolve_commit(root, ref or "HEAD")) for ref in (old, new)]
    before, after = (training_rows(tree, config) for tree in trees)
    return dataset_diff(before, after)
