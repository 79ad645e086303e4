"""What a model's forward calls the cache that it goes on from."""

from __future__ import annotations

from collections.abc import Container


def cache_argument(takes: Container[str]) -> str:
    """`cache` from transformers 5.24 on; before that `past_key_values`, of Mamba `cache_params`.

    Args:
        takes: the names of the forward's parameters.
    """
    return next((name for name in ("cache", "cache_params") if name in takes), "past_key_values")
