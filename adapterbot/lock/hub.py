"""Digests of a base model on the Hub, from its file metadata: the weights are not downloaded.

Files in LFS come with their SHA-256; the few small ones beside them (config, tokenizer) are
fetched once and hashed, so that the result equals the digest of the same files on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from adapterbot.errors import InputError, OurFailure
from adapterbot.lock.training import TrainingConfig


def hub_files(training: TrainingConfig, wanted: Callable[[str], bool]) -> dict[str, str]:
    """Path → SHA-256 of every file of `base` that is `wanted`.

    Args:
        training: its `base` is `org/name` or `org/name@revision`.

    Raises:
        InputError: the Hub has no such model or revision, or we may not see it.
        OurFailure: the Hub did not answer, or its client is not installed.
    """
    name, _, revision = training.base.partition("@")
    where = f"base (line {training.base_line})"
    try:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise OurFailure(
            f"{training.base!r} is a model of the Hub, whose client is not installed",
            file=training.path,
            field=where,
            fix="pip install 'adapterbot[eval]'",
        ) from error
    try:
        info = HfApi().model_info(name, revision=revision or None, files_metadata=True)
        found: dict[str, str] = {}
        for file in info.siblings or ():
            if not wanted(file.rfilename):
                continue
            if file.lfs is not None:
                found[file.rfilename] = file.lfs.sha256
            else:
                local = hf_hub_download(name, file.rfilename, revision=info.sha)
                found[file.rfilename] = hashlib.sha256(Path(local).read_bytes()).hexdigest()
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise InputError(
            f"{training.base!r} is neither a folder here nor a model that the Hub shows us",
            file=training.path,
            field=where,
            fix="correct the name, or set HF_TOKEN for a private model",
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise OurFailure(
            f"the Hub did not answer for {training.base!r}: {type(error).__name__}",
            file=training.path,
            field=where,
            fix="check the network, or set HF_ENDPOINT",
        ) from error
    if "config.json" not in found:
        raise InputError(
            f"{training.base!r} holds no config.json",
            file=training.path,
            field=where,
            fix="name a transformers model",
        )
    return found
