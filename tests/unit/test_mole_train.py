"""Training a gate: what it sees, what it minimises, and that it goes on after a kill."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from adapterbot.conversations import Example, encode, messages_of
from adapterbot.errors import InputError
from adapterbot.mole.config import TrainingPlan
from adapterbot.mole.ending import STATE_NAME
from adapterbot.mole.examples import split
from adapterbot.mole.mixture import Mixture
from adapterbot.mole.preparation import Reading, best_alone, prepare
from adapterbot.mole.train import Progress, fit
from adapterbot.mole.training_state import TrainingState
from adapterbot.weights import attach, load_adapter
from adapterbot.weights.likelihood import evaluate
from adapterbot.weights.mixture_config import GateConfig
from tests.tiny_models import save_adapter, save_base

PAD = 0
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    save_base("llama", root / "base")
    for seed in range(2):
        save_adapter(root / "base", root / str(seed), seed=seed, r=4, target_modules=["q_proj"])
    return root


def mixture(place: Path, **options: Any) -> tuple[Any, Mixture]:
    model = transformers.AutoModelForCausalLM.from_pretrained(place / "base").eval()
    experts = {str(i): load_adapter(place / str(i)) for i in range(2)}
    return model, Mixture(model, experts, GateConfig(num_task_adapters=2, **options), seed=3)


def examples(count: int, seed: int = 0) -> list[Example]:
    draw = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (), generator=draw))
        return tuple(torch.randint(3, 40, (length,), generator=draw).tolist())

    return [Example(ids(3, 9), ids(1, 5)) for _ in range(count)]


def train(
    place: Path, out: Path, plan: TrainingPlan, **more: Any
) -> tuple[Mixture, list[Progress]]:
    model, made = mixture(place)
    seen: list[Progress] = []

    def note(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == more.get("stop"):
            raise KeyboardInterrupt

    rows = examples(24)
    fingerprint = more.get("fingerprint", "f")
    fit(
        model,
        made,
        prepare(model, made, rows, plan, pad=PAD),
        examples(6, 9),
        plan,
        pad=PAD,
        place=out,
        fingerprint=fingerprint,
        progress=note,
    )
    return made, seen


PLAN = TrainingPlan(epochs=3, batch_size=8, lr=0.05, eval_steps=2, seed=5)


def test_a_killed_training_goes_on_bit_for_bit(place: Path, tmp_path: Path) -> None:
    whole, steps = train(place, tmp_path / "whole", PLAN)
    with pytest.raises(KeyboardInterrupt):
        train(place, tmp_path / "killed", PLAN, stop=5)
    resumed, rest = train(place, tmp_path / "killed", PLAN)
    assert [p.step for p in rest] == [5, 6, 7, 8, 9], "on from the last checkpoint, at step 4"
    assert rest == steps[4:]
    assert torch.equal(whole.gate.weight, resumed.gate.weight)


def test_another_runs_checkpoint_is_refused(place: Path, tmp_path: Path) -> None:
    train(place, tmp_path, PLAN)
    with pytest.raises(InputError, match=r"training\.safetensors.*another configuration"):
        train(place, tmp_path, PLAN, fingerprint="other")


def test_a_checkpoint_with_any_byte_of_its_head_lost_is_restored_or_refused(
    tmp_path: Path,
) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2, 8))
    optimiser = torch.optim.Adam([weight])
    weight.grad = torch.ones_like(weight)
    optimiser.step()
    TrainingState("f" * 64, weight.detach().clone(), 3, 0.5).save(tmp_path, weight, optimiser)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    head = range(8 + int.from_bytes(whole[:8], "little"))
    restored = 0
    for at in head:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with contextlib.suppress(InputError):
            TrainingState.restored(tmp_path, weight, optimiser, "f" * 64)
            restored += 1
    assert restored < len(head) / 10


def test_accumulating_gradients_only_saves_memory(place: Path, tmp_path: Path) -> None:
    base = PLAN.model_copy(update={"balance": 0.0, "epochs": 1})
    split_up = base.model_copy(update={"batch_size": 2, "gradient_accumulation_steps": 4})
    one, _ = train(place, tmp_path / "a", base)
    many, _ = train(place, tmp_path / "b", split_up)
    torch.testing.assert_close(one.gate.weight, many.gate.weight, rtol=1e-4, atol=1e-6)


def test_the_loss_is_that_of_the_answers_only(place: Path) -> None:
    model, made = mixture(place)
    rows = examples(5, 3)
    with made, torch.inference_mode():
        total = count = 0.0
        for row in rows:
            ids = torch.tensor([row.prompt + row.answer])
            logp = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            for at, token in enumerate(row.answer, start=len(row.prompt)):
                total -= float(logp[at - 1, token])
                count += 1
        assert evaluate(model, rows, 3, pad=PAD) == pytest.approx(total / count, rel=1e-5)
        assert evaluate(model, [], 3, pad=PAD) is None


def test_the_best_step_is_kept_and_the_base_is_untouched(place: Path, tmp_path: Path) -> None:
    model, made = mixture(place)
    before = {name: p.clone() for name, p in model.named_parameters()}
    seen: list[Progress] = []
    held_out = examples(6, 9)
    best = fit(
        model,
        made,
        prepare(model, made, examples(24), PLAN, pad=PAD),
        held_out,
        PLAN,
        pad=PAD,
        place=tmp_path,
        fingerprint="f",
        progress=seen.append,
    )
    assert best == min(p.validation for p in seen if p.validation is not None)
    assert evaluate(model, held_out, 8, pad=PAD) == pytest.approx(best, rel=1e-5)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_prompt_is_what_serving_renders() -> None:
    from tests.tiny_models import tokenizer

    made = tokenizer(bos=False)
    made.chat_template = TEMPLATE
    rows: list[dict[str, Any]] = [
        {"instruction": "ask", "input": "more", "output": "said"},
        {
            "messages": [
                {"role": "user", "content": "ask\nmore"},
                {"role": "assistant", "content": "said"},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "ask\nmore"},
                {"from": "gpt", "value": "said"},
            ]
        },
    ]
    found = [encode(made, messages_of(row, file="f", line=1), name="b") for row in rows]
    assert len(set(found)) == 1
    asked = made.apply_chat_template(
        [{"role": "user", "content": "ask\nmore"}], tokenize=False, add_generation_prompt=True
    )
    assert list(found[0].prompt) == made(asked, add_special_tokens=False)["input_ids"]
    assert made.decode(found[0].answer) == "<assistant>said</s>"


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"text": "only text"},
        {"messages": [{"role": "user", "content": "no answer"}]},
        {"messages": "text"},
        {"conversations": [{"from": "martian", "value": "x"}, {"from": "gpt", "value": "y"}]},
        {"instruction": 3, "output": None},
    ],
)
def test_rows_without_an_answer_name_their_line(row: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl: line 7: holds no question"):
        messages_of(row, file="rows.jsonl", line=7)


@pytest.mark.parametrize(("guide", "batches"), [(0.0, 3), (1.0, 9)])
def test_what_is_read_before_the_first_step_is_told_batch_by_batch(
    place: Path, guide: float, batches: int
) -> None:
    """On a large base it takes longer than many steps do: each row under each of two experts."""
    model, made = mixture(place)
    told: list[tuple[int, int]] = []
    plan = PLAN.model_copy(update={"guide": guide})
    prepare(model, made, examples(24), plan, pad=PAD, progress=lambda *at: told.append(at))
    assert told == [(n, batches) for n in range(1, batches + 1)]


def test_a_split_is_a_partition() -> None:
    rows = examples(20)
    kept, held = split(rows, 0.25, seed=1)
    assert len(held) == 5
    assert sorted(map(str, kept + held)) == sorted(map(str, rows))
    assert split(rows, 0.25, seed=1) == (kept, held)


def test_a_prompt_that_is_trained_on_is_not_held_out() -> None:
    """Attack: rows that occur several times. Their loss is that of what was learnt by heart."""
    rows = [Example((at // 4,), (at % 2,)) for at in range(40)]
    rows += [Example((at,), (0,)) for at in range(100, 160)]
    rows += [Example((7, 7), (at,)) for at in range(60)]
    for seed in range(20):
        kept, held = split(rows, 0.2, seed=seed)
        assert len(held) == 32
        assert not {row.prompt for row in kept} & {row.prompt for row in held}
    assert split(rows[-60:], 0.2, seed=0) == (rows[-60:], [])


def test_without_held_out_rows_the_last_gate_is_kept(place: Path, tmp_path: Path) -> None:
    """Each step's loss is of rows of its own: the least is that of the easiest, and the first step
    that met them would be kept."""
    model, made = mixture(place)
    seen: list[Progress] = []
    plan = PLAN.model_copy(update={"batch_size": 1, "eval_steps": 1, "epochs": 1})
    loss = fit(
        model,
        made,
        prepare(model, made, examples(12), plan, pad=PAD),
        [],
        plan,
        pad=PAD,
        place=tmp_path,
        fingerprint="f",
        progress=seen.append,
    )
    assert min(seen, key=lambda one: one.loss).step < len(seen) == 12
    assert loss == seen[-1].loss
    last = load_file(tmp_path / STATE_NAME)
    assert torch.equal(last["best.weight"], last["gate.weight"])


def test_each_rows_best_expert_is_the_one_under_which_it_is_likeliest(place: Path) -> None:
    model, made = mixture(place)
    rows = examples(12)
    found = best_alone(Reading(model, made, rows, 5, PAD))
    made.detach()
    losses = []
    for expert in range(2):
        with attach(model, {"it": load_adapter(place / str(expert))}) as attachment:
            attachment.select("it")
            losses.append([evaluate(model, [row], 1, pad=PAD) for row in rows])
    assert found == [int(one > other) for one, other in zip(*losses, strict=True)]
    assert len(set(found)) == 2, "each is best at something"


def test_a_guided_gate_sends_more_of_a_row_to_its_best_expert(place: Path, tmp_path: Path) -> None:
    rows = examples(24)
    prompts, answers = [], []
    for guide in (0.0, 5.0):
        plan = TrainingPlan(epochs=16, lr=0.05, batch_size=8, balance=0.0, guide=guide)
        made, _ = train(place, tmp_path / str(guide), plan)
        best = best_alone(Reading(made._model, made, rows, 8, PAD))
        read, written = [], []
        for row, expert in zip(rows, best, strict=True):
            weights = made.route(torch.tensor([row.prompt + row.answer]))[:, 0, :, expert].mean(0)
            read += weights[: len(row.prompt) - 1].tolist()
            written += weights[len(row.prompt) - 1 : -1].tolist()
        prompts.append(sum(read) / len(read))
        answers.append(sum(written) / len(written))
    assert answers[1] > answers[0] + 0.05
    assert prompts[1] > prompts[0] + 0.01
