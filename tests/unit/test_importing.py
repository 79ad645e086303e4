"""What somebody reads who lacks the packages of an extra."""

from __future__ import annotations

import importlib

import pytest

from adapterbot.errors import OurFailure
from adapterbot.importing import extras


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("bank", "pip install 'adapterbot[bank]'"),
        ("eval,ray", "pip install 'adapterbot[eval,ray]'; `adapterbot doctor` tells more"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(names, told):
    with pytest.raises(OurFailure) as caught, extras(names, "juggling"):
        importlib.import_module("clubs_and_rings")
    assert "packages for juggling do not load: No module named 'clubs_and_rings'" in str(
        caught.value
    )
    assert caught.value.fix == told


def test_a_library_that_does_not_load_is_no_crash_and_a_bug_is_none_of_ours_to_hide():
    with pytest.raises(OurFailure, match="libcuda"), extras("eval", "evaluating"):
        raise OSError("libcuda.so.1: cannot open shared object file")
    with pytest.raises(ValueError, match="ours"), extras("eval", "evaluating"):
        raise ValueError("ours")
