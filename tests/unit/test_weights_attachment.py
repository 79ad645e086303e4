"""Adapters under a base: W + ΔW, exactly PEFT's, and nothing left behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from adapterbot.errors import InputError, OurFailure
from adapterbot.weights import Attachment, attach, load_adapter, read_adapter_dir
from adapterbot.weights.via_peft import attached_by_peft
from tests.adapter_kinds import KINDS, QV, save_bases
from tests.tiny_models import VOCABULARY, save_adapter, save_peft

# PEFT's and transformers' own advice to people who train.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LEFT_TO_PEFT: Mapping[str, Callable[[], Any]] = {
    "dora": lambda: peft.LoraConfig(r=4, target_modules=QV, use_dora=True),
    "lora_bias": lambda: peft.LoraConfig(r=4, target_modules=QV, lora_bias=True),
    "tokens": lambda: peft.LoraConfig(r=4, target_modules=QV, trainable_token_indices=[3, 5]),
    "parameters": lambda: peft.LoraConfig(
        r=4, target_modules=[], target_parameters=["mlp.gate_proj.weight"]
    ),
    "tying": lambda: peft.LoraConfig(
        r=4, target_modules=["embed_tokens"], ensure_weight_tying=True
    ),
    "dora and whole modules": lambda: peft.LoraConfig(
        r=4, target_modules=QV, use_dora=True, modules_to_save=["lm_head"]
    ),
    "ia3": lambda: peft.IA3Config(
        target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=QV),
    "lokr": lambda: peft.LoKrConfig(r=4, target_modules=QV),
    "oft": lambda: peft.OFTConfig(oft_block_size=8, target_modules=QV),
    "boft": lambda: peft.BOFTConfig(boft_block_size=4, target_modules=QV),
    "vera": lambda: peft.VeraConfig(r=4, target_modules=["q_proj"]),
    "vblora": lambda: peft.VBLoRAConfig(
        r=2, num_vectors=8, vector_length=8, topk=2, target_modules=QV
    ),
    "hra": lambda: peft.HRAConfig(r=4, target_modules=QV),
    "ln_tuning": lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "miss": lambda: peft.MissConfig(r=4, target_modules=QV),
    "adalora": lambda: peft.AdaLoraConfig(target_modules=QV, total_step=10, init_r=4),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_bases(tmp_path_factory.mktemp("bases"))


def load(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base).eval()


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


IDS = torch.randint(0, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(0))


def logits(model: Any) -> Tensor:
    return model(IDS).logits


def objects(model: Any) -> dict[str, int]:
    found = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    found |= {f"module {name}": id(module) for name, module in model.named_modules()}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_outputs_and_delta_weights_as_peft(
    kind: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    name, options = KINDS[kind]
    directory = save_adapter(bases[name], tmp_path / "a", **{"r": 4, **options})
    reference = peft.PeftModel.from_pretrained(load(bases[name]), directory).eval()
    model = load(bases[name])
    bare, before = logits(model), objects(model)
    adapter = load_adapter(directory)

    with attach(model, {"a": adapter}) as attachment:
        assert torch.equal(logits(model), bare)
        attachment.select("a")
        found = logits(model)
        torch.testing.assert_close(found, logits(reference), atol=1e-4, rtol=1e-5)
        assert not torch.allclose(found, bare, atol=1e-2)
        attachment.select(None)
        assert torch.equal(logits(model), bare)
        attachment.select("a")
    assert torch.equal(logits(model), bare)
    assert objects(model) == before
    assert not any(module._forward_hooks for module in model.modules())

    layers = dict(reference.base_model.model.named_modules())
    for module in adapter.updates:
        theirs = layers[module].get_delta_weight("default")
        ours = adapter.delta_weight(module)
        if isinstance(layers[module], peft.tuners.lora.Embedding) or name == "gpt2":
            theirs = theirs.T
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", LEFT_TO_PEFT)
def test_what_goes_through_peft_is_put_and_taken_back(
    kind: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    config = LEFT_TO_PEFT[kind]()
    config.task_type = "CAUSAL_LM"
    base = bases["tied" if kind == "tying" else "llama"]
    directory = save_peft(peft.get_peft_model(load(base), config), tmp_path / "a")
    reference = peft.PeftModel.from_pretrained(load(base), directory).eval()
    model = load(base)
    bare, before = logits(model), objects(model)
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):
        with attached_by_peft(model, read_adapter_dir(directory)):
            assert torch.equal(logits(model), logits(reference))
        assert torch.equal(logits(model), bare)
        assert objects(model) == before
        assert all(torch.equal(tensor, values[n]) for n, tensor in model.state_dict().items())
    with pytest.raises(InputError, match="is not plain LoRA"):
        load_adapter(directory)


def test_dora_with_biases_restores_the_biases(bases: dict[str, Path], tmp_path: Path) -> None:
    directory = save_adapter(
        bases["gpt2"], tmp_path / "a", r=4, target_modules=["c_attn"], use_dora=True, bias="all"
    )
    model = load(bases["gpt2"])
    bare = logits(model)
    with attached_by_peft(model, read_adapter_dir(directory)):
        assert not torch.allclose(logits(model), bare)
    assert torch.equal(logits(model), bare)


def test_a_tensor_that_names_the_base_by_its_place_under_peft_leaves_it_as_it_was(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """Attack: weights in the place where PEFT keeps the base's own, so that the baseline, and every
    other adapter of the job, is judged with them too."""
    directory = save_adapter(
        bases["llama"],
        tmp_path / "a",
        r=4,
        target_modules=QV,
        trainable_token_indices=[3],
    )
    model = load(bases["llama"])
    bare = logits(model)
    file = directory / "adapter_model.safetensors"
    wrong = np.zeros(model.model.embed_tokens.weight.shape, np.float32)
    name = "base_model.model.model.embed_tokens.token_adapter.base_layer.weight"
    save_file({**load_file(file), name: wrong}, file)
    with attached_by_peft(model, read_adapter_dir(directory)):
        assert not torch.equal(logits(model), bare)
    assert torch.equal(logits(model), bare)


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_a_tensor_that_peft_would_drop_is_refused(
    bias: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    """Attack: a bias under a name that the gate understands and PEFT does not, so that what is
    judged is not what people load."""
    directory = save_adapter(bases["gpt2"], tmp_path / "a", target_modules=["c_attn"], bias=bias)
    file = directory / "adapter_model.safetensors"
    sound = load_file(file)
    modules = {name.removesuffix(".lora_A.weight") for name in sound if ".lora_A." in name}
    wrapped = next(f"{module}.base_layer.bias" for module in sorted(modules))
    moved = {wrapped: wrapped.replace(".base_layer.", ".")}
    if bias == "all":
        plain = next(name for name in sound if name.endswith("ln_f.bias"))
        moved[plain] = plain.replace(".bias", ".base_layer.bias")
    for name, elsewhere in moved.items():
        rest = {key: value for key, value in sound.items() if key != name}
        outputs = []
        for content in (rest, {**rest, elsewhere: sound[name]}):
            save_file(content, file)
            model = peft.PeftModel.from_pretrained(load(bases["gpt2"]), directory)
            outputs.append(logits(model))
        assert torch.equal(*outputs)
        with pytest.raises(InputError, match=r"would be dropped by PEFT, which looks for"):
            load_adapter(directory)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("dora", "modules_to_save", ["lm_head", 5]),
        ("loha", "modules_to_save", 5),
        ("loha", "rank_pattern", 1.5),
        ("adalora", "alpha_pattern", True),
        ("vera", "r", 0),
        ("vblora", "vector_length", 0),
    ],
)
def test_an_option_that_peft_cannot_use_is_bad_input(
    kind: str, option: str, value: object, bases: dict[str, Path], tmp_path: Path
) -> None:
    config = LEFT_TO_PEFT[kind]()
    config.task_type = "CAUSAL_LM"
    directory = save_peft(peft.get_peft_model(load(bases["llama"]), config), tmp_path / "a")
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), option: value}))
    model = load(bases["llama"])
    before = logits(model)
    with pytest.raises(InputError), attached_by_peft(model, read_adapter_dir(directory)):
        pass
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target_modules": r"((\w|\.)+)+!"}, "No `target_modules`"),
        ({"exclude_modules": r"((\w|\.)+)+!"}, None),
        ({"rank_pattern": {r"((\w|\.)+)+!": 4}}, "rank_pattern: holds .* no regular expression"),
        ({"modules_to_save": [r"((\w|\.)+)+!"]}, "modules_to_save: holds"),
        ({"layers_pattern": r"((\w|\.)+)+!"}, "layers_pattern: holds"),
    ],
)
def test_a_pattern_does_not_hang_peft(
    changes: dict[str, Any], says: str | None, bases: dict[str, Path], tmp_path: Path
) -> None:
    """Attack: an expression with which Python's `re` is at it for ages on one module's name."""
    directory = save_adapter(bases["llama"], tmp_path / "a", r=4, target_modules=QV, use_dora=True)
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    expected = pytest.raises(InputError, match=says) if says else nullcontext()
    with expected, attached_by_peft(load(bases["llama"]), read_adapter_dir(directory)):
        pass


def test_peft_reads_an_adapter_onto_no_gpu_of_its_own_choice(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save_adapter(bases["llama"], tmp_path / "a", use_dora=True)
    monkeypatch.setattr("peft.peft_model.infer_device", lambda: "meta")
    with attached_by_peft(load(bases["llama"]), read_adapter_dir(directory)):
        pass


def test_peft_adapts_the_modules_that_a_pattern_names(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    directory = save_adapter(
        bases["llama"], tmp_path / "a", r=4, target_modules=r".*\.(q|v)_proj", use_dora=True
    )
    reference = peft.PeftModel.from_pretrained(load(bases["llama"]), directory).eval()
    model = load(bases["llama"])
    with attached_by_peft(model, read_adapter_dir(directory)):
        assert torch.equal(logits(model), logits(reference))


def test_weights_missing_for_peft_are_named(bases: dict[str, Path], tmp_path: Path) -> None:
    directory = save_adapter(bases["llama"], tmp_path / "a", r=4, target_modules=QV, use_dora=True)
    tensors = load_file(directory / "adapter_model.safetensors")
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, directory / "adapter_model.safetensors")
    model = load(bases["llama"])
    bare = logits(model)
    with (
        pytest.raises(InputError, match=r"holds no weights for .*lora_B"),
        attached_by_peft(model, read_adapter_dir(directory)),
    ):
        pass
    assert torch.equal(logits(model), bare)


def test_an_option_that_peft_does_not_know_is_refused(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    model = load(bases["llama"])
    config = peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    directory = save_peft(peft.get_peft_model(load(bases["llama"]), config), tmp_path / "a")
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tomorrow": 1}))
    with (
        pytest.raises(InputError, match=r"tomorrow: is an option that PEFT .* does not know"),
        attached_by_peft(model, read_adapter_dir(directory)),
    ):
        pass


@pytest.fixture(scope="module")
def trio(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three adapters of different rank, scale and modules."""
    root = tmp_path_factory.mktemp("trio")
    base = bases["llama"]
    return {
        "one": save_adapter(base, root / "one", seed=1, r=4, target_modules=QV),
        "two": save_adapter(
            base, root / "two", seed=2, r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"]
        ),
        "three": save_adapter(
            base, root / "three", seed=3, r=8, use_rslora=True, target_modules="all-linear"
        ),
    }


def with_delta(base: Path, adapters: Mapping[str, Path], weights: Mapping[str, float]) -> Any:
    """The base with Σ wᵢ ΔWᵢ added to its weights."""
    model = load(base)
    for name, weight in weights.items():
        adapter = load_adapter(adapters[name])
        for module in adapter.updates:
            model.get_submodule(module).weight += weight * adapter.delta_weight(module)
    return model


def test_slots_do_not_disturb_each_other(bases: dict[str, Path], trio: dict[str, Path]) -> None:
    model = load(bases["llama"])
    alone = {}
    for name, directory in trio.items():
        with attach(model, {"x": load_adapter(directory)}) as attachment:
            attachment.select("x")
            alone[name] = logits(model)
    with attach(model, {name: load_adapter(d) for name, d in trio.items()}) as attachment:
        assert attachment.names == ("one", "two", "three")
        for name in ("three", "one", "two", "one"):
            attachment.select(name)
            assert torch.equal(logits(model), alone[name])
        with attachment.selected("two"):
            assert torch.equal(logits(model), alone["two"])
        with pytest.raises(KeyError, match=r"no slot 'four' among \['one', 'two', 'three'\]"):
            attachment.select("four")


def test_what_is_selected_last_is_live_alone(bases: dict[str, Path], trio: dict[str, Path]) -> None:
    """A cell of a notebook that was run twice put the update on twice."""
    model = load(bases["llama"])
    bare = logits(model)
    adapters = {name: load_adapter(directory) for name, directory in trio.items()}
    earlier, later = attach(model, adapters), attach(model, adapters)
    earlier.select("one")
    once = logits(model)
    later.select("one")
    assert torch.equal(logits(model), once)
    for attachment in (earlier, later, earlier):
        attachment.blend({"two": 0.5})
        blended = logits(model)
    with later.selected("one"):
        assert torch.equal(logits(model), once)
    earlier.blend({"two": 0.5})
    assert torch.equal(logits(model), blended)
    again = copy.deepcopy(model)
    later.detach()
    earlier.detach()
    assert torch.equal(logits(model), bare)
    assert torch.equal(logits(again), blended)
    assert not [name for name in vars(model) if "attachment" in name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_what_is_cut_short_leaves_nothing_behind(
    bases: dict[str, Path],
    trio: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    model = load(bases["llama"])
    placed = Attachment._placed

    def cut(self: Attachment, update: Any, site: Any) -> Any:
        if len(self._sites) == 3:
            raise error
        return placed(self, update, site)

    monkeypatch.setattr(Attachment, "_placed", cut)
    with pytest.raises(error):
        attach(model, {"one": load_adapter(trio["one"])})
    assert not any(module._forward_hooks for module in model.modules())


def test_what_peft_wraps_is_refused(bases: dict[str, Path], trio: dict[str, Path]) -> None:
    wrapped = peft.PeftModel.from_pretrained(load(bases["llama"]), trio["one"])
    with pytest.raises(InputError, match=r"wrapped by PEFT.*model\.unload\(\)"):
        attach(wrapped, {"two": load_adapter(trio["two"])})
    attach(wrapped.unload(), {"two": load_adapter(trio["two"])}).detach()


def test_a_blend_is_the_sum_of_deltas(bases: dict[str, Path], trio: dict[str, Path]) -> None:
    weights = {"one": 0.7, "two": -0.4, "three": 0.2}
    want = logits(with_delta(bases["llama"], trio, weights))
    model = load(bases["llama"])
    bare = logits(model)
    with attach(model, {name: load_adapter(d) for name, d in trio.items()}) as attachment:
        attachment.blend(weights)
        torch.testing.assert_close(logits(model), want, atol=1e-4, rtol=1e-4)
        attachment.blend({"two": 1.0})
        blended = logits(model)
        attachment.select("two")
        torch.testing.assert_close(blended, logits(model), atol=1e-4, rtol=1e-4)
        attachment.blend({})
        torch.testing.assert_close(logits(model), bare)
        with pytest.raises(KeyError):
            attachment.blend({"four": 1.0})


def test_every_row_has_its_own_adapter(bases: dict[str, Path], trio: dict[str, Path]) -> None:
    model = load(bases["llama"])
    rows = ["three", None, "one"]
    with attach(model, {name: load_adapter(d) for name, d in trio.items()}) as attachment:
        want = []
        for row, name in enumerate(rows):
            attachment.select(name)
            want.append(logits(model)[row])
        attachment.select_rows(rows)
        torch.testing.assert_close(logits(model), torch.stack(want), atol=1e-4, rtol=1e-4)
        attachment.blend([{"one": 1.0}, {}, {"one": 0.5, "two": 2.0}])
        got = logits(model)
        attachment.blend({"one": 0.5, "two": 2.0})
        torch.testing.assert_close(got[2], logits(model)[2], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got[1], want[1], atol=1e-4, rtol=1e-4)
        attachment.select_rows(["one", "two"])
        with pytest.raises(OurFailure, match="gains were set for"):
            logits(model)


def test_rows_of_embeddings_differ_too(bases: dict[str, Path], tmp_path: Path) -> None:
    directory = save_adapter(bases["gpt2"], tmp_path / "a", r=4, target_modules=["wte", "c_attn"])
    model = load(bases["gpt2"])
    bare = logits(model)
    with attach(model, {"a": load_adapter(directory)}) as attachment:
        attachment.select("a")
        want = logits(model)
        attachment.select_rows([None, "a", None])
        got = logits(model)
    torch.testing.assert_close(got[1], want[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got[0], bare[0], atol=1e-4, rtol=1e-4)


def test_swapping_twice_is_swapping_once(bases: dict[str, Path], trio: dict[str, Path]) -> None:
    model = load(bases["llama"])
    bare, before = logits(model), objects(model)
    with attach(model, {"slot": load_adapter(trio["one"])}) as attachment:
        attachment.select("slot")
        first = logits(model)
        for name in ("three", "three", "two", "one"):
            attachment.swap("slot", load_adapter(trio[name]))
            assert torch.equal(logits(model), bare), "nothing is selected after a swap"
        attachment.select("slot")
        assert torch.equal(logits(model), first)
        attachment.swap("other", load_adapter(trio["three"]))
        attachment.drop("other")
        attachment.select("slot")
        assert torch.equal(logits(model), first)
        attachment.drop("slot")
        assert attachment.names == ()
        assert torch.equal(logits(model), bare)
    attachment.detach()
    assert objects(model) == before


def test_an_adapter_may_leave_modules_alone_that_the_slot_held_before(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    narrow = load_adapter(
        save_adapter(bases["llama"], tmp_path / "q", r=4, target_modules=["q_proj"])
    )
    wide = load_adapter(save_adapter(bases["llama"], tmp_path / "qv", r=4, target_modules=QV))
    model = load(bases["llama"])
    with attach(model, {"slot": narrow}) as attachment:
        attachment.select("slot")
        want = logits(model)
    with attach(model, {"slot": wide}) as attachment:
        attachment.swap("slot", narrow)
        attachment.blend({"slot": 1.0})
        torch.testing.assert_close(logits(model), want, atol=1e-5, rtol=1e-5)


def test_whole_parameters_cannot_be_mixed(bases: dict[str, Path], tmp_path: Path) -> None:
    directory = save_adapter(
        bases["llama"], tmp_path / "a", r=4, target_modules=QV, modules_to_save=["lm_head"]
    )
    model = load(bases["llama"])
    bare = logits(model)
    with attach(model, {"a": load_adapter(directory)}) as attachment:
        with pytest.raises(InputError, match="replaces whole parameters"):
            attachment.blend({"a": 0.5})
        with pytest.raises(InputError, match="replaces whole parameters"):
            attachment.select_rows(["a", None, None])
        attachment.select("a")
        attachment.select_rows([None, None, None])
        torch.testing.assert_close(logits(model), bare)


def test_bfloat16_adapters_under_a_float32_base(bases: dict[str, Path], tmp_path: Path) -> None:
    directory = save_adapter(bases["llama"], tmp_path / "a", r=4, target_modules=QV)
    file = directory / "adapter_model.safetensors"
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    save_torch({k: v.bfloat16() for k, v in load_torch(file).items()}, file)
    reference = peft.PeftModel.from_pretrained(load(bases["llama"]), directory).eval()
    model = load(bases["llama"])
    with attach(model, {"a": load_adapter(directory)}) as attachment:
        attachment.select("a")
        torch.testing.assert_close(logits(model), logits(reference), atol=1e-4, rtol=1e-4)


def rewrite(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = directory / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def options(directory: Path, **changes: Any) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


PREFIX = "base_model.model."


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: options(d, target_modules=["q_proj"]), "does not name model.layers"),
        (lambda d: options(d, target_modules=[*QV, "k_proj"]), "there are no weights (2 such"),
        (lambda d: options(d, exclude_modules=["layers.0.self_attn.q_proj"]), "does not name"),
        (
            lambda d: rewrite(
                d, lambda t: {k.replace("layers.1", "layers.7"): v for k, v in t.items()}
            ),
            "is not a module of the base model",
        ),
        (
            lambda d: rewrite(
                d,
                lambda t: {k: np.concatenate([v, v], -1) if "_A" in k else v for k, v in t.items()},
            ),
            "maps 64 to",
        ),
        (
            lambda d: rewrite(
                d, lambda t: {**t, f"{PREFIX}model.norm.weight": np.ones(32, np.float32)}
            ),
            "neither bias nor modules_to_save",
        ),
        (
            lambda d: rewrite(
                d, lambda t: {**t, f"{PREFIX}model.nothing": np.ones(32, np.float32)}
            ),
            "is not a parameter of the base model",
        ),
        (
            lambda d: rewrite(
                d, lambda t: {**t, f"{PREFIX}lm_head.weight": np.ones((9, 32), np.float32)}
            ),
            "resized vocabulary",
        ),
        (lambda d: options(d, modules_to_save=["lm_head"]), "is not among the weights"),
        (
            lambda d: rewrite(d, lambda t: {k: v * np.float32("nan") for k, v in t.items()}),
            "holds NaN or infinity",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_attached(
    spoil: Callable[[Path], None], says: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    good = save_adapter(bases["llama"], tmp_path / "good", r=4, target_modules=QV)
    bad = save_adapter(bases["llama"], tmp_path / "bad", r=4, target_modules=QV)
    spoil(bad)
    model = load(bases["llama"])
    before = objects(model)
    with pytest.raises(InputError) as caught:
        attach(model, {"good": load_adapter(good), "bad": load_adapter(bad)})
    assert says in str(caught.value)
    assert caught.value.field
    assert caught.value.fix
    assert objects(model) == before
    assert not any(module._forward_hooks for module in model.modules())


def test_an_adapter_for_another_architecture(bases: dict[str, Path], tmp_path: Path) -> None:
    directory = save_adapter(bases["gpt2"], tmp_path / "a", r=4, target_modules=["c_attn"])
    with pytest.raises(InputError, match="is not a module of the base model"):
        attach(load(bases["llama"]), {"a": load_adapter(directory)})


def test_saved_embeddings_take_the_place_of_tied_twins(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """PEFT writes `embed_tokens.base_layer.weight` into the tensor that lm_head shares."""
    directory = save_adapter(bases["tied"], tmp_path / "a", r=4, target_modules=["embed_tokens"])
    key = f"{PREFIX}model.embed_tokens.base_layer.weight"
    rewrite(directory, lambda t: {**t, key: t[key] * np.float32(1.5)})
    reference = peft.PeftModel.from_pretrained(load(bases["tied"]), directory).eval()
    model = load(bases["tied"])
    bare = logits(model)
    with attach(model, {"a": load_adapter(directory)}) as attachment:
        attachment.select("a")
        torch.testing.assert_close(logits(model), logits(reference), atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(model), bare)


class Convolved(torch.nn.Module):
    def __init__(self, dimensions: int, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = getattr(torch.nn, f"Conv{dimensions}d")(6, 10, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).view(len(x), -1)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3}, {"kernel_size": 2, "stride": 2, "padding": 1, "bias": False}],
    ids=["plain", "strided"],
)
def test_convolutions_give_what_peft_gives(
    dimensions: int, options: dict[str, Any], tmp_path: Path
) -> None:
    def model() -> Convolved:
        return Convolved(dimensions, **options)

    directories = {}
    for name, rank in (("1", 2), ("2", 5)):
        config = peft.LoraConfig(r=rank, target_modules=["body"], lora_alpha=7)
        directories[name] = save_peft(peft.get_peft_model(model(), config), tmp_path / name)
    x = torch.randn(4, 6, *[7] * dimensions)
    want = {
        name: peft.PeftModel.from_pretrained(model(), directory)(x)
        for name, directory in directories.items()
    }
    bare = model()
    with attach(bare, {n: load_adapter(d) for n, d in directories.items()}) as attachment:
        for name, expected in want.items():
            attachment.select(name)
            torch.testing.assert_close(bare(x), expected)
            assert not torch.allclose(expected, model()(x), atol=1e-3)
        attachment.select_rows(["2", None, "1", "2"])
        rows = [want["2"][0], model()(x)[1], want["1"][2], want["2"][3]]
        torch.testing.assert_close(bare(x), torch.stack(rows))
    assert torch.equal(bare(x), model()(x))


@pytest.mark.parametrize("options", [{"dilation": 2}, {"padding": 1, "padding_mode": "circular"}])
def test_convolutions_that_peft_trains_otherwise_are_refused(
    options: dict[str, Any], tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=2, target_modules=["body"])
    trained = peft.get_peft_model(Convolved(1, kernel_size=3), config)
    adapter = load_adapter(save_peft(trained, tmp_path / "a"))
    with pytest.raises(InputError, match="these factors do not fit"):
        attach(Convolved(1, kernel_size=3, **options), {"a": adapter})
    with pytest.raises(InputError, match="these factors do not fit"):
        attach(Convolved(1, kernel_size=2), {"a": adapter})
