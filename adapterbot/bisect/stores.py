"""Checkpoints in a store that fsspec knows: `s3://…`, `gs://…`, `https://…`, `hf://…`.

Two files of a checkpoint are fetched, by names of ours: what else a store holds, and what it calls
it, never reaches the disk. fsspec and what it needs are imported when a URL is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterbot.bisect.checkpoints import (
    TRAINER_STATE,
    Checkpoint,
    check_count,
    global_step,
    label_of,
    natural,
    numbered,
)
from adapterbot.bisect.fetched import FetchedDirectories
from adapterbot.errors import AdapterbotError, InputError, OurFailure, first_line
from adapterbot.files.tree import TEXT_LIMIT, file_sha256, too_large
from adapterbot.weights.peft_dir import CONFIG_NAME, PICKLE_NAME, WEIGHTS_NAME

_URL = re.compile(r"[a-z][a-z0-9+.-]*://.")
_EXTRAS = {"s3": "s3", "s3a": "s3", "hf": "eval"}


def is_url(text: str) -> bool:
    """Whether a checkpoint is named by a URL."""
    return _URL.match(text) is not None


def find(url: str) -> list[Checkpoint]:
    """The checkpoints at a URL, by the numbers in their names, or else by `trainer_state.json`.

    Args:
        url: of one checkpoint, of the folder that holds them, or a pattern.

    Raises:
        InputError: there is none, or a name is not one that we would show.
        OurFailure: the store does not answer, or the package for it is missing.
    """
    with _asking(url) as (store, root):
        patterns = (f"{root}/{CONFIG_NAME}", f"{root}/*/{CONFIG_NAME}")
        found: list[str] = next(filter(None, map(store.glob, patterns)), [])
        paths = [_sound(url, name.removesuffix(f"/{CONFIG_NAME}")) for name in found]
        if not paths:
            raise InputError(
                "holds no adapter directory",
                file=url,
                field="checkpoints",
                fix="name checkpoints, the folder that holds them, or a pattern such as s3://b/run/*",
            )
        if len(paths) > 1:
            check_count(paths, url)
        paths.sort(key=natural)
        steps: dict[str, int | None] = {}
        if not all(numbered(label_of(path)) for path in paths):
            steps = {path: _step(store, path) for path in paths}
            if all(step is not None for step in steps.values()):
                paths.sort(key=lambda path: steps[path] or 0)
        return [
            Checkpoint(
                path=str(store.unstrip_protocol(path)), label=label_of(path), step=steps.get(path)
            )
            for path in paths
        ]


@contextmanager
def opened(checkpoint: Checkpoint, cache: FetchedDirectories) -> Iterator[Path]:
    """A checkpoint's two files on disk, fetched unless the same content is there already.

    Raises:
        InputError: a file is missing, is a pickle, or is larger than we keep.
        OurFailure: the store does not answer.
    """
    url = checkpoint.path
    with _asking(url) as (store, path):
        store.invalidate_cache(path)  # what a listing said an hour ago
        infos = {name: _info(store, url, path, name) for name in (CONFIG_NAME, WEIGHTS_NAME)}
        limits = {CONFIG_NAME: TEXT_LIMIT, WEIGHTS_NAME: cache.limit}
        for name, info in infos.items():
            if (info.get("size") or 0) > limits[name]:
                raise too_large(f"{url}/{name}", info["size"], limits[name])
        key = json.dumps([url, {name: _identity(info) for name, info in infos.items()}])

    def fill(folder: Path) -> None:
        with _asking(url) as (store, path):
            for name, info in infos.items():
                bound = _within(limits[name], f"{url}/{name}", info)
                store.get_file(f"{path}/{name}", str(folder / name), **bound)
                _check(folder / name, f"{url}/{name}", info, limits[name])

    with cache.opened(key, fill) as folder:
        yield folder


@contextmanager
def _asking(url: str) -> Iterator[tuple[Any, str]]:
    """The store of a URL and the path in it."""
    scheme, _, rest = url.partition("://")
    if scheme != "hf" and "@" in rest.partition("/")[0]:
        # The URL is shown, in comments too.
        raise InputError(
            "holds a user or a password",
            file=f"{scheme}://…",
            field="checkpoints",
            fix="give credentials in the environment",
        )
    with translated(url):
        import fsspec

        store, root = fsspec.url_to_fs(url)
        yield store, str(root).rstrip("/")


@contextmanager
def translated(url: str) -> Iterator[None]:
    """What a store's library raises inside, as an error of ours.

    Raises:
        InputError: it is not there.
        OurFailure: anything else.
    """
    try:
        yield
    except AdapterbotError:
        raise
    except ImportError as error:
        extra = _EXTRAS.get(url.partition("://")[0])
        raise OurFailure(
            "needs a package that is not installed",
            file=url,
            fix=f"pip install 'adapterbot[{extra}]'" if extra else str(error)[:200],
        ) from error
    except FileNotFoundError as error:
        raise InputError(
            "does not exist, or we may not see it", file=url, field="checkpoints", fix="correct it"
        ) from error
    except Exception as error:  # each store's library raises what it likes
        raise OurFailure(
            f"could not be read: {first_line(error)[:200]}",
            file=url,
            fix="check the URL, the network, and the credentials in the environment",
        ) from error


def _sound(url: str, path: str) -> str:
    if ".." in path.split("/") or any(ord(character) < 32 for character in path):
        raise InputError(
            f"holds a checkpoint with a name that we do not use: {path[-200:]!r}",
            file=url,
            field="checkpoints",
            fix="rename it",
        )
    return path


def _step(store: Any, path: str) -> int | None:
    state = f"{path}/{TRAINER_STATE}"
    if not store.exists(state):
        return None
    size = store.info(state).get("size") or 0
    if size > TEXT_LIMIT:
        raise too_large(state, size, TEXT_LIMIT)
    return global_step(store.cat_file(state), state)


def _info(store: Any, url: str, path: str, name: str) -> Mapping[str, Any]:
    if name == WEIGHTS_NAME and not store.exists(f"{path}/{name}"):
        pickled = store.exists(f"{path}/{PICKLE_NAME}")
        raise InputError(
            "holds its weights as a pickle, which can run code when it is loaded"
            if pickled
            else f"holds no {WEIGHTS_NAME}",
            file=url,
            fix="re-save it with `save_pretrained(..., safe_serialization=True)`",
        )
    found: Mapping[str, Any] = store.info(f"{path}/{name}")
    return found


def _identity(info: Mapping[str, Any]) -> str:
    """What changes when the content does: Git's name of it where there is one, else all that the
    store says of the file (its time, its size, its tag)."""
    return str(info.get("blob_id") or sorted((str(key), str(info[key])) for key in info))


def _within(limit: int, shown: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """What stops a store that sends more than it announced, before the disk is full."""
    from fsspec.callbacks import Callback

    if "blob_id" in info:
        return {}  # the Hub's client knows the size, and is fast only if nobody watches

    def stop(_: int | None, received: int, **__: object) -> None:
        if received > limit:
            raise too_large(shown, received, limit)

    return {"callback": Callback(hooks={"limit": stop})}


def _check(file: Path, shown: str, info: Mapping[str, Any], limit: int) -> None:
    """Whether what came is what was announced."""
    size, announced = file.stat().st_size, info.get("size")
    if size > limit:
        raise too_large(shown, size, limit)
    if announced is not None and size != announced:
        raise OurFailure(
            f"is {size:,} bytes where {announced:,} were announced", file=shown, fix="try again"
        )
    sha256 = getattr(info.get("lfs"), "sha256", None)
    if sha256 is not None and file_sha256(file) != sha256:
        raise OurFailure("is not what the Hub says it is", file=shown, fix="try again")
