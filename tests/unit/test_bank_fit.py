"""Fitting many users at once: each as if alone, each with its own end, and on after a kill."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapterbot.bank import attach_bank, shared
from adapterbot.bank.fit import Fit, Fitter, load_state, run, save_state, split
from adapterbot.bank.manifest import Manifest, SoupLayout
from adapterbot.bank.plan import Plan
from adapterbot.bank.store import BankStore
from adapterbot.bank.writer import create
from adapterbot.commands.bank_fit import fit
from adapterbot.commands.serve import ServeOptions, build
from adapterbot.conversations import Example
from adapterbot.errors import InputError
from tests.bank_worlds import load, vera_bank

PLAN = Plan(steps=12, rate=0.05, batch=2, every=4, patience=2, users=3)


@pytest.fixture
def bank(base: Path, tmp_path: Path) -> BankStore:
    vera_bank(base, tmp_path / "bank", 1).close()
    return BankStore(tmp_path / "bank")


def examples(user: int, count: int = 6) -> list[Example]:
    """Every user wants its own letter after anything."""
    return [Example((3 + n, 5, 7 + n % 3), (60 + user, 61 + user)) for n in range(count)]


def fitted(
    model: Any, bank: BankStore, data: dict[str, list[Example]], plan: Plan, state: Path
) -> dict[str, Fit]:
    tensors = shared.load(bank.path, bank.manifest)
    with Fitter(model, bank.manifest.layout, tensors, plan, 0) as fitter:
        return {one.user: one for ended in run(fitter, data, plan, state, "k") for one in ended}


def test_a_user_becomes_what_it_would_become_alone(
    base: Path, bank: BankStore, tmp_path: Path
) -> None:
    model = load(base)
    # Of different sizes and more than fit at once, so that users join and leave in between.
    data = {f"u{n}": examples(n, 2 + n) for n in range(5)}
    together = fitted(model, bank, data, PLAN, tmp_path / "s")
    assert set(together) == set(data)
    for user in ("u0", "u3", "u4"):
        (alone,) = fitted(model, bank, {user: data[user]}, PLAN, tmp_path / "s").values()
        torch.testing.assert_close(together[user].best, alone.best, rtol=2e-3, atol=2e-3)
        assert together[user].best_step == alone.best_step
    assert not any(module._forward_hooks for module in model.modules())


def test_fitting_lowers_the_held_out_loss_and_only_ones_own(
    base: Path, bank: BankStore, tmp_path: Path
) -> None:
    model = load(base)
    plan = Plan(steps=40, rate=0.05, every=10, patience=9, users=3)
    data = {f"u{n}": examples(n) for n in range(3)}
    done = fitted(model, bank, data, plan, tmp_path / "s")
    for one in done.values():
        assert one.best_loss < 0.7 * one.base_loss
    assert not torch.allclose(done["u0"].best, done["u1"].best)


def test_a_stopped_run_goes_on_to_the_same_end(base: Path, bank: BankStore, tmp_path: Path) -> None:
    model = load(base)
    data = {f"u{n}": examples(n) for n in range(4)}
    whole = fitted(model, bank, data, PLAN, tmp_path / "whole")
    tensors = shared.load(bank.path, bank.manifest)
    state = tmp_path / "state"
    kept: dict[str, Fit] = {}
    with Fitter(model, bank.manifest.layout, tensors, PLAN, 0) as fitter:
        for steps, ended in enumerate(run(fitter, data, PLAN, state, "k")):
            kept |= {one.user: one for one in ended}
            if steps == 9:  # the last state was saved a step or more ago
                break
    assert load_state(state, "another key") == {}
    left = {user: rows for user, rows in data.items() if user not in kept}
    kept |= fitted(model, bank, left, PLAN, state)
    assert set(kept) == set(whole)
    for user, one in whole.items():
        torch.testing.assert_close(kept[user].best, one.best, rtol=2e-3, atol=2e-3)
        assert kept[user].best_step == one.best_step
    assert not state.exists()


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_a_question_that_is_learnt_is_not_held_out_in_another_row(share: float) -> None:
    rows = [*examples(0), *examples(1), *examples(0)]
    learnt, held_out = split(rows, replace(PLAN, held_out=share), "u")
    assert len(learnt) + len(held_out) == len(rows)
    assert len({e.prompt for e in held_out}) == max(1, min(5, round(share * 6)))
    assert not {e.prompt for e in learnt} & {e.prompt for e in held_out}
    assert split(rows[:1] * 3, PLAN, "u") == (rows[:1] * 3, rows[:1] * 3)


@pytest.mark.parametrize("steps", [3, 14])
def test_the_last_steps_are_judged_though_they_are_fewer_than_between_two_looks(
    steps: int, base: Path, bank: BankStore, tmp_path: Path
) -> None:
    plan = Plan(steps=steps, rate=0.02, every=10)
    (one,) = fitted(load(base), bank, {"u": examples(0)}, plan, tmp_path / "s").values()
    assert one.best_step == steps
    assert one.best_loss < one.base_loss
    torch.testing.assert_close(one.best, one.row)


def test_a_user_who_gains_nothing_ends_early_with_the_base(
    base: Path, bank: BankStore, tmp_path: Path
) -> None:
    plan = Plan(steps=100, rate=5.0, every=2, patience=2)  # such steps only make it worse
    (one,) = fitted(load(base), bank, {"u": examples(0)}, plan, tmp_path / "s").values()
    assert one.step < 20
    assert one.best_loss <= one.base_loss


def test_state_is_kept_to_the_bit(tmp_path: Path) -> None:
    rows = [torch.randn(4, 5) for _ in range(3)]
    fits = [Fit(f"u{n}", r[0], r[1], r[2], r[3], n, 1.5) for n, r in enumerate(rows)]
    save_state(tmp_path / "s", "k", fits)
    back = load_state(tmp_path / "s", "k")
    for one in fits:
        assert torch.equal(back[one.user].second, one.second)
        assert (back[one.user].step, back[one.user].base_loss) == (one.step, 1.5)


def test_state_with_any_byte_of_its_head_lost_is_gone_on_with_or_refused(tmp_path: Path) -> None:
    row = torch.randn(5)
    save_state(tmp_path / "s", "k", [Fit("u", row, row, row, row, 2, 1.5)])
    whole = (tmp_path / "s").read_bytes()
    head = range(8 + int.from_bytes(whole[:8], "little"))
    taken = 0
    for at in head:
        (tmp_path / "s").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with contextlib.suppress(InputError):
            load_state(tmp_path / "s", "k")
            taken += 1
    assert taken < len(head) / 4


def test_soups_kind_is_fitted_too(base: Path, tmp_path: Path) -> None:
    model = load(base)
    layout = SoupLayout(size=model.config.hidden_size)
    plan = Plan(steps=30, rate=0.2, every=10, patience=9)
    with Fitter(model, layout, shared.draw(layout, 0), plan, 0) as fitter:
        data = {"u": examples(1)}
        (one,) = (o for e in run(fitter, data, plan, tmp_path / "s", "k") for o in e)
    assert one.best_loss < one.base_loss


def test_the_command_fills_the_bank_and_skips_who_is_done(
    base: Path, bank: BankStore, tmp_path: Path
) -> None:
    rows = [
        {"user": f"ann{n % 2}", "prompt": f"q{n}", "expected": "yes" if n % 2 else "no"}
        for n in range(8)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    first = fit(bank.path, file, plan=PLAN)
    assert {one.user for one in first.fitted} == {"ann0", "ann1"}
    entry = bank.entry("ann1")
    assert entry.scores["held_out_loss"] <= entry.scores["base_held_out_loss"]
    again = fit(bank.path, file, plan=PLAN)
    assert (again.fitted, again.skipped) == ((), 2)
    file.write_text(json.dumps({"user": "ann0", "prompt": "other", "expected": "x"}))
    with pytest.raises(InputError, match="--replace"):
        fit(bank.path, file, plan=PLAN)
    assert len(fit(bank.path, file, plan=PLAN, replace=True).fitted) == 1
    with attach_bank(load(base), bank) as attached:
        attached.select(["ann0", "ann1", "u0", None])


def test_users_are_fitted_and_served_over_the_banks_own_base(tmp_path: Path) -> None:
    layout = SoupLayout(size=4)
    kept = shared.generated(layout, 0)
    made = Manifest(name="b", base_model="org/one", layout=layout, shared=kept)
    create(tmp_path / "b", made).close()
    (tmp_path / "rows.jsonl").write_text('{"user": "a", "prompt": "a", "expected": "b"}')
    for act in (
        lambda: fit(tmp_path / "b", tmp_path / "rows.jsonl", plan=PLAN, base="org/two"),
        lambda: build(ServeOptions(base="org/two", bank=tmp_path / "b")),
    ):
        with pytest.raises(InputError, match="--base: is 'org/two', and the bank is of 'org/one'"):
            act()


def test_that_nothing_is_held_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"user": "a", "prompt": "a", "expected": "b"}')
    with pytest.raises(InputError, match="--held-out: cannot be 0: the rows that are held out"):
        fit(tmp_path / "b", tmp_path / "rows.jsonl", plan=replace(PLAN, held_out=0.0))


@pytest.mark.parametrize(
    "text", ["", "x", "{}", '{"user": "a"}', '{"user": 1, "prompt": "a", "expected": "b"}']
)
def test_rows_that_teach_nothing_are_refused(bank: BankStore, tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(InputError):
        fit(bank.path, tmp_path / "rows.jsonl", plan=PLAN)
