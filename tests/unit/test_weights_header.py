"""A safetensors header is believed only where the file bears it out."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from adapterbot.errors import InputError
from adapterbot.weights.header import Header, read_header


def assemble(entries: object, data: bytes = b"", *, padding: int = 0) -> bytes:
    text = (
        entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    ) + b" " * padding
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> Any:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def read(content: bytes, tmp_path: Path) -> Header:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    return read_header(file, shown="adapters/x/w.safetensors")


def test_reads_what_the_reference_wrote(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "b": np.zeros((3, 4), np.float32),
        "a": np.zeros((0, 5), np.float16),
        "c": np.array(1, np.int64),
        "d": np.zeros((2, 1, 3), np.uint8),
    }
    header = read(save(tensors, metadata={"format": "pt"}), tmp_path)
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {
        name: array.shape for name, array in tensors.items()
    }
    assert header.tensors["a"].dtype == "F16"
    assert header.metadata == {"format": "pt"}
    assert header.parameters == 12 + 0 + 1 + 6


def test_padding_and_no_tensor_at_all_are_fine(tmp_path: Path) -> None:
    assert not read(assemble({}), tmp_path).tensors
    assert read(assemble({"a": entry()}, b"\0" * 8, padding=5), tmp_path).tensors["a"].shape == (2,)


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps({"a": 1}), "pickle"),
        (pickle.dumps({"a": 1}, protocol=2), "pickle"),
        (zip_bytes(), "zip archive"),
        (b"GGUF\3\0\0\0" + b"\0" * 50, "GGUF"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n",
            "Git LFS pointer",
        ),
        (b"", "shorter than its own header"),
        (b"\1\0\0", "shorter than its own header"),
        (assemble({"a": entry()}, b"\0" * 8)[:20], "cut short"),
        (assemble({"a": entry()}, b"\0" * 7), "cut short"),
        ((10**9).to_bytes(8, "little") + b"{" + b"\0" * 100, "claims a header of 1,000,000,000"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "claims a header"),
        ((8).to_bytes(8, "little") + b"notjson!", "is not a safetensors file"),
        (assemble(b"[]"), "is not a safetensors file"),
        (assemble(b'{"a": '), "not valid JSON"),
        (assemble(b'{"a": \xff}'), "not valid JSON"),
        (assemble(b'{"a":' * 5000), "not valid JSON"),
        (assemble(b'{"a": NaN}'), "not valid JSON"),
        (assemble(b"{}\0"), "not valid JSON"),
        (assemble({"__metadata__": {"a": 1}}), "__metadata__: is not a table of strings"),
        (assemble({"__metadata__": []}), "__metadata__: is not a table of strings"),
        (assemble({"a": 1}), "a: must have exactly"),
        (assemble({"a": entry(extra=1)}, b"\0" * 8), "a: must have exactly"),
        (assemble({"a": entry("F33")}, b"\0" * 8), "unknown dtype 'F33'"),
        (assemble({"a": entry(shape=[-2])}, b"\0" * 8), "not a list of whole numbers"),
        (assemble({"a": entry(shape=[True, 2])}, b"\0" * 8), "not a list of whole numbers"),
        (assemble({"a": entry(shape=[2.0])}, b"\0" * 8), "not a list of whole numbers"),
        (assemble({"a": entry(shape=[1] * 17)}, b"\0" * 8), "not a list of whole numbers"),
        (assemble({"a": entry(offsets=[8, 0])}, b"\0" * 8), "not [start, stop]"),
        (assemble({"a": entry(offsets=[0])}, b"\0" * 8), "not [start, stop]"),
        (assemble({"a": entry(shape=[3])}, b"\0" * 8), "is 8 bytes, but F32 [3] takes 12"),
        (assemble({"a": entry(shape=[2**62, 2**62])}, b"\0" * 8), "larger than the file"),
        (
            assemble({"a": entry(), "b": entry(offsets=(4, 12))}, b"\0" * 12),
            "b: overlaps another tensor",
        ),
        (assemble({"a": entry(), "b": entry(offsets=(9, 17))}, b"\0" * 17), "b: leaves a hole"),
        (assemble({"a": entry(offsets=(1, 9))}, b"\0" * 9), "a: leaves a hole"),
        (assemble({"a": entry()}, b"\0" * 8 + zip_bytes()), "bytes behind the last tensor"),
        (
            assemble(
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                b"\0" * 8,
            ),
            "a: appears twice",
        ),
        (assemble({"a\n::error::": entry()}, b"\0" * 8), "is not a tensor's name"),
        (assemble({"a" * 2000: entry()}, b"\0" * 8), "is not a tensor's name"),
    ],
)
def test_hostile_or_broken_files_are_named(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(content, tmp_path)
    assert says in str(caught.value)
    assert caught.value.file == "adapters/x/w.safetensors"
    assert caught.value.fix
    assert str(caught.value).isprintable()


def test_missing_directory_and_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="does not exist"):
        read_header(tmp_path / "none")
    with pytest.raises(InputError, match="does not exist"):
        read_header(file / "none")
    with pytest.raises(InputError, match="is a directory"):
        read_header(tmp_path)


SMALL = st.integers(min_value=-1, max_value=40)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "F4", "F99"]),
        "shape": st.lists(SMALL, max_size=3),
        "data_offsets": st.lists(SMALL, min_size=2, max_size=2),
    }
)


@settings(max_examples=400)
@given(
    entries=st.dictionaries(st.sampled_from(["a", "b", "c"]), ENTRY, max_size=3),
    data=st.binary(max_size=64),
)
def test_never_accepts_what_the_reference_refuses(
    entries: dict[str, Any], data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    file.write_bytes(assemble(entries, data))
    try:
        header = read_header(file)
    except InputError:
        return
    with safe_open(file, framework="np") as stream:
        assert set(stream.keys()) == set(header.tensors)
        for name, tensor in header.tensors.items():
            if tensor.dtype in ("F32", "U8"):
                assert stream.get_tensor(name).shape == tensor.shape


@settings(max_examples=400)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_the_reference_reads_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = bytearray(save({"w.a": np.ones((2, 3), np.float32), "w.b": np.ones(3, np.float16)}))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    file = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    file.write_bytes(good[:cut] if data.draw(st.booleans()) else good)
    try:
        header = read_header(file)
    except InputError:
        return
    try:
        with safe_open(file, framework="np") as stream:
            assert set(stream.keys()) == set(header.tensors)
    except SafetensorError as error:
        pytest.fail(f"accepted what the reference refuses: {error}")


@settings(max_examples=300)
@given(noise=st.binary(max_size=200))
def test_noise_never_crashes(noise: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    file.write_bytes(noise)
    with contextlib.suppress(InputError):
        assert not read_header(file).tensors
