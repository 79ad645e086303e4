"""Which modules of a model an adapter's options name: PEFT's rules, on names alone.

Source: PEFT 0.21, `tuners_utils.check_target_module_exists` and `match_target_against_key`.
"""

from __future__ import annotations

from collections.abc import Iterable

from adapterbot.weights.options import LoraConfig
from adapterbot.weights.patterns import match

ALL_LINEAR = "all-linear"


def targeted(config: LoraConfig, module: str) -> bool:
    """Whether `module` (a dotted name inside the base model) gets a low-rank update.

    `target_modules` is a list of exact names or of their dotted endings, or one regular expression
    over the whole name. `all-linear` names kinds of modules, which names alone cannot answer: the
    caller decides that case.
    """
    if _excluded(config, module) or saved_whole(config.modules_to_save, module):
        return False
    targets = config.target_modules
    if targets is None:
        return False
    if isinstance(targets, str):
        return match(targets, module, whole=True) is not None
    if module in targets:
        return True
    return _ends_with(module, targets) and _layer_chosen(config, module)


def saved_whole(modules_to_save: Iterable[str] | None, module: str) -> bool:
    """Whether `module`, or a module it lies in, was trained and saved whole."""
    return any(match(rf"(^|.*\.){name}($|\..*)", module) for name in modules_to_save or ())


def _excluded(config: LoraConfig, module: str) -> bool:
    excluded = config.exclude_modules
    if not excluded:
        return False
    if isinstance(excluded, str):
        return match(excluded, module, whole=True) is not None
    return module in excluded or _ends_with(module, excluded)


def _ends_with(module: str, names: Iterable[str]) -> bool:
    return any(module.endswith(f".{name}") for name in names)


def _layer_chosen(config: LoraConfig, module: str) -> bool:
    """`layers_to_transform`: the first number in the name that follows `layers_pattern`."""
    chosen = config.layers_to_transform
    if chosen is None or chosen == ():
        return True
    patterns = config.layers_pattern or ()
    if isinstance(patterns, str):
        patterns = (patterns,)
    found = (
        next(filter(None, (match(rf"(?:^|.*?\.){p}\.(\d+)\.", module) for p in patterns)), None)
        if patterns
        else match(r".*?\.[^.]*\.(\d+)\.", module)
    )
    if found is None:
        return False
    index = int(found.group(1))
    return index == chosen if isinstance(chosen, int) else index in chosen
