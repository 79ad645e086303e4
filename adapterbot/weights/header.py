"""A safetensors header, parsed and checked before anything touches a tensor.

No torch, no pydantic: a lock check or a publish reads what weights claim to be.
The file comes from a stranger, so every claim it makes about itself is held against its real size.

Source: the safetensors format, https://github.com/huggingface/safetensors#format: eight bytes of
little-endian length N, N bytes of JSON, then the tensors' bytes without hole or overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from adapterbot.errors import InputError
from adapterbot.files.strict_json import DuplicateKeyError, refuse_constant, unique_object

# Some 50,000 tensors, which take a second to check. The reference implementation allows 100 MB,
# and a header of 18 MB that claims nothing but nonsense already costs several.
HEADER_LIMIT = 8 * 1000 * 1000
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_MAX_DIMENSIONS = 16
_NAME_LIMIT = 1000

# Bits per element. Sub-byte kinds must fill whole bytes.
_BITS: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
        "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
        "U32": 32, "I32": 32, "F32": 32,
        "U64": 64, "I64": 64, "F64": 64, "C64": 64,
        "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    }
)  # fmt: skip

_RESAVE = "re-save it with `save_pretrained(..., safe_serialization=True)`"

# What people put where safetensors belongs, by the first bytes, and what to do about it.
_IMPOSTORS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/v1",
        "is a Git LFS pointer, not the weights themselves",
        "run `git lfs pull`, or set `lfs: true` in actions/checkout",
    ),
    (b"PK\x03\x04", "is a zip archive (a PyTorch pickle checkpoint), not safetensors", _RESAVE),
    (b"PK\x05\x06", "is a zip archive, not safetensors", _RESAVE),
    (b"\x80\x02", "is a pickle, not safetensors", _RESAVE),
    (b"\x80\x03", "is a pickle, not safetensors", _RESAVE),
    (b"\x80\x04", "is a pickle, not safetensors", _RESAVE),
    (b"\x80\x05", "is a pickle, not safetensors", _RESAVE),
    (b"GGUF", "is a GGUF file, not safetensors", "commit the PEFT adapter it was made from"),
    (b"\x93NUMPY", "is a NumPy array, not safetensors", _RESAVE),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, not safetensors", _RESAVE),
    (b"\x1f\x8b", "is gzip-compressed, not safetensors", "decompress it"),
)


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor. `start` and `stop` are offsets into the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """A header whose every claim agrees with the file's size.

    Tensors are in file order; `metadata` is free text from the file and never trusted.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]

    @property
    def parameters(self) -> int:
        """How many numbers the file holds."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def read_header(path: Path, *, shown: str | None = None) -> Header:
    """The checked header of the safetensors file at `path`.

    Args:
        shown: how errors name it; the path itself when not given.

    Raises:
        InputError: it does not exist, is something else (named: pickle, zip, LFS pointer …), is cut
            short, or its header contradicts itself or the file.
    """
    name = shown or str(path)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            prefix = stream.read(64)
            _refuse_impostor(prefix, name)
            if size < _LENGTH_BYTES:
                raise _broken(name, "header", f"is {size} bytes long, shorter than its own header")
            length = int.from_bytes(prefix[:_LENGTH_BYTES], "little")
            if length > HEADER_LIMIT:
                raise _broken(name, "header", f"claims a header of {length:,} bytes")
            if length > size - _LENGTH_BYTES:
                raise _broken(
                    name,
                    "header",
                    f"is cut short: the header claims {length:,} bytes and {size - _LENGTH_BYTES:,}"
                    " follow",
                )
            stream.seek(_LENGTH_BYTES)
            text = stream.read(length)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError("does not exist", file=name, fix="commit the adapter's weights") from error
    except IsADirectoryError as error:
        raise InputError("is a directory, not a file", file=name, fix="name the file") from error
    except PermissionError as error:
        raise InputError("cannot be read", file=name, fix="make it readable") from error
    return parse_header(text, data_start=_LENGTH_BYTES + length, file_size=size, shown=name)


def parse_header(text: bytes, *, data_start: int, file_size: int, shown: str) -> Header:
    """The header in `text`, held against a file of `file_size` bytes.

    Raises:
        InputError: as `read_header`.
    """
    entries = _json_object(text, shown)
    metadata = _metadata(entries.pop(_METADATA, {}), shown)
    tensors = {
        name: _tensor(name, entry, data_start, file_size, shown) for name, entry in entries.items()
    }
    in_order = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)))
    _check_layout(in_order, data_start, file_size, shown)
    return Header(in_order, metadata)


def _refuse_impostor(prefix: bytes, shown: str) -> None:
    # A real file starts with a length below 10^8 and then `{`: bytes 5 to 8 are zero. None of the
    # signatures here can be the start of one, so a polyglot cannot be both.
    if prefix[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{":
        return
    for signature, message, fix in _IMPOSTORS:
        if prefix.startswith(signature):
            raise InputError(message, file=shown, fix=fix)


def _broken(shown: str, field: str, message: str) -> InputError:
    return InputError(
        message, file=shown, field=field, fix="save it again, and push the whole file"
    )


def _json_object(text: bytes, shown: str) -> dict[str, object]:
    if not text.startswith(b"{"):
        raise InputError("is not a safetensors file", file=shown, field="header", fix=_RESAVE)
    try:
        # The format pads the header with spaces, and with nothing else.
        parsed = json.loads(
            text.rstrip(b" ").decode("utf-8"),
            object_pairs_hook=unique_object,
            parse_constant=refuse_constant,
        )
    except DuplicateKeyError as error:
        raise _broken(shown, _short(error.key), "appears twice in the header") from error
    except (ValueError, RecursionError) as error:
        raise _broken(shown, "header", "is not valid JSON") from error
    if not isinstance(parsed, dict):
        raise _broken(shown, "header", "is not a JSON object")
    return parsed


def _metadata(value: object, shown: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _broken(shown, _METADATA, "is not a table of strings")
    return {str(key): item for key, item in value.items()}


def _tensor(name: str, entry: object, data_start: int, file_size: int, shown: str) -> TensorInfo:
    field = _short(name)
    if len(name) > _NAME_LIMIT or not name.isprintable():
        raise _broken(shown, field, "is not a tensor's name")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(shown, field, "must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _broken(shown, field, f"has the unknown dtype {_short(repr(dtype))}")
    if not _whole_numbers(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _broken(shown, field, "has a shape that is not a list of whole numbers")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(shown, field, "has data_offsets that are not [start, stop]")
    start, stop = offsets
    if stop > file_size - data_start:
        raise _broken(
            shown,
            field,
            f"is cut short: it ends at byte {data_start + stop:,} of a file of {file_size:,}",
        )
    # Each factor is bounded by what the file can hold before they are multiplied.
    if any(size > 8 * file_size for size in shape) and 0 not in shape:
        raise _broken(shown, field, "has a shape larger than the file")
    bits = math.prod(shape) * _BITS[dtype]
    if bits != 8 * (stop - start):
        raise _broken(
            shown, field, f"is {stop - start:,} bytes, but {dtype} {shape} takes {bits / 8:,.0f}"
        )
    return TensorInfo(dtype, tuple(shape), data_start + start, data_start + stop)


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 2**63 for item in value
    )


def _check_layout(
    tensors: Mapping[str, TensorInfo], data_start: int, file_size: int, shown: str
) -> None:
    """No overlap, no hole, nothing behind the last tensor: nowhere to hide a second file."""
    end = data_start
    for name, tensor in tensors.items():
        if tensor.start != end:
            problem = "overlaps another tensor" if tensor.start < end else "leaves a hole before it"
            raise _broken(shown, _short(name), problem)
        end = tensor.stop
    if end != file_size:
        raise _broken(shown, "data", f"has {file_size - end:,} bytes behind the last tensor")


def _short(text: str) -> str:
    printable = text
    if not text.isprintable():
        printable = "".join(letter if letter.isprintable() else "�" for letter in text)
    return printable if len(printable) <= 120 else printable[:119] + "…"
