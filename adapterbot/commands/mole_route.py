"""`adapterbot mole route`: which experts each token of a text used."""

from __future__ import annotations

from pathlib import Path

from adapterbot.commands.base_option import nameable
from adapterbot.commands.mole_base import base_beside, load
from adapterbot.errors import InputError
from adapterbot.mole.artifact import read_mixture_dir
from adapterbot.records.routes import Routes, TokenRoute


def route(
    directory: Path, base: str | None, text: str, *, max_tokens: int, device: str | None
) -> Routes:
    """The experts that each token of `text`, asked as serving asks it, and of the answer used.

    Raises:
        InputError: the directory is no mixture, or does not fit the base.
    """
    files = read_mixture_dir(directory)
    with nameable(base):
        loaded = load(base or base_beside(files.path, files.manifest.base_model), device)

    import torch

    tokenizer = loaded.tokenizer
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    if not ids.numel():
        raise InputError("has no token", field="text", fix="write a prompt")
    ids = ids.to(loaded.device)
    with files.attach(loaded.model) as mixture:
        whole = ids
        if max_tokens:
            with torch.inference_mode():
                whole = loaded.model.generate(
                    ids, max_new_tokens=max_tokens, do_sample=False, pad_token_id=loaded.pad
                )
        shares = mixture.route(whole)[:, 0].transpose(0, 1).tolist()
        names, layers = mixture.names, mixture.numbers
    return Routes(
        experts=names,
        layers=layers,
        tokens=tuple(
            TokenRoute(
                token=tokenizer.decode([token]),
                written=at >= ids.shape[1],
                weights=tuple(map(tuple, weights)),
            )
            for at, (token, weights) in enumerate(zip(whole[0].tolist(), shares, strict=True))
        ),
    )
