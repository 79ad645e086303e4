"""adapter_config.json: every option of PEFT honoured, inert at inference, left to PEFT, or refused.

No option is ignored in silence: a gate that evaluates something else than what the author trained
is worse than none. Nothing here imports torch or PEFT; the names are those of PEFT 0.21's
`LoraConfig` and `PeftConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from adapterbot.errors import InputError
from adapterbot.files.strict_json import DuplicateKeyError, unique_object
from adapterbot.files.validation import bad_input
from adapterbot.weights.patterns import MAX_PATTERNS, check, match

Pattern = Annotated[str, Field(max_length=2000)]
Rank = Annotated[int, Field(ge=1, le=65_536)]
Alpha = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
Layer = Annotated[int, Field(ge=0, le=100_000)]

# PEFT kinds besides LoRA that change linear layers only, and that PEFT loads from the two files of
# the adapter alone. Prompt-learning kinds change the prompt and the cache; X-LoRA, Poly and others
# name further files or programs in their options.
_LEFT_TO_PEFT_KINDS = frozenset(
    {"ADALORA", "BOFT", "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "MISS", "OFT", "VBLORA", "VERA"}
)

# LoRA options that change the layer in a way which y = Wx + B(g ⊙ Ax) cannot express.
_LEFT_TO_PEFT = frozenset(
    {
        "use_dora",
        "lora_bias",
        "trainable_token_indices",
        "target_parameters",
        "use_bdlora",
        "velora_config",
        "ensure_weight_tying",
    }
)

# Options that matter for training only.
_INERT = frozenset(
    {
        "auto_mapping",
        "inference_mode",
        "lora_dropout",
        "peft_version",
        "runtime_config",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "megatron_core",
        "qalora_group_size",
    }
)

_REFUSED: Mapping[str, str] = {
    "alora_invocation_tokens": "switches the adapter on in the middle of a prompt",
    "arrow_config": "routes over other adapters, which this directory does not hold",
    "kasa_config": "rewrites the base model's weights",
    "layer_replication": "rewrites the base model's layers",
    "megatron_config": "needs Megatron's parallel layers",
    "monteclora_config": "draws its weights at random",
    "use_qalora": "needs a GPTQ-quantised base",
}

# Initialisations that subtract their start from the base weights: the file alone is not the update.
_REWRITES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica"})


class PeftConfig(BaseModel):
    """What every kind of PEFT adapter says of itself."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    peft_type: Annotated[str, Field(max_length=100)]
    base_model_name_or_path: Annotated[str, Field(max_length=2000)] | None = None
    revision: Annotated[str, Field(max_length=2000)] | None = None
    task_type: Annotated[str, Field(max_length=100)] | None = None


class LoraConfig(PeftConfig):
    """The options of plain LoRA, as PEFT names them.

    The update of one module is ΔW = s·B·A with s = α/r, or α/√r when `use_rslora`
    (arXiv 2106.09685 §4.1, arXiv 2312.03732).
    """

    peft_type: Literal["LORA"]
    r: Rank = 8
    lora_alpha: Alpha = 8
    use_rslora: bool = False
    rank_pattern: dict[Pattern, Rank] = Field(default_factory=dict)
    alpha_pattern: dict[Pattern, Alpha] = Field(default_factory=dict)
    target_modules: tuple[Pattern, ...] | Pattern | None = None
    exclude_modules: tuple[Pattern, ...] | Pattern | None = None
    layers_to_transform: tuple[Layer, ...] | Layer | None = None
    layers_pattern: tuple[Pattern, ...] | Pattern | None = None
    modules_to_save: tuple[Pattern, ...] | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    # Recorded for completeness: the layout of the base weight is the module's own affair.
    fan_in_fan_out: bool = False
    init_lora_weights: bool | str = True

    @field_validator(
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "modules_to_save",
        mode="before",
    )
    @classmethod
    def _list_is_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _keys_are_patterns(cls, value: dict[str, float]) -> dict[str, float]:
        for pattern in value:
            check(pattern)
        return value

    @field_validator("target_modules", "exclude_modules")
    @classmethod
    def _string_is_pattern(cls, value: tuple[str, ...] | str | None) -> object:
        if isinstance(value, str):
            check(value)
        return value

    @field_validator("modules_to_save", "layers_pattern")
    @classmethod
    def _each_is_pattern(cls, value: tuple[str, ...] | str | None) -> object:
        for pattern in (value,) if isinstance(value, str) else value or ():
            check(pattern)
        return value

    def rank(self, module: str) -> int:
        """The rank r of `module`; the first pattern that matches the end of its name wins."""
        return self.rank_pattern.get(_first_match(self.rank_pattern, module), self.r)

    def scale(self, module: str) -> float:
        """The factor s of `module`: α/r, or α/√r when `use_rslora`."""
        rank = self.rank(module)
        alpha = self.alpha_pattern.get(_first_match(self.alpha_pattern, module), self.lora_alpha)
        return float(alpha / rank**0.5 if self.use_rslora else alpha / rank)


def parse_config(text: bytes, *, shown: str) -> tuple[PeftConfig, tuple[str, ...]]:
    """An adapter_config.json, and the options for which PEFT itself is needed (mostly none).

    Raises:
        InputError: not JSON, a wrong type, an unknown option, or one we refuse; with its name.
    """
    try:
        raw = json.loads(text, object_pairs_hook=unique_object)
    except DuplicateKeyError as error:
        # Python's readers take the last, others the first, or neither.
        raise InputError(
            f"has the key {error.key[:100]!r} twice", file=shown, fix="keep one of them"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            "is not valid JSON", file=shown, fix="save the adapter again with `save_pretrained`"
        ) from error
    if not isinstance(raw, dict):
        raise InputError("is not a JSON object", file=shown, fix="save the adapter again")
    kind = raw.get("peft_type")
    model = LoraConfig if kind == "LORA" else PeftConfig
    try:
        config = model.model_validate(raw)
    except ValidationError as error:
        raise bad_input(
            error, file=shown, fix="correct the value, or save the adapter again with PEFT"
        ) from error
    if config.task_type not in (None, "CAUSAL_LM"):
        problem = f"is {config.task_type}; only causal language models are evaluated"
        raise _wrong(shown, "task_type", problem, "train with task_type CAUSAL_LM")
    if isinstance(config, LoraConfig):
        return config, _check_lora(config, shown)
    if config.peft_type not in _LEFT_TO_PEFT_KINDS:
        fix = f"use LoRA, or one of {', '.join(sorted(_LEFT_TO_PEFT_KINDS))}"
        raise _wrong(shown, "peft_type", f"is {config.peft_type}, which is not supported", fix)
    # AdaLoRA has LoRA's options too, and PEFT would follow them.
    for option, value in (config.model_extra or {}).items():
        if value and option in _REFUSED:
            raise _refused(option, shown)
        if option == "init_lora_weights" and isinstance(value, str):
            _check_init(value, shown)
    return config, ("peft_type",)


def _check_lora(config: LoraConfig, shown: str) -> tuple[str, ...]:
    left_to_peft = []
    for option, value in (config.model_extra or {}).items():
        # PEFT writes every option, so one that is off must not stand in the way.
        if option in _INERT or not value:
            continue
        if option in _LEFT_TO_PEFT:
            left_to_peft.append(option)
            continue
        raise _refused(option, shown)
    _check_init(config.init_lora_weights, shown)
    if config.target_modules is None and "target_parameters" not in left_to_peft:
        fix = "save the adapter with PEFT, which writes the modules it chose"
        raise _wrong(shown, "target_modules", "is missing", fix)
    return tuple(left_to_peft)


def _refused(option: str, shown: str) -> InputError:
    if option in _REFUSED:
        return _wrong(shown, option, _REFUSED[option], "train without it")
    problem = "is an option that this version of adapterbot does not know"
    return _wrong(shown, option, problem, "update adapterbot, or remove it")


def _wrong(shown: str, option: str, problem: str, fix: str) -> InputError:
    return InputError(problem, file=shown, field=option, fix=fix)


def _check_init(init: bool | str, shown: str) -> None:
    if isinstance(init, bool) or init in _PLAIN_INITS:
        return
    if init.startswith(_REWRITES_BASE):
        problem = "which rewrites the base weights: the file alone is not the update"
        fix = "save with `path_initial_model_for_weight_conversion=...` to convert it to LoRA"
    else:
        problem, fix = "which this version of adapterbot does not know", "update adapterbot"
    raise _wrong(shown, "init_lora_weights", f"is {init!r}, {problem}", fix)


def _first_match(patterns: Mapping[str, float], module: str) -> str:
    """The pattern that PEFT's `get_pattern_key` picks for `module`, or `module` itself."""
    if len(patterns) > MAX_PATTERNS:
        raise InputError(
            f"has {len(patterns):,} patterns, more than {MAX_PATTERNS:,}",
            file="adapter_config.json",
            field="rank_pattern or alpha_pattern",
            fix="write fewer, broader patterns",
        )
    for pattern in patterns:
        if match(rf"(.*\.)?({pattern})$", module):
            return pattern
    return module
