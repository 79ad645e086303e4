"""What Python is promised: the names, their types, and arrays of whatever library."""

from __future__ import annotations

import ast
import copy
import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adapterbot
from adapterbot.bank import VectorBank, estimate_bank_size
from adapterbot.bisect import Posterior, Scores
from adapterbot.delta import compare
from adapterbot.errors import InputError
from adapterbot.lock import check
from adapterbot.weights import load_adapter, merge_linear
from tests.programs import python

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
BEFORE = np.random.default_rng(0).random(60)
AFTER = BEFORE + np.repeat(np.random.default_rng(1).normal(0, 0.1, 12), 5)
DOCUMENTS = np.arange(60) // 5


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", adapterbot.__all__)
def test_every_promised_name_is_there_and_is_completed(name: str) -> None:
    package = importlib.import_module(f"adapterbot.{name}")
    assert getattr(adapterbot, name) is package
    assert name in dir(adapterbot)
    for inner in getattr(package, "__all__", ()):
        assert inner in dir(package)
        assert getattr(package, inner) is not None


def test_importing_all_of_it_loads_no_torch() -> None:
    code = "from adapterbot import *; import sys; print({'torch', 'lmdb'} & set(sys.modules))"
    done = python("-c", code, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("call", ["weights.load_adapter", "bank.open_bank('x')", "mole.Mixture"])
def test_a_package_that_is_missing_is_told_how_to_be_had(call: str) -> None:
    code = f"""
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "lmdb"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import adapterbot
adapterbot.{call}
"""
    done = python("-c", code)
    assert "pip install 'adapterbot[bank,eval]'" in done.stderr.splitlines()[-1]


def test_type_checkers_read_its_types() -> None:
    assert (Path(adapterbot.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("name", ["", "bank", "merge", "mole", "weights"])
def test_a_misspelt_name_is_none_to_a_type_checker(name: str) -> None:
    """One that sees a module's `__getattr__` believes in every name."""
    source = (Path(adapterbot.__file__).parent / name / "__init__.py").read_text()
    seen = [node for node in ast.parse(source).body if not isinstance(node, ast.If)]
    assert "__getattr__" in source
    assert "__getattr__" not in {
        name.id for part in seen for name in ast.walk(part) if isinstance(name, ast.Name)
    }


# ---------------------------------------------------------------- scores


def compared(before: Any, after: Any, **options: Any) -> Any:
    return compare(before, after, **{"direction": "higher", "margin": 0.05, **options})


@pytest.mark.parametrize(
    "library",
    [list, torch.tensor, lambda labels: list(torch.tensor(labels))],
    ids=["list", "torch", "list of tensors"],
)
def test_clusters_are_those_of_an_array(library: Any) -> None:
    """Elements of a tensor are never equal as keys: each was a cluster of its own."""
    by_document = compared(BEFORE, AFTER, clusters=DOCUMENTS)
    assert compared(BEFORE, AFTER, clusters=library(DOCUMENTS)) == by_document
    assert by_document.interval.low < compared(BEFORE, AFTER).interval.low


class Unknown:
    """As pandas has it."""

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize("label", [None, float("nan"), np.nan, Unknown()])
def test_a_sample_without_a_label_is_refused(label: object) -> None:
    with pytest.raises(InputError, match="clusters: lack the label of 1 of 60 samples"):
        compared(BEFORE, AFTER, clusters=[label, *DOCUMENTS[1:]])


def test_labels_that_are_none_are_refused() -> None:
    for labels in (DOCUMENTS[:, None], [torch.ones(2)] * 60, [np.ones(2)] * 60):
        with pytest.raises(InputError, match="clusters: hold no labels"):
            compared(BEFORE, AFTER, clusters=labels)


def test_tensors_are_arrays_wherever_they_come_from() -> None:
    tensor = torch.tensor(BEFORE, requires_grad=True)
    assert compared(tensor, torch.tensor(AFTER)) == compared(BEFORE, AFTER)
    assert compared(tensor.bfloat16(), AFTER).n == 60


def test_what_a_masked_array_masks_is_missing() -> None:
    masked = np.ma.masked_array(BEFORE, BEFORE > 0.5)
    found = compared(masked, AFTER)
    assert found == compared(np.where(BEFORE > 0.5, np.nan, BEFORE), AFTER)
    assert found.n < 60


def test_what_was_passed_is_left_alone() -> None:
    given = (BEFORE.copy(), AFTER.copy(), DOCUMENTS.copy())
    for array in given:
        array.setflags(write=False)
    compared(given[0], given[1], clusters=given[2])


# ---------------------------------------------------------------- bisect


def test_a_plot_of_the_posterior_may_be_written_to() -> None:
    posterior = Posterior(4)
    posterior.tell(0, False)
    before = posterior.best()
    posterior.distribution()[:] = 0
    assert posterior.best() == before


def test_two_searches_may_be_given_one_model() -> None:
    """`Scores` learns how many values there are: of those of another search, too."""

    def searched(model: Scores) -> Any:
        posterior = Posterior(8, model)
        for index, score in ((0, 1.0), (7, 0.0), (3, 1.0), (4, 0.0)):
            posterior.tell(index, score)
        return posterior.distribution().tolist()

    used = Scores()
    Posterior(8, used).tell(0, [0.1, 0.9, 0.2])
    assert searched(used) == searched(Scores())


def test_scores_of_a_probe_may_be_a_tensor() -> None:
    told, other = Posterior(4, Scores()), Posterior(4, Scores())
    told.tell(1, torch.tensor([0.5, 0.25]))
    other.tell(1, [0.5, 0.25])
    assert told.asked(1) == other.asked(1) == 2
    assert told.distribution().tolist() == other.distribution().tolist()


@pytest.mark.parametrize("costs", [[1, 1], [1, 0, 1, 1], [[1], [1], [1], [1]]])
def test_costs_are_one_for_each_checkpoint(costs: Any) -> None:
    with pytest.raises(ValueError, match="4 numbers above 0"):
        Posterior(4).ask(costs)


# ---------------------------------------------------------------- banks, adapters, locks


@pytest.mark.parametrize("library", [np.array, torch.tensor, tuple], ids=["np", "torch", "tuple"])
def test_a_bank_is_made_of_arrays(library: Any) -> None:
    bank = VectorBank("users", "base", {"ann": library([0.5, -1.0])})
    assert bank == VectorBank("users", "base", {"ann": [0.5, -1.0]})
    assert estimate_bank_size(np.int64(2), np.int64(128)) == 4 * 128 * 130


def test_a_bank_and_an_adapter_can_be_copied_and_sent_to_a_process() -> None:
    bank = VectorBank("users", "base", {"ann": [0.5, -1.0]})
    assert pickle.loads(pickle.dumps(bank)) == copy.deepcopy(bank) == bank
    adapter = load_adapter(TINY / "adapters" / "dates")
    module = next(iter(adapter.updates))
    for other in (pickle.loads(pickle.dumps(adapter)), copy.deepcopy(adapter)):
        assert torch.equal(other.delta_weight(module), adapter.delta_weight(module))


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_that_holds_nothing_is_refused(rank: int) -> None:
    adapter = load_adapter(TINY / "adapters" / "dates")
    with pytest.raises(ValueError, match=f"rank is {rank}"):
        merge_linear([adapter], [1.0], rank=rank)


@pytest.mark.parametrize("library", [np.array, torch.tensor], ids=["np", "torch"])
def test_weights_of_a_merge_may_be_an_array(library: Any) -> None:
    adapters = [load_adapter(TINY / "experts" / name) for name in ("dates_eu", "dates_us")]
    module = next(iter(adapters[0].updates))
    wanted = merge_linear(adapters, [0.25, 0.5]).delta_weight(module)
    assert torch.equal(merge_linear(adapters, library([0.25, 0.5])).delta_weight(module), wanted)


@pytest.mark.parametrize("directory", [TINY, str(TINY)], ids=["path", "text"])
def test_a_lock_is_checked_in_a_directory(directory: Any) -> None:
    assert check(directory, "soup.lock", "soup.yaml").status == "ok"
