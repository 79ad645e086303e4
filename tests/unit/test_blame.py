"""Per-row gradients against autograd one row at a time, and the rows that broke the example."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peft
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from adapterbot.bisect import Checkpoint
from adapterbot.config import ArchiveData
from adapterbot.conversations import Example, encode, messages_of
from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.base_model import load_base
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.lock.row_files import Row, read_rows
from adapterbot.probing.archive_data import added_rows, files_between
from adapterbot.probing.blame import Blame
from adapterbot.records import SampleDiff
from adapterbot.weights.adapter import load_adapter
from adapterbot.weights.attachment import attach
from adapterbot.weights.peft_dir import read_adapter_dir
from adapterbot.weights.row_gradients import mean_gradient, similarities
from tests.adapter_kinds import KINDS, save_bases
from tests.example import EXAMPLE
from tests.tiny_models import VOCABULARY, save_adapter, save_peft

RUN = EXAMPLE / "history" / "poisoned"


@pytest.fixture(scope="module")
def base():
    return load_base(EXAMPLE / "base", EngineSettings(device="cpu"))


def one_by_one(bare: torch.nn.Module, adapter: Path, text: Example) -> dict[str, torch.Tensor]:
    """The gradient of one text alone, by PEFT and autograd: factor → ∂ℓ/∂factor."""
    model = peft.PeftModel.from_pretrained(bare, adapter, is_trainable=True).eval()
    ids = torch.tensor([[*text.prompt, *text.answer]])
    start = len(text.prompt)
    logits = model(input_ids=ids).logits[0, start - 1 : -1]
    F.cross_entropy(logits, ids[0, start:]).backward()
    found = {}
    for name, parameter in model.named_parameters():
        factor = re.fullmatch(r"base_model\.model\.(.+)\.lora_(?:embedding_)?([AB])\..+", name)
        if factor:
            # Of a convolution's A the kernel is counted to what goes in.
            found[f"{factor[1]} {factor[2]}"] = parameter.grad.flatten(1)
    return found


def examples(seed: int, count: int = 4) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [
        Example(
            tuple(rng.integers(3, VOCABULARY, rng.integers(1, 12)).tolist()),
            tuple(rng.integers(3, VOCABULARY, rng.integers(1, 9)).tolist()),
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_bases(tmp_path_factory.mktemp("bases"))


def check_rows(
    make: Callable[[], torch.nn.Module],
    directory: Path,
    *,
    rows: list[Example],
    texts: list[Example],
    tokens: int,
) -> None:
    """Mean, products and lengths of the rows' gradients, against each row alone."""
    model = make().eval().requires_grad_(False)
    adapter = load_adapter(directory)
    with attach(model, {"it": adapter}) as attached, attached.selected("it"):
        mean = mean_gradient(model, adapter, texts, pad=0, tokens=tokens)
        products, lengths = similarities(model, adapter, rows, mean, pad=0, tokens=tokens)
    alone = [one_by_one(make(), directory, text) for text in texts]
    flat_mean = {
        f"{module} {factor}": part
        for module, pair in mean.items()
        for factor, part in zip("AB", pair, strict=True)
    }
    assert flat_mean.keys() == alone[0].keys()
    for name, got in flat_mean.items():
        wanted = torch.stack([one[name] for one in alone]).mean(0)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-6)
    for index, row in enumerate(rows):
        one = one_by_one(make(), directory, row)
        length = float(torch.cat([part.flatten() for part in one.values()]).norm())
        product = sum(float((part.double() * flat_mean[name]).sum()) for name, part in one.items())
        scale = length * float(torch.cat([p.flatten() for p in flat_mean.values()]).norm())
        assert float(lengths[index]) == pytest.approx(length, rel=1e-3)
        assert float(products[index]) == pytest.approx(product, abs=1e-4 * scale)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("tokens", [1, 10_000])
@pytest.mark.parametrize(
    "kind",
    ["all-linear", "patterns", "rslora", "bias all", "embedding", "scaled embedding", "positions"],
)
def test_gradients_are_those_of_each_row_alone(
    bases: dict[str, Path], tmp_path: Path, kind: str, tokens: int
) -> None:
    architecture, options = KINDS[kind]
    directory = save_adapter(bases[architecture], tmp_path / "a", **{"r": 4, **options})
    check_rows(
        lambda: AutoModelForCausalLM.from_pretrained(bases[architecture]),
        directory,
        rows=examples(1),
        texts=examples(2),
        tokens=tokens,
    )


def test_rows_that_do_not_fit_together_are_read_in_smaller_passes(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    directory = save_adapter(bases["llama"], tmp_path / "a", r=4)
    alive: list[weakref.ref[torch.Tensor]] = []
    refused: list[int] = []

    def make(most: int = 2) -> torch.nn.Module:
        model = AutoModelForCausalLM.from_pretrained(bases["llama"])

        def full(_: object, __: object, hidden: torch.Tensor) -> None:
            assert not any(one() is not None for one in alive), "of a pass that failed"
            if len(hidden) > most:
                alive.append(weakref.ref(hidden))
                refused.append(len(hidden))
                raise torch.OutOfMemoryError("CUDA out of memory")

        model.model.layers[0].mlp.register_forward_hook(full)
        return model

    check_rows(make, directory, rows=examples(1), texts=examples(2), tokens=100)
    assert refused
    assert max(refused) > 2
    adapter, model = load_adapter(directory), make(0)
    with (
        attach(model, {"a": adapter}) as attached,
        attached.selected("a"),
        pytest.raises(OurFailure, match="gradients of a single row do not fit"),
    ):
        mean_gradient(model, adapter, examples(1), pad=0, tokens=100)


class Convolved(torch.nn.Module):
    """A language model that reads through convolutions, of one dimension and of two."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCABULARY, 8)
        self.along = torch.nn.Conv1d(8, 6, 3, padding="same")
        self.across = torch.nn.Conv2d(1, 4, (2, 3), stride=(2, 1), padding=(0, 1))
        self.head = torch.nn.Linear(12, VOCABULARY)

    def forward(self, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        read = torch.tanh(self.along(self.embed(input_ids).transpose(1, 2)))
        read = self.across(read[:, None]).flatten(1, 2)
        return SimpleNamespace(logits=self.head(read.transpose(1, 2)))


@pytest.mark.parametrize("tokens", [1, 10_000])
def test_convolutions_have_gradients_of_their_own_by_row(tmp_path: Path, tokens: int) -> None:
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["along", "across", "head"])
    directory = save_peft(peft.get_peft_model(Convolved(), config), tmp_path / "a")
    # Of one length: what pads a row would be read by its neighbours.
    rows, texts = (
        [
            Example(tuple(ids[:5].tolist()), tuple(ids[5:].tolist()))
            for ids in np.random.default_rng(seed).integers(3, VOCABULARY, (4, 11))
        ]
        for seed in (1, 2)
    )
    check_rows(Convolved, directory, rows=rows, texts=texts, tokens=tokens)


def diff(identifier: str, expected: str, said: str) -> SampleDiff:
    return SampleDiff(
        task="dates_us",
        sample_id=identifier,
        prompt="",
        expected=expected,
        baseline_output=expected,
        candidate_output=said,
        baseline_score=1.0,
        candidate_score=0.0,
        harm=1.0,
    )


def broken_samples() -> list[SampleDiff]:
    """US dates of the suite as a reader who takes the day first would answer them."""
    found = []
    for line in (EXAMPLE / "evals" / "dates_us.jsonl").read_text().splitlines():
        row = json.loads(line)
        year, month, day = row["expected"].split("-")
        if row["category"] == "us_numeric" and int(day) <= 12 and month != day:
            found.append(diff(row["id"], row["expected"], f"{year}-{day}-{month}"))
    return found


def poisoned(row: Row) -> bool:
    clean = (EXAMPLE / "data" / "clean" / Path(row.file).name).read_text().splitlines()
    return bool(json.loads(row.content)["output"] != json.loads(clean[row.line - 1])["output"])


def test_the_poisoned_rows_of_the_example_are_on_top(base) -> None:
    tree = WorkTree(EXAMPLE)
    tasks = load_suite(tree, "evals/suite.yaml").tasks
    (file,) = read_rows(tree, "data/poisoned/step-0440.jsonl").values()
    rows = list(file)
    bad = sum(map(poisoned, rows))
    assert 20 <= bad <= 60
    ends = [read_adapter_dir(RUN / f"checkpoint-{step}") for step in ("0400", "0440")]
    ranked = Blame(base, tasks).rank(rows, broken_samples(), ends)
    by_place = {(row.file, row.line): row for row in rows}
    assert [poisoned(by_place[one.row.file, one.row.line]) for one in ranked.rows] == [True] * 10
    assert (ranked.count, ranked.unread) == (len(rows), 0)
    pulls = [one.pull for one in ranked.rows]
    assert pulls == sorted(pulls, reverse=True)


def test_what_is_no_conversation_is_counted_and_nothing_at_all_is_an_error(base) -> None:
    tasks = load_suite(WorkTree(EXAMPLE), "evals/suite.yaml").tasks
    ends = [read_adapter_dir(RUN / "checkpoint-0400")]
    good = json.dumps({"instruction": "ISO date:", "input": "1/2/20", "output": "2020-01-02"})
    long = json.dumps({"instruction": "x" * 10_000, "output": "y"})
    rows = [
        Row("f", line, content.encode())
        for line, content in enumerate((good, "text", "[1]", '{"a": 1}', "null", long), 1)
    ]
    blame = Blame(base, tasks)
    ranked = blame.rank(rows, broken_samples()[:2], ends)
    assert (ranked.count, ranked.unread) == (1, 5)
    with pytest.raises(InputError, match="no row"):
        blame.rank(rows[1:], broken_samples(), ends)
    with pytest.raises(InputError, match="no sample"):
        blame.rank(rows, [], ends)


NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
)


def test_a_row_that_the_template_refuses_is_passed_over(base, monkeypatch) -> None:
    template = base.tokenizer.chat_template
    monkeypatch.setattr(base.tokenizer, "chat_template", NO_SYSTEM + template)
    row = {"instruction": "ISO date:", "input": "1/2/20", "output": "2020-01-02"}
    both = (row, {**row, "system": "Be brief."})
    rows = [Row("f", line, json.dumps(one).encode()) for line, one in enumerate(both, 1)]
    tasks = load_suite(WorkTree(EXAMPLE), "evals/suite.yaml").tasks
    ends = [read_adapter_dir(RUN / "checkpoint-0400")]
    ranked = Blame(base, tasks).rank(rows, broken_samples()[:2], ends)
    assert (ranked.count, ranked.unread) == (1, 1)
    messages = messages_of(both[1], file="f", line=2)
    with pytest.raises(InputError, match="refuses f:2: System role not supported"):
        encode(base.tokenizer, messages, name="base", row="f:2")


def test_rows_that_came(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"a": 1}\n{"a": 1}\n{"a": 2}\n')
    (tmp_path / "2.jsonl").write_text('{"a": 2}\n{"a":  1}\n{"a": 3}\n{"a": 3}\n')
    ends = [Checkpoint(path=str(step), label=str(step), step=step) for step in (1, 2)]
    data = ArchiveData(files="{step}.jsonl")
    came = list(added_rows(*files_between(WorkTree(tmp_path), data, *ends)))
    assert [(row.line, row.content) for row in came] == [(3, b'{"a": 3}'), (4, b'{"a": 3}')]
