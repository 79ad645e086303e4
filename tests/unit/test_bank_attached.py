"""A bank under a model: who is live, the slab, changes meanwhile, and other kinds of banks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapterbot.bank import VectorBank, environment
from adapterbot.bank.attached import attach_bank
from adapterbot.bank.codec import plain
from adapterbot.bank.portable import read_portable, write_portable
from adapterbot.bank.store import BankStore
from adapterbot.bank.writer import BankWriter, create
from adapterbot.errors import AdapterbotError, InputError, OurFailure
from tests.bank_worlds import load, vera_bank

IDS = torch.tensor([[3, 4, 5, 6]])


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    return load(base)


@pytest.fixture
def bank(base: Path, tmp_path: Path) -> Path:
    vera_bank(base, tmp_path / "bank", 12).close()
    return tmp_path / "bank"


@torch.no_grad()
def logits(model: Any, rows: int = 1) -> torch.Tensor:
    return model(IDS.expand(rows, -1)).logits[:, -1]


def alone(model: Any, attached: Any, user: str | None) -> torch.Tensor:
    with attached.tenants([user]):
        return logits(model)[0]


def test_nobody_is_the_base_bit_for_bit(model: Any, bank: Path) -> None:
    before = logits(model)
    with attach_bank(model, bank) as attached:
        assert torch.equal(logits(model), before)
        with attached.tenants([None]):
            assert torch.equal(logits(model), before)
        attached.select(["u1"])
        assert not torch.allclose(logits(model), before)
        attached.select(None)
        # A row of nobody beside somebody: its update is exactly zero.
        with attached.tenants(["u1", None]):
            torch.testing.assert_close(logits(model, 2)[1], before[0])
    assert torch.equal(logits(model), before)
    assert "generate" not in model.__dict__
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_of_another_name_on_the_hub_is_refused_and_one_without_a_name_is_not(
    model: Any, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BankStore(bank) as store:
        manifest = store.manifest.model_copy(update={"base_model": "org/one"})
    with create(tmp_path / "named", manifest):
        pass
    for name in ("org/one", "Org/One", "gpt2", "", str(bank), "/not/here", "unknown"):
        monkeypatch.setattr(model.config, "_name_or_path", name)
        attach_bank(model, tmp_path / "named").detach()
    monkeypatch.setattr(model.config, "_name_or_path", "org/two")
    attach_bank(model, bank).detach()  # of a directory, which says no name
    with pytest.raises(InputError, match="is of 'org/one', and the model is 'org/two'"):
        attach_bank(model, tmp_path / "named")
    assert not any(module._forward_hooks for module in model.modules())


def test_the_slab_makes_room_and_never_mixes_users_up(model: Any, bank: Path) -> None:
    with attach_bank(model, bank, slots=3) as small, BankStore(bank) as store:
        users = list(store.users())
        wanted = {user: alone(model, small, user) for user in users}
        order = np.random.default_rng(0)
        for _ in range(25):
            batch = [None if u > 11 else f"u{u}" for u in order.integers(0, 13, 3)]
            if order.random() < 0.5:
                small.prefetch([user for user in batch if user])
                small.prefetch(["nobody"])  # who does not exist is nobody's problem yet
            with small.tenants(batch):
                got = logits(model, 3)
            for row, user in zip(got, batch, strict=True):
                if user:
                    torch.testing.assert_close(row, wanted[user], rtol=1e-5, atol=1e-5)
        with pytest.raises(InputError, match="slots"):
            small.select(users[:4])
        with pytest.raises(InputError, match="nobody"):
            small.select(["nobody"])
        assert torch.equal(alone(model, small, None), logits(model)[0]), "and nobody is live"


def test_changes_show_with_the_next_selection(model: Any, bank: Path) -> None:
    with attach_bank(model, bank) as attached, BankWriter(bank) as writer:
        first, second = alone(model, attached, "u1"), alone(model, attached, "u2")
        row = writer.gather(["u2"])
        writer.add(["u1"], row, replace=True)
        writer.add(["new"], row)
        assert torch.equal(alone(model, attached, "u1"), second)
        assert torch.equal(alone(model, attached, "new"), second)
        assert not torch.equal(first, second)
        writer.compact()
        assert torch.equal(alone(model, attached, "u2"), second)
        writer.remove(["u2"])
        with pytest.raises(InputError, match="u2"):
            attached.select(["u2"])


def test_a_prefetch_that_a_change_overtook_is_not_used(model: Any, bank: Path) -> None:
    with attach_bank(model, bank) as attached, BankWriter(bank) as writer:
        other = alone(model, attached, "u4")
        attached.prefetch(["u3"])
        time.sleep(0.05)
        writer.add(["u3"], writer.gather(["u4"]), replace=True)
        assert torch.equal(alone(model, attached, "u3"), other)


def test_prefetched_rows_that_nobody_came_for_give_way(model: Any, bank: Path) -> None:
    with attach_bank(model, bank, slots=2) as attached:
        slab = attached._slab
        attached.prefetch(["u1", "u2", "u3"])
        for coming in list(slab._coming.values()):
            coming.result(timeout=60)
        attached.prefetch(["u8", "u9"])
        assert {"u8", "u9"} < set(slab._coming)
        assert len(slab._coming) == 3


def test_users_are_exchanged_inside_and_outside_of_inference_mode(model: Any, bank: Path) -> None:
    with attach_bank(model, bank) as attached:
        want = alone(model, attached, "u2")
    with attach_bank(model, bank) as attached:
        with torch.inference_mode(), attached.tenants(["u1"]):
            model(IDS)
        assert torch.equal(alone(model, attached, "u2"), want)


def test_rows_and_users_must_be_as_many(model: Any, bank: Path) -> None:
    with (
        attach_bank(model, bank) as attached,
        attached.tenants(["u1", "u2"]),
        pytest.raises(AdapterbotError),
    ):
        logits(model, 3)


def test_a_second_bank_is_refused_and_says_how_to_lose_the_first(model: Any, bank: Path) -> None:
    """Detached in the order in which they came, the first took the second's `generate` with it."""
    attach_bank(model, bank)
    with pytest.raises(InputError, match="has a bank attached already") as refused:
        attach_bank(model, bank)
    assert refused.value.fix is not None
    exec(refused.value.fix.partition(": ")[2], {"model": model})
    attach_bank(model, bank).detach()
    assert "generate" not in model.__dict__


def test_a_bank_without_a_slot_is_refused(model: Any, bank: Path) -> None:
    with pytest.raises(InputError, match="slots: is 0"):
        attach_bank(model, bank, slots=0)


def test_one_name_is_not_a_list_of_letters(model: Any, bank: Path) -> None:
    with attach_bank(model, bank) as attached:
        with pytest.raises(TypeError, match=r"\['u1'\]"):
            model.generate(input_ids=IDS, tenants="u1")
        with pytest.raises(TypeError, match=r"\['u1'\]"):
            attached.select("u1")


def test_beams_belong_to_their_row(model: Any, bank: Path) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 4,
        "num_beams": 2,
        "do_sample": False,
        "pad_token_id": 0,
    }
    with attach_bank(model, bank):
        both = model.generate(input_ids=IDS.expand(2, -1), tenants=["u5", None], **options)
        one = model.generate(input_ids=IDS, tenants=["u5"], **options)
        none = model.generate(input_ids=IDS, **options)
    assert both[0].tolist()[: one.shape[1]] == one[0].tolist()
    assert both[1].tolist()[: none.shape[1]] == none[0].tolist()


def test_a_compiled_model_takes_other_users_without_compiling_anew(base: Path, bank: Path) -> None:
    own = load(base)
    with attach_bank(own, bank) as attached:
        attached.select(["u1", "u2"])
        wanted = {}
        for users in (("u1", "u2"), ("u7", "u3")):
            attached.select(users)
            wanted[users] = logits(own, 2)
        compiled = torch.compile(own, backend="eager", fullgraph=True)
        counters = torch._dynamo.utils.counters
        seen = []
        for users, expected in wanted.items():
            attached.select(users)
            with torch.no_grad():
                got = compiled(IDS.expand(2, -1)).logits[:, -1]
            torch.testing.assert_close(got, expected)
            seen.append(counters["stats"]["unique_graphs"])
        assert seen[0] == seen[1]
    torch._dynamo.reset()


# ---------------------------------------------------------------- Soup's bank, and exported files


def test_soups_bank_adds_what_soup_adds(model: Any) -> None:
    """h + v ⊙ (h Pᵀ) on the last decoder layer: `LoadedVectorBank.install_serve_hook`."""
    width = model.config.hidden_size
    vectors = np.random.default_rng(0).normal(size=(2, width)) * 2
    given = VectorBank(
        name="b",
        base_model="x",
        entries=dict(zip("ab", vectors.tolist(), strict=True)),
        projection_seed=9,
    )
    projection = torch.randn(width, width, generator=torch.Generator().manual_seed(9)) * width**-0.5

    def soup(user: int) -> torch.Tensor:
        def hook(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
            vector = torch.tensor(vectors[user], dtype=torch.float32)
            return output + vector * (output @ projection.transpose(0, 1))

        handle = model.model.layers[-1].register_forward_hook(hook)
        try:
            return logits(model)[0]
        finally:
            handle.remove()

    wanted = [soup(0), logits(model)[0], soup(1)]
    with attach_bank(model, given) as attached, attached.tenants(["a", None, "b"]):
        got = logits(model, 3)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_a_bank_opened_by_its_path_is_closed_with_it(model: Any, bank: Path) -> None:
    before = set(environment._open)
    with attach_bank(model, bank) as attached:
        attached.prefetch(["u1", "u2"])
        assert set(environment._open) > before
    assert set(environment._open) == before
    with BankStore(bank) as store:
        with attach_bank(model, store):
            pass
        assert len(store) == 12, "a store that was given is its owner's to close"


def test_a_bank_that_does_not_fit_leaves_nothing_behind(model: Any, bank: Path) -> None:
    before, files = logits(model), set(environment._open)
    with pytest.raises(OurFailure, match="fewer slots"):  # no device holds as many rows
        attach_bank(model, bank, slots=2**50)
    assert set(environment._open) == files
    assert torch.equal(logits(model), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with attach_bank(model, bank) as attached:
        assert not torch.equal(alone(model, attached, "u1"), before[0])


def test_slots_that_the_memory_does_not_hold_are_named(
    model: Any, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("adapterbot.bank.attached.Slab", full)
    with pytest.raises(OurFailure, match=r"99 users' rows of .* do not fit .* fewer slots"):
        attach_bank(model, bank, slots=99)


def test_soups_vectors_must_be_as_wide_as_the_model(model: Any) -> None:
    with pytest.raises(InputError, match="wide"):
        attach_bank(model, VectorBank(name="b", base_model="x", entries={"u": (0.0,) * 128}))


def test_an_exported_file_answers_as_its_bank(model: Any, bank: Path, tmp_path: Path) -> None:
    with BankStore(bank) as store:
        assert write_portable(store, tmp_path / "a.safetensors", ["u3", "u1"]) == 2
        write_portable(store, tmp_path / "b.safetensors", ["u1", "u3"])
        assert (tmp_path / "a.safetensors").read_bytes() == (
            tmp_path / "b.safetensors"
        ).read_bytes()
    with attach_bank(model, bank) as attached:
        wanted = alone(model, attached, "u3")
    portable = read_portable(tmp_path / "a.safetensors")
    assert portable.users == ("u1", "u3")
    with attach_bank(model, portable) as attached:
        assert torch.equal(alone(model, attached, "u3"), wanted)
        with pytest.raises(InputError, match="u2"):
            attached.select(["u2"])


def test_a_strangers_file_is_checked_before_it_is_used(bank: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load as load_numpy
    from safetensors.numpy import save

    from adapterbot.bank.manifest import dump_manifest

    file = tmp_path / "x.safetensors"
    with BankStore(bank) as store:
        write_portable(store, file, ["u1", "u2"])
        manifest = dump_manifest(store.manifest)
    good = load_numpy(file.read_bytes())
    for changes in (
        {"rows": good["rows"][:1]},  # one row for two users
        {"rows": good["rows"][:, :-4]},  # short rows
        {"users_ends": np.array([2, 99], np.int64)},  # beyond the text
        {"users_ends": np.array([4, 2], np.int64)},  # backwards
        {"users": np.frombuffer(b"u1u1", np.uint8)},  # one name twice: whose row is it?
        {"users": np.frombuffer(b"\xff\xffu2", np.uint8)},  # no text
        {"users": np.frombuffer(b"u1u2u3", np.uint8)},  # text that nobody names
        {"rows": good["rows"].view(np.float32)},
    ):
        file.write_bytes(save({**good, **changes}, metadata={"adapterbot.bank": manifest}))
        with pytest.raises(InputError):
            read_portable(file)
    for text in ("{}", "x", manifest.replace('"vera"', '"other"')):
        file.write_bytes(save(good, metadata={"adapterbot.bank": text}))
        with pytest.raises(InputError):
            read_portable(file)


def test_shared_tensors_are_proved_by_their_digest(
    model: Any, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose generator draws other numbers must not answer with them."""
    from adapterbot.bank import shared

    real = shared._kaiming
    monkeypatch.setattr(shared, "_kaiming", lambda *given: real(*given) + 1e-7)
    with pytest.raises(InputError, match="other numbers"):
        attach_bank(model, bank)


def test_int8_rows_answer_nearly_the_same(
    base: Path, model: Any, bank: Path, tmp_path: Path
) -> None:
    from adapterbot.bank.writer import create

    with BankStore(bank) as store:
        rows = store.gather(["u1"])
        manifest = store.manifest.model_copy(update={"dtype": "int8"})
    with create(tmp_path / "small", manifest) as small:
        small.add(["u1"], plain(rows.values))
    with attach_bank(model, bank) as attached:
        whole = alone(model, attached, "u1")
    with attach_bank(model, tmp_path / "small") as attached:
        rounded = alone(model, attached, "u1")
    assert 0 < (whole - rounded).abs().max() < 0.05 * whole.abs().max()
