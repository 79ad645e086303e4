"""Reviewable pull requests for LoRA adapters."""

__version__ = "0.1.0"
