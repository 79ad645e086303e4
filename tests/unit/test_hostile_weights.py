"""Weights that attack whoever opens them, by name. None is loaded, and none is believed."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterbot.errors import InputError
from adapterbot.weights import load_adapter, merge_linear, save_adapter
from adapterbot.weights.header import _BITS, HEADER_LIMIT, read_header
from adapterbot.weights.inspection import scan
from adapterbot.weights.peft_dir import WEIGHTS_NAME, read_adapter_dir

ADAPTER = Path(__file__).parent.parent.parent / "examples" / "tiny" / "adapters" / "dates"


class Canary:
    """Sings when it is unpickled."""

    def __init__(self, perch: Path) -> None:
        self.perch = perch

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.perch),)


def packed(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


def claims(*entries: tuple[str, Any], data: int = 16) -> bytes:
    """A file whose header makes these claims of the bytes behind it; names may come twice."""
    inside = ",".join(f"{json.dumps(name)}:{json.dumps(entry)}" for name, entry in entries)
    return packed(f"{{{inside}}}".encode(), b"\0" * data)


def tensor(start: int, stop: int, shape: list[int] | None = None, dtype: str = "F32") -> Any:
    size = [(stop - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": size, "data_offsets": [start, stop]}


HEADERS = {
    "a stop beyond the file": (claims(("a", tensor(0, 2**40))), "is cut short"),
    "a stop that overflows 64 bits": (claims(("a", tensor(0, 2**64 + 16))), "not [start, stop]"),
    "a stop that wraps to the right size": (
        claims(("a", tensor(2**63, 2**63 + 16, [4]))),
        "not [start, stop]",
    ),
    "a negative start": (claims(("a", tensor(-16, 0, [4]))), "not [start, stop]"),
    "a start behind its stop": (claims(("a", tensor(16, 0, [4]))), "not [start, stop]"),
    "two tensors over the same bytes": (
        claims(("a", tensor(0, 16)), ("b", tensor(0, 16))),
        "overlaps another tensor",
    ),
    "two tensors that overlap by one element": (
        claims(("a", tensor(0, 12)), ("b", tensor(8, 16))),
        "overlaps another tensor",
    ),
    "a hole to hide something in": (
        claims(("a", tensor(0, 4)), ("b", tensor(12, 16))),
        "leaves a hole",
    ),
    "something behind the last tensor": (claims(("a", tensor(0, 8))), "bytes behind the last"),
    "a shape whose product overflows to the right size": (
        claims(("a", tensor(0, 16, [2**32, 2**32 + 4]))),
        "larger than the file",
    ),
    "a shape that hides its size behind a zero": (
        claims(("a", tensor(0, 16, [0, 2**62]))),
        "is 16 bytes",
    ),
    "the same name twice": (claims(("a", tensor(0, 8)), ("a", tensor(8, 16))), "appears twice"),
    "the same field twice": (
        packed(b'{"a":{"dtype":"F32","dtype":"U8","shape":[4],"data_offsets":[0,16]}}', b"\0" * 16),
        "appears twice",
    ),
    "a header of a hundred megabytes": (
        (100 * 10**6).to_bytes(8, "little") + b"{}" + b" " * 4096,
        "claims a header of 100,000,000 bytes",
    ),
    "a header longer than any file": (b"\xff" * 8 + b"{}", "claims a header"),
    "a header nested a million deep": (packed(b'{"a":' + b"[" * 1_000_000), "not valid JSON"),
    "a number of a million digits": (
        packed(b'{"a":{"dtype":"F32","shape":[' + b"9" * 1_000_000 + b'],"data_offsets":[0,4]}}'),
        "not valid JSON",
    ),
    "a workflow command for a name": (
        claims(("x\n::set-env name=PATH::/tmp", tensor(0, 16))),
        "is not a tensor's name",
    ),
    "a bidi override in a name": (
        claims(("base_model.\u202emodel", tensor(0, 16))),
        "is not a tensor's name",
    ),
}


@pytest.mark.parametrize("attack", HEADERS)
def test_a_header_that_lies_is_refused(attack: str, tmp_path: Path) -> None:
    content, says = HEADERS[attack]
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        read_header(file, shown="w.safetensors")
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert time.process_time() - start < 5


def test_a_real_header_of_a_hundred_megabytes_is_not_even_read(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    with file.open("wb") as stream:  # sparse: it costs the attacker nothing either
        stream.write((10**8).to_bytes(8, "little") + b"{")
        stream.truncate(10**8 + 8)
    assert HEADER_LIMIT < 10**8
    start = time.process_time()
    with pytest.raises(InputError, match="claims a header of 100,000,000 bytes"):
        read_header(file)
    assert time.process_time() - start < 1


def zipped(perch: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Canary(perch)))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def tarred(perch: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("pickle")
        content = pickle.dumps(Canary(perch))
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def behind(payload: bytes) -> bytes:
    """A sound safetensors file, and `payload` after it: a zip is read from its end."""
    return (ADAPTER / WEIGHTS_NAME).read_bytes() + payload


def in_padding(payload: bytes) -> bytes:
    """`payload` where the header is padded with spaces."""
    content = (ADAPTER / WEIGHTS_NAME).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] + payload
    return packed(header, content[8 + length :])


def pickled(protocol: int) -> Callable[[Path], bytes]:
    return lambda perch: pickle.dumps(Canary(perch), protocol=protocol)


PICKLES: dict[str, Callable[[Path], bytes]] = {
    **{f"a pickle of protocol {n}": pickled(n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "a zip as torch saves it": zipped,
    "a tar as old torch saved it": tarred,
    "a zip behind a sound file": lambda perch: behind(zipped(perch)),
    "a pickle behind a sound file": lambda perch: behind(pickle.dumps(Canary(perch))),
    "a zip in the padding of the header": lambda perch: in_padding(zipped(perch)),
    "a pickle in front of a sound file": lambda perch: pickle.dumps(Canary(perch)) + behind(b""),
}


@pytest.mark.parametrize("attack", PICKLES)
def test_pickles_and_polyglots_are_refused_and_never_run(attack: str, tmp_path: Path) -> None:
    perch = tmp_path / "the canary sang"
    adapter = tmp_path / "adapter"
    shutil.copytree(ADAPTER, adapter)
    payload = PICKLES[attack](perch)
    (adapter / WEIGHTS_NAME).write_bytes(payload)
    with pytest.raises(InputError) as caught:
        read_adapter_dir(adapter, shown="adapters/x")
    assert caught.value.file == f"adapters/x/{WEIGHTS_NAME}"
    assert not perch.exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    perch = tmp_path / "the canary sang"
    pickle.loads(pickle.dumps(Canary(perch)))
    assert perch.is_dir()


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickle_beside_or_instead_of_the_weights_is_not_opened(name: str, tmp_path: Path) -> None:
    perch = tmp_path / "the canary sang"
    adapter = tmp_path / "adapter"
    shutil.copytree(ADAPTER, adapter)
    (adapter / name).write_bytes(pickle.dumps(Canary(perch)))
    read_adapter_dir(adapter)  # the weights are sound; the other file is nobody's business
    (adapter / WEIGHTS_NAME).unlink()
    with pytest.raises(InputError):
        read_adapter_dir(adapter)
    assert not perch.exists()


def test_weights_that_are_a_link_or_a_pipe_are_not_opened(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(ADAPTER, adapter)
    weights = adapter / WEIGHTS_NAME
    weights.unlink()
    weights.symlink_to(ADAPTER / WEIGHTS_NAME)
    with pytest.raises(InputError, match="symbolic link"):
        read_adapter_dir(adapter)
    weights.unlink()
    os.mkfifo(weights)  # opening it would wait for ever
    with pytest.raises(InputError):
        read_adapter_dir(adapter)


@pytest.mark.parametrize("dtype", _BITS)
def test_a_head_of_any_kind_of_number_is_judged_or_refused(dtype: str, tmp_path: Path) -> None:
    """Attack: kinds that safetensors has and torch cannot look into stop the gate as a bug of
    ours would."""
    adapter = tmp_path / "adapter"
    shutil.copytree(ADAPTER, adapter)
    content = (adapter / WEIGHTS_NAME).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    head = bytes(8 * _BITS[dtype])
    header["base_model.model.lm_head.weight"] = {
        "dtype": dtype,
        "shape": [8, 8],
        "data_offsets": [len(data), len(data) + len(head)],
    }
    (adapter / WEIGHTS_NAME).write_bytes(packed(json.dumps(header).encode(), data + head))
    refused = [finding.kind for finding in scan(adapter).findings] == ["unreadable"]
    assert refused == dtype.startswith(("F4", "F6_", "F8", "C", "U16", "U32", "U64"))
    if refused:
        with pytest.raises(InputError, match=rf"lm_head.weight: is {dtype}, which PEFT does not"):
            load_adapter(adapter)
    else:
        save_adapter(merge_linear([load_adapter(adapter)], [1.0]), tmp_path / "merged")
        assert "lm_head.weight" in load_adapter(tmp_path / "merged").replaced
