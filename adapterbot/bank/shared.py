"""What all users of a bank share: VeRA's A and B, VB-LoRA's vectors, Soup's P. (torch)

Kept beside the rows, or drawn from a seed. Random numbers are a promise of nobody's: what a seed
gives is proved by its digest, and a machine that draws others says so and does not go on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adapterbot.bank.manifest import (
    Generated,
    Layout,
    Manifest,
    SoupLayout,
    Stored,
    VeraLayout,
    check_shared_fits,
    shared_shapes,
)
from adapterbot.errors import InputError
from adapterbot.files import atomic
from adapterbot.weights.header import read_header

SHARED = "shared.safetensors"


def draw(layout: Layout, seed: int) -> dict[str, Tensor]:
    """The shared tensors that a seed gives, in fp32.

    VeRA: A (rank, widest input) and B (widest output, rank), Kaiming-uniform, A first, as PEFT
    draws them (`VeraModel._init_vera_A_vera_B`, PEFT 0.21). Soup: P (size, size) ~ N(0, 1/size), as
    `reconstruct_projection` of Soup 0.77.

    Raises:
        InputError: VB-LoRA's vectors are trained, and no seed gives them; or they are too many.
    """
    try:
        check_shared_fits(layout)
    except ValueError as error:
        fix = "choose a smaller rank, or a smaller dimension"
        raise InputError(str(error), field="shared", fix=fix) from error
    generator = torch.Generator().manual_seed(seed)
    if isinstance(layout, VeraLayout):
        return {name: _kaiming(size, generator) for name, size in shared_shapes(layout).items()}
    if isinstance(layout, SoupLayout):
        size = layout.size
        return {"P": torch.randn(size, size, generator=generator) * size**-0.5}
    raise InputError(
        "has no generator: VB-LoRA's vectors are trained", field="shared", fix="import an adapter"
    )


def generated(layout: Layout, seed: int) -> Generated:
    """How a manifest notes what `draw` gives."""
    proof = digest(draw(layout, seed))
    if isinstance(layout, SoupLayout):
        return Generated(generator="soup-1", seed=seed, digest=proof)
    return Generated(generator="peft-vera-1", seed=seed, digest=proof)


def _kaiming(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(shape[1]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and fp32 values."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].to("cpu", torch.float32).contiguous()
        whole.update(f"{name}\0{tuple(tensor.shape)}\n".encode())
        whole.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return whole.hexdigest()


def store(path: Path, tensors: Mapping[str, Tensor]) -> Stored:
    """Writes the shared tensors into the bank's directory; how a manifest notes them."""
    kept = {name: tensor.to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    atomic.write_bytes(path / SHARED, save(kept))
    return Stored(digest=digest(kept))


def load(path: Path, manifest: Manifest) -> dict[str, Tensor]:
    """The shared tensors of the bank in `path`, fp32, proved by their digest.

    Raises:
        InputError: they are missing, altered, of the wrong shape, or not what the seed gives here.
    """
    if isinstance(manifest.shared, Generated):
        found = draw(manifest.layout, manifest.shared.seed)
        if digest(found) != manifest.shared.digest:
            raise InputError(
                f"seed {manifest.shared.seed} gives other numbers with torch {torch.__version__}"
                " than it gave where this bank was made",
                file=str(path),
                field="shared",
                fix="there: `adapterbot bank export --store-shared`, which stores them",
            )
        return found
    found = read(path / SHARED)
    prove(found, manifest, str(path / SHARED))
    return found


def prove(found: Mapping[str, Tensor], manifest: Manifest, shown: str) -> None:
    """Holds shared tensors against what a manifest says of them.

    Raises:
        InputError: they are others.
    """
    if {name: tuple(tensor.shape) for name, tensor in found.items()} != shared_shapes(
        manifest.layout
    ):
        raise InputError("holds shared tensors of other shapes", file=shown, fix="restore it")
    if digest(found) != manifest.shared.digest:
        raise InputError(
            "holds other shared tensors than the manifest names by digest",
            file=shown,
            fix="restore it",
        )
    refuse_infinite(found, shown)


def refuse_infinite(tensors: Mapping[str, Tensor], shown: str) -> None:
    """What all users share is in all their answers: one NaN in it, and nobody has one.

    Raises:
        InputError: a number is not finite.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError("holds NaN or infinity", file=shown, field=name, fix="train it again")


def read(file: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, its header checked first.

    Raises:
        InputError: there is none, or it is broken.
    """
    if file.is_symlink():
        raise InputError("is a symbolic link", file=str(file), fix="put the file itself there")
    read_header(file)
    try:
        with safe_open(file, framework="pt", device="cpu") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"cannot be read: {error}", file=str(file), fix="restore it") from error
