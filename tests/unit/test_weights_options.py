"""Every option of PEFT is honoured, inert, left to PEFT, or refused by name."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.weights import options
from adapterbot.weights.matching import saved_whole, targeted
from adapterbot.weights.options import LoraConfig, parse_config
from adapterbot.weights.patterns import match

PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
}


def parse(**changes: Any) -> tuple[Any, tuple[str, ...]]:
    return parse_config(json.dumps({**PLAIN, **changes}).encode(), shown="a/adapter_config.json")


def test_every_option_of_peft_is_known_to_us() -> None:
    peft = pytest.importorskip("peft")
    honoured = set(LoraConfig.model_fields)
    known = honoured | options._INERT | options._LEFT_TO_PEFT | set(options._REFUSED)
    theirs = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert theirs <= known


def test_no_option_is_in_two_groups() -> None:
    groups = [
        set(LoraConfig.model_fields),
        set(options._INERT),
        set(options._LEFT_TO_PEFT),
        set(options._REFUSED),
    ]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_the_scale_follows_the_patterns_of_rank_and_alpha() -> None:
    config, left = parse(
        r=4,
        lora_alpha=16,
        rank_pattern={"layers.0.q_proj": 8, "v_proj": 2},
        alpha_pattern={r".*\.k_proj": 3},
    )
    assert left == ()
    assert config.scale("model.layers.1.q_proj") == 4.0
    assert config.scale("model.layers.0.q_proj") == 2.0
    assert config.scale("model.layers.0.v_proj") == 8.0
    assert config.scale("model.layers.0.k_proj") == 0.75
    stabilised, _ = parse(r=16, lora_alpha=16, use_rslora=True)
    assert stabilised.scale("q_proj") == 4.0


@pytest.mark.parametrize("option", sorted(options._LEFT_TO_PEFT))
def test_what_does_not_fit_the_equation_goes_to_peft(option: str) -> None:
    assert parse(**{option: ["something"]})[1] == (option,)
    assert parse(**{option: None})[1] == ()


@pytest.mark.parametrize("kind", sorted(options._LEFT_TO_PEFT_KINDS))
def test_other_kinds_go_to_peft(kind: str) -> None:
    config, left = parse_config(
        json.dumps({"peft_type": kind, "anything": 1, "bias": "none"}).encode(), shown="c.json"
    )
    assert config.peft_type == kind
    assert left == ("peft_type",)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({option: {"a": 1}}, option) for option in options._REFUSED),
        # attack: the same under the name of a kind that PEFT lets have them
        *(({"peft_type": "ADALORA", o: {"a": 1}}, o) for o in options._REFUSED),
        ({"peft_type": "ADALORA", "init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"brand_new_option": True}, "brand_new_option"),
        # attack: behind one that is inert, and one that goes to PEFT
        ({"lora_dropout": 0.1, "use_dora": True, "brand_new_option": True}, "brand_new_option"),
        ({"task_type": "SEQ_CLS"}, "task_type"),
        ({"peft_type": "XLORA"}, "peft_type"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type"),
        ({"peft_type": None}, "peft_type"),
        ({"r": 0}, "r"),
        ({"r": "4"}, "r"),
        ({"r": True}, "r"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"bias": "some"}, "bias"),
        ({"target_modules": None}, "target_modules"),
        ({"target_modules": "("}, "target_modules"),
        ({"target_modules": [1]}, "target_modules"),
        ({"target_modules": "a" * 3000}, "target_modules"),
        ({"rank_pattern": {"(": 2}}, "rank_pattern"),
        ({"rank_pattern": {"q": 0}}, "rank_pattern.q"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"init_lora_weights": "tomorrow"}, "init_lora_weights"),
    ],
)
def test_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(**changes)
    assert caught.value.field is not None
    assert caught.value.field.startswith(field)
    assert caught.value.file == "a/adapter_config.json"
    assert caught.value.fix


def test_an_option_that_is_there_twice_is_refused() -> None:
    """Attack: a reviewer reads one rank, the gate takes another, and who serves it a third."""
    text = json.dumps(PLAIN).replace('"r": 4', '"r": 4, "r": 8')
    with pytest.raises(InputError, match=r"a/adapter_config\.json: has the key 'r' twice"):
        parse_config(text.encode(), shown="a/adapter_config.json")
    text = json.dumps({**PLAIN, "rank_pattern": {"q": 2}}).replace('"q": 2', '"q": 2, "q": 3')
    with pytest.raises(InputError, match="has the key 'q' twice"):
        parse_config(text.encode(), shown="a/adapter_config.json")


@pytest.mark.parametrize("pattern", ["((a{999}){999}){999}", "a{4000000000}"])
def test_a_pattern_that_would_take_all_memory_is_refused(pattern: str) -> None:
    """Attack: `regex` writes out what is repeated, and the gate is killed for its memory."""
    for option in ({"rank_pattern": {pattern: 2}}, {"target_modules": pattern}):
        with pytest.raises(InputError, match="repeats too much"):
            parse(**option)
    with pytest.raises(InputError, match="repeats too much"):
        match(pattern, "q_proj")


@pytest.mark.parametrize(
    "pattern",
    [
        "(?x)(((a{ 999}){ 999}){ 999})",
        "(?x)(((a{#c\n999}){ 999}){ 999})",
        "(?R)",
        "(" * 999 + ")" * 999,
        "(?au)a",
        "[[:alpha:]]_proj",
        "(k_proj){e<=1}",
    ],
)
def test_a_pattern_of_regex_alone_is_refused(pattern: str) -> None:
    """Attack: what `regex` reads and `re`, and so PEFT, does not, or reads otherwise: counts that
    are hidden from the bound, recursion that takes all memory, scales that nobody else applies."""
    for option in ({"alpha_pattern": {pattern: 2}}, {"target_modules": pattern}):
        with pytest.raises(InputError, match=r"names have not|is not a regular expression"):
            parse(**option)
    with pytest.raises(InputError, match=r"names have not|is not a regular expression"):
        match(pattern, "q_proj")


_PIECES = [*"q_0.()[]*+?|-$ ", r"\.", r"\d", r"\w", r"\b", "[^", "{2}", "{,3}", "--", "&&"]
_PIECES += ["(?:", "(?i)", "(?x)", "(?=", "(?!", "(?>"]


@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map("".join))
def test_a_pattern_says_what_it_says_to_python(pattern: str) -> None:
    for name in ("model.layers.0.q_proj", "qq_0", "q"):
        for whole, said in ((False, re.match), (True, re.fullmatch)):
            try:
                found = match(pattern, name, whole=whole)
            except InputError:
                return
            with warnings.catch_warnings(action="ignore"):
                wanted = said(pattern, name)
            assert (found and found.span()) == (wanted and wanted.span())


def test_an_unknown_option_that_is_off_does_not_stand_in_the_way() -> None:
    assert parse(brand_new_option=None, another=False, third={})[1] == ()
    known = dict.fromkeys(("modules_to_save", "layers_pattern", "rank_pattern"))
    assert parse(**known)[1] == ()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_options_that_are_no_json_object_are_refused(text: bytes) -> None:
    with pytest.raises(InputError, match="JSON"):
        parse_config(text, shown="c.json")


LLAMA = [
    "model",
    "model.embed_tokens",
    "model.layers",
    *(
        f"model.layers.{i}.{part}"
        for i in (0, 1, 10)
        for part in ("self_attn", "self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj")
    ),
    "model.layers.1.experts.0.q_proj",
    "lm_head",
    "q_proj",
]


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["proj"]},
        {"target_modules": ["self_attn.q_proj", "lm_head"]},
        {"target_modules": ["model.layers.0.self_attn.q_proj"]},
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": r"q_proj"},
        {"target_modules": r"model\.layers\.[01]\..*proj"},
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
        {"target_modules": ["q_proj"], "layers_to_transform": 10},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ["experts"]},
        {"target_modules": ["q_proj", "lm_head"], "exclude_modules": ["self_attn.q_proj"]},
        {"target_modules": ["q_proj"], "exclude_modules": r".*layers\.1\..*"},
        {"target_modules": ["q_proj", "embed_tokens"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["self_attn"]},
        {"target_modules": []},
    ],
)
def test_the_same_modules_as_peft(changes: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    from peft.tuners.tuners_utils import check_target_module_exists

    ours, _ = parse(**changes)
    theirs = peft.LoraConfig(r=4, **changes)
    for name in LLAMA:
        assert targeted(ours, name) == bool(check_target_module_exists(theirs, name)), name


def test_a_module_is_saved_whole_by_whole_parts_of_its_name() -> None:
    assert saved_whole(("lm_head",), "lm_head")
    assert saved_whole(("self_attn",), "model.layers.0.self_attn.q_proj")
    assert not saved_whole(("head",), "lm_head")
    assert not saved_whole(None, "lm_head")
