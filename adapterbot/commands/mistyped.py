"""What a person typed for a gate, checked against what exists before anything is judged.

On a runner the same mistakes become a comment: they must not leave a pull request green.
"""

from __future__ import annotations

from adapterbot.errors import InputError
from adapterbot.paths import normalise
from adapterbot.selection import Overrides, named_adapter
from adapterbot.sides import Sides
from adapterbot.tree import Tree


def refuse_mistyped(where: Sides, overrides: Overrides, suite_tree: Tree | None) -> None:
    """Refuses options that name what is nowhere.

    Args:
        suite_tree: the files that the suite lies among, None where it is not named by hand.

    Raises:
        InputError: with the option.
    """
    adapter, suite, baseline = overrides.adapter, overrides.suite, overrides.baseline
    if adapter and not where.fork_point.has(normalise(adapter)):
        named_adapter(where, adapter)
    if suite and suite_tree is not None and not suite_tree.has(suite):
        raise InputError(
            "does not exist", file=suite, field="--suite", fix="name the suite's YAML file"
        )
    if not baseline or baseline in ("none", "base-ref"):
        return
    if not where.base.has(normalise(baseline, field="--baseline")):
        raise InputError(
            f"does not exist in {where.base.label}",
            file=baseline,
            field="--baseline",
            fix="write `base-ref`, `none`, or the path of an adapter that is committed there",
        )
