"""soup-env.lock: Soup's layout and hash, what is installed, three kinds of lock files."""

from __future__ import annotations

import hashlib
import json
import textwrap
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.lock import env_installed, env_sources, environment
from adapterbot.lock.environment import EnvLock, Package
from tests.programs import python

SHA = "0123456789abcdef" * 4
BASE = EnvLock("none", "3.12.1", "linux-x86_64", "13.0", (Package("torch", "2.13.0"),), "now")


def changes(old: EnvLock, new: EnvLock) -> tuple[str, ...]:
    return environment.explain(environment.facts(old), environment.facts(new))


def read(name: str, text: str) -> EnvLock:
    return env_sources.from_lock_file(textwrap.dedent(text).encode(), name, "now")


def pairs(lock: EnvLock) -> list[tuple[str, str, str]]:
    return [(entry.name, entry.version, entry.source) for entry in lock.entries]


# ---------------------------------------------------------------- what is installed


def test_every_installed_distribution_is_there_and_twice_is_the_same() -> None:
    found = env_installed.installed("now")
    versions = {entry.name: entry.version for entry in found.entries if entry.source == "pip"}
    for name in ("pydantic", "numpy", "pyyaml", "torch"):
        assert versions[name] == metadata.version(name)
    assert len(versions) == len({entry.name for entry in found.entries})
    again = env_installed.installed("later")
    assert environment.env_hash(again) == environment.env_hash(found)
    assert environment.loads(environment.dumps(found).encode(), "x") == found


def installed_in(site: Path) -> EnvLock:
    """What a Python finds whose packages are those of one folder."""
    code = (
        "import sys\nfrom adapterbot.lock import env_installed, environment\n"
        # The library stays: from Python 3.13 on, importlib.metadata imports some of it late.
        "sys.path[:] = [sys.argv[1], *(p for p in sys.path if not p.endswith('site-packages'))]\n"
        "print(environment.dumps(env_installed.installed('now')))\n"
    )
    done = python("-c", code, site, check=True)
    return environment.loads(done.stdout.encode(), "x")


def distribution(
    site: Path, name: str, version: str, direct: object = None, *, record: str | None = None
) -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if direct is not None:
        (folder / "direct_url.json").write_text(json.dumps(direct))
    if record is not None:
        (folder / "RECORD").write_text(record)


def test_wheel_hashes_commits_and_the_build_of_torch_are_recorded(tmp_path: Path) -> None:
    """In site-packages of our own making, since this environment need not hold any of them."""
    distribution(
        tmp_path, "From.Wheel", "1.0", {"url": "u", "archive_info": {"hashes": {"sha256": SHA}}}
    )
    distribution(
        tmp_path, "old_style", "1.0", {"url": "u", "archive_info": {"hash": f"sha256={SHA}"}}
    )
    distribution(
        tmp_path, "from-git", "1.0", {"url": "u", "vcs_info": {"vcs": "git", "commit_id": "abc1"}}
    )
    distribution(tmp_path, "edited", "1.0", {"url": "file:///x", "dir_info": {"editable": True}})
    distribution(tmp_path, "torch", "2.13.0+cu130")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(
        "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\ngit_version = 'feedbeef'\n"
    )
    found = installed_in(tmp_path)
    assert pairs(found) == [
        ("edited", "editable", "wheel"),
        ("edited", "1.0", "pip"),
        ("from-git", "git:abc1", "wheel"),
        ("from-git", "1.0", "pip"),
        ("from-wheel", f"sha256:{SHA}", "wheel"),
        ("from-wheel", "1.0", "pip"),
        ("old-style", f"sha256:{SHA}", "wheel"),
        ("old-style", "1.0", "pip"),
        ("torch", "git:feedbeef", "wheel"),
        ("torch", "2.13.0+cu130", "pip"),
    ]
    assert found.cuda_version == "13.0"


def test_a_package_of_this_machine_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    """A library changed in a folder, built and installed under the version that it had."""

    def wheel_of(content: str, interpreter: str) -> str:
        site = tmp_path / f"{content}{interpreter}"
        site.mkdir()
        record = (
            f"mine/__init__.py,sha256={content},1\nmine-1.0.dist-info/METADATA,sha256=x,1\n"
            f"../../bin/mine,sha256={interpreter},1\nmine-1.0.dist-info/RECORD,,\n"
        )
        distribution(site, "mine", "1.0", {"url": "file:///x", "dir_info": {}}, record=record)
        (origin, version) = pairs(installed_in(site))
        assert version == ("mine", "1.0", "pip")
        assert origin[2] == "wheel"
        return origin[1]

    assert wheel_of("a", "here") == wheel_of("a", "there")
    assert wheel_of("b", "here") != wheel_of("a", "everywhere")


def test_two_versions_in_one_folder_are_both_said_but_no_rest_of_an_old_one(
    tmp_path: Path,
) -> None:
    """In which order a folder lists them is its own affair; pip passes over what it left."""
    for version in ("1.0", "2.0", "3.0"):
        distribution(tmp_path, "torn", version)
    distribution(tmp_path, "whole", "2.0")
    (tmp_path / "torn-3.0.dist-info").rename(tmp_path / "~orn-3.0.dist-info")
    assert pairs(installed_in(tmp_path)) == [
        ("torn", "1.0", "pip"),
        ("torn", "2.0", "pip"),
        ("whole", "2.0", "pip"),
    ]


# ---------------------------------------------------------------- project lock files

_PYLOCK = "lock-version = '1.0'\n[[packages]]\nname = 'a'\nversion = '1'\n"
_UV = "version = 1\n[[package]]\nname = 'a'\nversion = '1'\n"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        *(
            ("r.txt", f"a==1 --hash={kind}:{'1' * size}", f"a==1 --hash={kind}:{'2' * size}")
            for kind, size in (("sha384", 96), ("sha512", 128))
        ),
        ("r.txt", f"a==1 --hash=sha256:{'A' * 64}", f"a==1 --hash=sha256:{'B' * 64}"),
        (
            "pylock.toml",
            f"{_PYLOCK}wheels = [{{hashes = {{sha512 = '{'1' * 128}'}}}}]",
            f"{_PYLOCK}wheels = [{{hashes = {{sha512 = '{'2' * 128}'}}}}]",
        ),
        # Another version is installed, and none has changed.
        (
            "r.txt",
            "a==1; python_version < '3.12'\na==2; python_version >= '3.12'",
            "a==2; python_version < '3.12'\na==1; python_version >= '3.12'",
        ),
        ("pylock.toml", f"{_PYLOCK}marker = 'a'", f"{_PYLOCK}marker = 'b'"),
        ("uv.lock", f"{_UV}resolution-markers = ['a']", f"{_UV}resolution-markers = ['b']"),
        # Where no hash decides, the same version is another build.
        ("r.txt", "-i https://x/cu118\na==1", "-i https://x/cu121\na==1"),
        ("r.txt", "--no-binary=:all:\na==1", "a==1"),
    ],
)
def test_a_lock_file_that_installs_something_else_says_so(
    name: str, before: str, after: str
) -> None:
    (change,) = changes(read(name, before), read(name, after))
    assert change.startswith("a (wheel) ")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"a==1 --hash=sha256:{'A' * 64}", f"a==1 --hash=sha256:{'a' * 64}"),
        (f"-i https://x/\na==1 --hash=sha256:{SHA}", f"a==1 --hash=sha256:{SHA}"),
        ("-i https://me:secret@x/y\na==1", "--index-url=https://x/y\na==1"),
        ("a==1; python_version < '3'", 'a==1 ;  python_version  <  "3"'),
        (f"-i https://x/\na @ git+https://x/a@{'1' * 40}", f"a @ git+https://x/a@{'1' * 40}"),
        ("a==1", "--trusted-host x\na==1\r\n"),
    ],
)
def test_a_lock_file_that_installs_the_same_is_no_drift(before: str, after: str) -> None:
    assert changes(read("r.txt", before), read("r.txt", after)) == ()


def test_the_hash_is_that_of_soups_canonical_text() -> None:
    entries = (Package("b", "1"), Package("a", "é", "wheel"), Package("a", "2", "conda"))
    lock = EnvLock("0.7", "3.11", "linux", None, entries, "now")
    canonical = (
        '{"cuda_version":null,"entries":[{"name":"a","source":"conda","version":"2"},'
        '{"name":"a","source":"wheel","version":"é"},{"name":"b","source":"pip","version":"1"}],'
        '"platform":"linux","python_version":"3.11","soup_version":"0.7"}'
    )
    assert environment.env_hash(lock) == hashlib.sha256(canonical.encode()).hexdigest()
    assert list(json.loads(environment.dumps(lock))) == [
        *("schema_version", "soup_version", "python_version", "platform"),
        *("cuda_version", "entries", "created_at"),
    ]


def test_uv_lock_gives_its_packages() -> None:
    found = read(
        "uv.lock",
        f"""
        version = 1
        requires-python = ">=3.11"
        [[package]]
        name = "project"
        version = "0.1.0"
        source = {{ editable = "." }}
        [[package]]
        name = "torch"
        version = "2.13.0+cu130"
        source = {{ registry = "https://example.org" }}
        sdist = {{ url = "u", hash = "sha256:{SHA}", size = 1 }}
        wheels = [{{ url = "w", hash = "sha256:{SHA[::-1]}", size = 1 }}]
        [[package]]
        name = "mine"
        version = "1.0"
        source = {{ git = "https://example.org/mine?rev=main#abc123" }}
        """,
    )
    names = [entry.name for entry in found.entries]
    assert names == ["mine", "mine", "torch", "torch"]
    assert ("mine", "git:abc123", "wheel") in pairs(found)
    assert (found.python_version, found.platform, found.cuda_version) == (">=3.11", "any", "130")
    assert found.made_from.file == "uv.lock"


def test_pylock_toml_gives_its_packages() -> None:
    found = read(
        "pylock.toml",
        f"""
        lock-version = "1.0"
        requires-python = ">=3.12"
        created-by = "x"
        [[packages]]
        name = "Attrs"
        version = "25.1.0"
        wheels = [{{ name = "a.whl", url = "u", hashes = {{ sha256 = "{SHA}" }} }}]
        [[packages]]
        name = "here"
        directory = {{ path = "." }}
        [[packages]]
        name = "tool"
        vcs = {{ type = "git", url = "u", commit-id = "beef" }}
        """,
    )
    assert pairs(found) == [
        ("attrs", f"sha256:{SHA}", "wheel"),
        ("attrs", "25.1.0", "pip"),
        ("tool", "git:beef", "wheel"),
        ("tool", "unversioned", "pip"),
    ]


def test_requirements_txt_gives_its_packages() -> None:
    found = read(
        "requirements.txt",
        f"""
        # made by a compiler
        --index-url https://example.org/simple
        numpy[extra]==2.1.0 ; python_version >= "3.11" \\
            --hash=sha256:{SHA} \\
            --hash=sha256:{SHA[::-1]}
        Some_Package==1.0  # why
        direct @ https://example.org/direct.whl --hash=sha256:{SHA}
        """,
    )
    assert ("some-package", "1.0", "pip") in pairs(found)
    assert ("direct", "https://example.org/direct.whl", "pip") in pairs(found)
    assert next(version for name, version, _ in pairs(found) if name == "numpy").startswith(
        "2 files, sha256:"
    )


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("uv.lock", "[[package]\n", "is not TOML"),
        ("uv.lock", "version = 1\n", r"\[\[package\]\]: is missing"),
        ("uv.lock", "[[package]]\nversion = '1'\n", "has no name"),
        ("pylock.toml", "packages = 3\n", r"\[\[packages\]\]: is missing"),
        ("requirements.txt", "numpy>=2\n", "line 1: is not pinned"),
        ("requirements.txt", "numpy==2.*\n", "line 1: is not pinned"),
        ("requirements.txt", "\n-r other.txt\n", "line 2: names what is not in this file"),
        ("requirements.txt", "a==1\n-cother.txt\n", "line 2: names what is not in this file"),
        ("requirements.txt", "a==1\n--req other.txt\n", "line 2: names what is not in this file"),
        # A comment ends a line, and the hash behind it is nobody's.
        ("requirements.txt", f"a==1 \\\n # x\n --hash=sha256:{SHA}", "line 3: names what is not"),
        ("requirements.txt", "a @ git+https://x/a@main\n", "line 1: is not pinned"),
        ("requirements.txt", "# nothing\n", "pins no package"),
        ("poetry.lock", "", "is not a lock file that we read"),
    ],
)
def test_a_lock_file_that_pins_nothing_for_sure(name: str, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        env_sources.from_lock_file(text.encode(), name, "now")


@given(st.permutations(["a==1 --hash=sha256:" + SHA, "b==2", "c==3", "d==4"]))
def test_the_order_of_a_lock_file_is_no_drift(lines: list[str]) -> None:
    hashed = {
        environment.env_hash(env_sources.from_lock_file("\n".join(text).encode(), "r.txt", "now"))
        for text in (lines, sorted(lines))
    }
    assert len(hashed) == 1


# ---------------------------------------------------------------- the file and its explanation


def test_a_change_is_told_by_package() -> None:
    wheel = Package("torch", f"sha256:{SHA}", "wheel")
    old = replace(BASE, entries=(*BASE.entries, wheel, Package("transformers", "5.22.0")))
    new = replace(old, entries=(*old.entries[:2], Package("transformers", "5.23.0")))
    assert changes(old, new) == ("transformers 5.22.0 → 5.23.0",)
    assert changes(old, replace(old, python_version="3.13.0")) == ("Python 3.12.1 → 3.13.0",)
    assert changes(old, replace(old, cuda_version=None)) == ("CUDA 13.0 → none",)
    rebuilt = (old.entries[0], replace(wheel, version=f"sha256:{SHA[::-1]}"), old.entries[2])
    (one,) = changes(old, replace(old, entries=rebuilt))
    assert one.startswith("torch (wheel) sha256:0123")
    upgraded = (Package("torch", "2.14.0"), rebuilt[1], old.entries[2])
    assert changes(old, replace(old, entries=upgraded)) == ("torch 2.13.0 → 2.14.0",)
    assert changes(old, replace(old, entries=old.entries[:2])) == ("transformers 5.22.0 → absent",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": "2"}, "schema_version: is of a later version"),
        ({"platform": ""}, "platform: is empty"),
        ({"python_version": 3}, "python_version: must be text"),
        ({"cuda_version": "x" * 65}, "cuda_version: is longer than 64"),
        ({"entries": {}}, "entries: must be a list"),
        ({"entries": [{"name": "a", "version": "1"}] * 4097}, "at most 4,096"),
        ({"entries": ["a"]}, r"entries\[0\]: must be an object"),
        ({"entries": [{"name": "a"}]}, r"entries\[0\].version: must be text"),
        ({"entries": [{"name": "a", "version": "1", "source": "x"}]}, r"entries\[0\].source"),
        ({"entries": [{"name": "a\n", "version": "1"}]}, "control character"),
        ({"made_from": {"file": "uv.lock", "sha256": "F" * 64}}, "made_from.sha256: must be 64"),
        ({"made_from": 1}, "made_from.file: must be text"),
        ({"cuda_version": "\ud800"}, "cuda_version: holds half of a surrogate pair"),
    ],
)
def test_a_broken_environment_names_its_field(change: dict[str, object], says: str) -> None:
    content = {**json.loads(environment.dumps(BASE)), **change}
    with pytest.raises(InputError, match=says):
        environment.loads(json.dumps(content).encode(), "soup-env.lock")


def test_a_requirement_of_a_million_spaces_is_read() -> None:
    """Attack: a pattern that tries every way to share them out is at it for days."""
    with pytest.raises(InputError, match="line 1: is not pinned"):
        read("requirements.txt", f"a{' ' * 1_000_000}!")
    assert pairs(read("requirements.txt", f"a{' ' * 1_000_000}== 1")) == [("a", "1", "pip")]


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000])
def test_numbers_and_nesting_without_end_are_bad_input(value: str) -> None:
    """Attack: what tomllib answers with an error that is none of its own."""
    with pytest.raises(InputError, match=r"uv\.lock: is not TOML"):
        read("uv.lock", f"a = {value}")
