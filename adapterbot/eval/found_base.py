"""A base model as it is known before it is loaded. (torch)

The key of a cached answer is made of that: a run whose every answer is cached loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from adapterbot.errors import InputError
from adapterbot.eval.base_files import base_digest
from adapterbot.eval.onednn import of_intel
from adapterbot.eval.questions import Identity
from adapterbot.eval.settings import EngineSettings
from adapterbot.lock.loaded_base import base_on_disk

ATTENTION_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_3"}
# Settings by which other packages compute than torch.
_COMPUTING = {
    "attn_implementation": ATTENTION_PACKAGES,
    "quantization": dict.fromkeys(("8bit", "4bit"), "bitsandbytes"),
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class FoundBase:
    """A base model that is there, and how it is going to be loaded.

    Attributes:
        name: how it was named.
        directory: where its files lie.
        device: where it will lie, or begin, where it is spread.
    """

    name: str
    directory: Path
    settings: EngineSettings
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """Its precision."""
        return _dtype(self.settings.dtype, self.device)

    @property
    def device_name(self) -> str:
        """What a reader calls the device."""
        return device_name(self.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its files."""
        return base_digest(self.directory)

    @property
    def known(self) -> bool:
        """Whether all that decides its answers is known before it is loaded."""
        return self.settings.device_map is None


def find_base(base: Path | str, settings: EngineSettings) -> FoundBase:
    """Finds a causal language model in a directory, or downloads one of the Hub.

    Args:
        base: a model directory; or a name on the Hub, `org/name` or `org/name@revision`.

    Raises:
        InputError: there is none, or it wants to run its own code. Or the device is not here.
        OurFailure: as `base_on_disk`.
    """
    device = device_of(settings.device)
    return FoundBase(str(base), base_on_disk(base), settings, device)


def identity(
    digest: str, settings: EngineSettings, device: torch.device, dtype: torch.dtype
) -> Identity:
    """What decides the answers of a base of this digest. PEFT's version is always part of it:
    whether PEFT attaches an adapter only the loaded model's modules tell."""
    where = {"device": device_name(device), "dtype": str(dtype)}
    if device.type == "cpu":
        # By which kernels are chosen; a cache may come from another machine.
        where["instructions"] = torch.backends.cpu.get_cpu_capability()
        where["maker"] = "Intel" if of_intel() else "other"
    libraries = versions()
    for setting, packages in _COMPUTING.items():
        if package := packages.get(getattr(settings, setting) or ""):
            libraries[package] = _installed(package)
    return Identity(digest, {**settings.model_dump(mode="json"), **where}, libraries)


def versions() -> dict[str, str]:
    """The libraries that compute, none of which is imported for this.

    Raises:
        ModuleNotFoundError: one is not installed. PEFT need not be.
    """
    found = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    return {**found, "peft": _installed("peft")}


def _installed(package: str) -> str:
    """Its version; "" where it is not installed, which whoever needs it will say."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def device_of(name: str) -> torch.device:
    """The device that the settings name.

    Raises:
        InputError: it is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"{name} is asked for, but there is no CUDA device here",
            field="device",
            fix="use cpu, or auto; `adapterbot doctor` tells more",
        )
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise InputError(
            f"{name} is asked for, but the last CUDA device here is cuda:{count - 1}",
            field="device",
            fix="use auto, or look at CUDA_VISIBLE_DEVICES",
        )
    return device


def device_name(device: torch.device) -> str:
    """What a reader calls a device."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' if threads > 1 else ''}"


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]
