"""Adapter weights: what a file claims (no torch), what it is, and how it goes under a base model.

What needs torch is loaded on first use, so that `weights.header` and `weights.peft_dir` serve a
lock check without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterbot.late import late
from adapterbot.weights.peft_dir import AdapterFiles, adapter_digest, read_adapter_dir
from adapterbot.weights.trained_on import check_base

if TYPE_CHECKING:
    from adapterbot.weights.adapter import Adapter, load_adapter, open_adapter
    from adapterbot.weights.attachment import Attachment, attach
    from adapterbot.weights.merging import merge_linear
    from adapterbot.weights.saving import save_adapter

__all__ = [
    "Adapter",
    "AdapterFiles",
    "Attachment",
    "adapter_digest",
    "attach",
    "check_base",
    "load_adapter",
    "merge_linear",
    "open_adapter",
    "read_adapter_dir",
    "save_adapter",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(
        __name__,
        {
            "Adapter": "adapterbot.weights.adapter",
            "Attachment": "adapterbot.weights.attachment",
            "attach": "adapterbot.weights.attachment",
            "load_adapter": "adapterbot.weights.adapter",
            "merge_linear": "adapterbot.weights.merging",
            "open_adapter": "adapterbot.weights.adapter",
            "save_adapter": "adapterbot.weights.saving",
        },
    )
