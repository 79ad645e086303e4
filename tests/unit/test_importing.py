"""What a gate imports, and that it imports no more: each second before the first sample is one in
which a GPU waits."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from adapterbot.importing import for_good


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_gate_begins_without_what_few_gates_use():
    rare = {
        "adapterbot.bank",
        "adapterbot.bisect",
        "adapterbot.merge",
        "adapterbot.mole",
        "adapterbot.eval.remote",
        "adapterbot.eval.cluster",
        "github",
        "requests",
        "scipy",
        "torch",
        "transformers",
    }
    code = f"import sys, adapterbot.commands.gate; print(sorted({rare} & set(sys.modules)))"
    assert python(code) == "[]"


def test_what_the_package_of_models_is_told_is_what_it_would_have_read():
    code = """
import transformers
from pathlib import Path
from transformers.utils import import_utils
read = import_utils.define_import_structure
from adapterbot.eval.library import import_library
import_library()
package = str(Path(transformers.__file__).parent / "models" / "__init__.py")
told, so_far = import_utils.define_import_structure(package), read.cache_info().misses
assert told == read(package) and len(told) > 3
assert read.cache_info().misses == so_far + 1, "it was read after all"
other = str(Path(package).parent / "auto" / "__init__.py")
assert import_utils.define_import_structure(other) == read(other)
assert transformers.AutoModelForCausalLM and transformers.models.llama.LlamaConfig
"""
    python(code)


@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_is_left_as_it_was(fails):
    def imports() -> None:
        with for_good():
            assert not gc.isenabled()
            if fails:
                raise ImportError

    if fails:
        with pytest.raises(ImportError):
            imports()
    else:
        imports()
    assert gc.isenabled()
    gc.unfreeze()
