"""The names of a repository's files say which adapters there are, and what belongs to each."""

from __future__ import annotations

import pytest

from adapterbot.changes.conventions import adapter_directories, discover, for_adapter, with_own_keys
from adapterbot.config import AdapterConfig, load
from adapterbot.errors import InputError


def test_a_repository_without_config_is_understood() -> None:
    config = discover(
        [
            "adapters/dates/adapter_config.json",
            "base/config.json",
            "checkpoints/checkpoint-0010/adapter_config.json",
            "checkpoints/checkpoint-0020/adapter_config.json",
            "evals/suite.yaml",
            "soup.yaml",
        ]
    )
    (adapter,) = config.adapters
    assert adapter.path == "adapters/dates"
    assert (adapter.suite, adapter.config) == ("evals/suite.yaml", "soup.yaml")
    assert adapter.archive == "checkpoints/*"


def test_files_beside_the_adapter_come_before_those_at_the_root() -> None:
    files = [
        "soup.yaml",
        "dates/soup.yaml",
        "dates/adapter/adapter_config.json",
        "dates/evals/suite.yaml",
    ]
    (adapter,) = discover(files).adapters
    assert adapter.config == "dates/soup.yaml"
    assert adapter.suite == "dates/evals/suite.yaml"
    assert adapter.lock == "soup.lock"
    assert adapter.archive is None


def test_the_checkpoints_of_one_run_are_not_searched_for_every_adapter() -> None:
    """What one broke would be looked for in the run of another."""
    one = ["a/lora/adapter_config.json", "runs/checkpoint-10/adapter_config.json"]
    both = [*one, "b/lora/adapter_config.json"]
    assert for_adapter(None, "a/lora", one).archive == "runs/*"
    assert [for_adapter(None, f"{n}/lora", both).archive for n in "ab"] == [None, None]
    own = [*both, "b/lora/checkpoint-10/adapter_config.json"]
    assert [for_adapter(None, f"{n}/lora", own).archive for n in "ab"] == [None, "b/lora/*"]


def test_the_lock_of_another_training_is_not_an_adapters_own() -> None:
    """One that is added with a training of its own drifted from a lock that never was its."""
    files = ["soup.yaml", "soup.lock", "x/soup.yaml", "x/lora/adapter_config.json"]
    assert for_adapter(None, "x/lora", files).lock == "x/soup.lock"
    files.remove("x/soup.yaml")
    assert for_adapter(None, "x/lora", files).lock == "soup.lock"
    files += ["x/soup.yaml"]
    files.remove("soup.yaml")
    assert for_adapter(None, "x/lora", files).lock == "soup.lock", "kept at the root by itself"


def test_no_adapter_and_several_are_told_apart() -> None:
    with pytest.raises(InputError, match="holds no adapter"):
        discover(["README.md"])
    with pytest.raises(InputError, match=r"no adapter but the checkpoints out/\* \(copy the one"):
        discover(["out/checkpoint-10/adapter_config.json", "out/checkpoint-20/adapter_config.json"])
    with pytest.raises(InputError, match="holds 2 adapters"):
        discover(["a/adapter_config.json", "b/adapter_config.json"])


def test_an_adapter_named_by_hand() -> None:
    config = load(
        b"adapters: [{path: adapters/dates, key: dates}, {path: adapters/names}]", "adapterbot.yaml"
    )
    assert for_adapter(config, "./adapters/dates", []).key == "dates"
    assert for_adapter(config, "elsewhere", []).key == "elsewhere"
    assert for_adapter(None, "elsewhere", []).suite == "evals/suite.yaml"


def test_a_folder_whose_name_is_no_text_is_bad_input() -> None:
    """Attack: bytes that no report can hold; the gate took it for a bug of its own."""
    name = b"adapters/\xff".decode(errors="surrogateescape")
    with pytest.raises(InputError, match=r"adapters/\\udcff: has a name that is no text"):
        discover([f"{name}/adapter_config.json"])


def test_two_paths_that_make_one_key_get_two() -> None:
    # The attack: an adapter under another's key, so that no report can hold both.
    paths = [
        "adapters/a",
        "adapters-a",
        "adapters/A",
        "Adapters a",
        "adapters/b",
        "x" * 99,
        "X" * 99,
    ]
    found = with_own_keys(
        [AdapterConfig.model_validate({"path": p}) for p in paths], {"adapters-b"}
    )
    keys = [adapter.key for adapter in found]
    assert [adapter.path for adapter in found] == paths
    assert len({*keys, "adapters-b"}) == len(paths) + 1
    assert keys[0] == "adapters-a", "the first keeps its own"
    assert keys == [adapter.key for adapter in with_own_keys(found, {"adapters-b"})]


@pytest.mark.parametrize("archive", ["runs/dates/*", "runs/dates", "./runs/*/*"])
def test_what_an_archive_holds_is_no_adapter_unless_it_is_listed(archive: str) -> None:
    folders = ["adapters/dates", "runs/dates/first", "runs/dates/last", "runs/dates/last/deeper"]
    files = [f"{folder}/adapter_config.json" for folder in folders]
    text = f"adapters:\n  - path: adapters/dates\n    archive: {archive}\n"
    config = load(text.encode(), "adapterbot.yaml")
    assert adapter_directories(files, config) == ["adapters/dates", "runs/dates/last/deeper"]
    config = load(f"{text}  - path: runs/dates/last\n".encode(), "adapterbot.yaml")
    assert adapter_directories(files, config) == [folders[0], *folders[2:]]
    assert adapter_directories(files) == folders
