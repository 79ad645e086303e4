"""Reviewable pull requests for LoRA adapters."""

__version__ = "0.1.0"

TOOL = f"adapterbot {__version__}"
"""What writes a file, as the file says."""
