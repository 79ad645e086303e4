"""`adapterbot bank fit`: users' rows of text in, users' vectors in the bank."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterbot.commands.bank_opened import opened_to_write
from adapterbot.commands.base_option import nameable, refuse_another
from adapterbot.conversations import Example, encode, messages_of
from adapterbot.errors import InputError
from adapterbot.eval.settings import engine_settings
from adapterbot.files import jsonl
from adapterbot.importing import extras
from adapterbot.records import Line, Record
from adapterbot.records.base import Count, Finite

if TYPE_CHECKING:
    from adapterbot.bank.fit import Fit
    from adapterbot.bank.plan import Plan
    from adapterbot.bank.writer import BankWriter

STATE = "fit-state.safetensors"
ROW_BYTES = 16 * 1024 * 1024


class FittedUser(Record):
    """One user: the held-out loss of the base, and the best one, at that step."""

    user: Line
    base_loss: Finite
    loss: Finite
    step: Count


class Fitted(Record):
    """What a run did. `skipped` users were fitted on this data by an earlier run."""

    path: Line
    fitted: tuple[FittedUser, ...]
    skipped: Count


def fit(
    path: Path,
    users: Path,
    *,
    plan: Plan,
    base: str | None = None,
    device: str | None = None,
    replace: bool = False,
    tell: Callable[[FittedUser, int, int], None] = lambda *_: None,
) -> Fitted:
    """Fits users' vectors over the bank's base model, and adds each when it is done.

    Args:
        users: a JSONL file whose rows name a `user`, or a folder of `USER.jsonl` files.
        base: where the base model lies, when not where the bank says.
        replace: whether users whose row came from elsewhere get a new one.
        tell: is told of every user who is done, and of how many are.

    Raises:
        InputError: a row cannot be learnt from, none is to be held out, or the bank is of another
            model or does not fit.
        OurFailure: what it takes is not installed, or the device's memory ended.
    """
    if plan.held_out <= 0:
        raise InputError(
            f"cannot be {plan.held_out:g}: the rows that are held out say when a user is done",
            field="--held-out",
            fix="use a share such as 0.2; a small one holds out one row",
        )
    settings = engine_settings(None, device=device)
    texts = read_users(users)
    with opened_to_write(path) as bank:
        if base:
            refuse_another(base, bank.manifest.base_model, bank=path)
        with extras("bank,eval", "fitting"):
            from adapterbot.bank import fit as fitting
            from adapterbot.bank import shared
            from adapterbot.bank.plan import plan_key
            from adapterbot.eval.base_model import load_base
            from adapterbot.weights import memory
        with nameable(base):
            model = load_base(base or bank.manifest.base_model, settings)
        key = plan_key(plan, [model.digest, bank.manifest.shared.digest])
        marks = {user: _mark(key, rows) for user, rows in texts.items()}
        wanted = _wanted(bank, marks, replace=replace)
        data = {
            user: [_encoded(model, row, user, number) for number, row in enumerate(texts[user], 1)]
            for user in wanted
        }
        tensors = shared.load(path, bank.manifest)
        done: list[FittedUser] = []
        enough = memory.fitting(
            "as many users do not fit into the device's memory",
            field="--at-once",
            fix="fit fewer at once; who is done stays done",
        )
        made = fitting.Fitter(model.model, bank.manifest.layout, tensors, plan, model.pad)
        with enough, made as fitter:
            for ended in fitting.run(fitter, data, plan, path / STATE, key):
                for one in ended:
                    done.append(_keep(bank, one, marks[one.user]))
                    tell(done[-1], len(done), len(data))
    return Fitted(path=str(path), fitted=tuple(done), skipped=len(texts) - len(wanted))


def _keep(bank: BankWriter, one: Fit, mark: str) -> FittedUser:
    from adapterbot.bank.codec import plain

    bank.add([one.user], plain(one.best[None].numpy()), source=mark, replace=True)
    found = FittedUser(
        user=one.user, base_loss=one.base_loss, loss=one.best_loss, step=one.best_step
    )
    bank.set_scores(one.user, {"held_out_loss": found.loss, "base_held_out_loss": found.base_loss})
    return found


def _wanted(bank: BankWriter, marks: Mapping[str, str], *, replace: bool) -> list[str]:
    """Users who were not fitted by this plan on this data yet."""
    wanted = []
    for user, mark in marks.items():
        source = bank.entry(user).source if user in bank else None
        if source == mark:
            continue
        if source is not None and not replace:
            raise InputError(
                "is in the bank already, from other data or another plan",
                field=user[:80],
                fix="use --replace, or leave the user out",
            )
        wanted.append(user)
    return wanted


def _mark(key: str, rows: Sequence[Mapping[str, Any]]) -> str:
    whole = hashlib.sha256(key.encode())
    for row in rows:
        whole.update(json.dumps(row, sort_keys=True).encode())
    return f"fit {whole.hexdigest()[:32]}"


def read_users(place: Path) -> dict[str, list[dict[str, Any]]]:
    """Each user's rows, in the order of the files.

    Raises:
        InputError: there are none, or a line is no row.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    if place.is_dir():
        for file in sorted(place.glob("*.jsonl")):
            rows = [row for _, row in _rows(file)]
            if rows:
                found[file.stem] = rows
    elif not place.exists():
        raise InputError(
            "does not exist", file=str(place), fix="name a JSONL file, or a folder of them"
        )
    else:
        for number, row in _rows(place):
            user = row.pop("user", None)
            if not isinstance(user, str):
                raise InputError(
                    "names no user", file=str(place), field=f"line {number}", fix="add `user`"
                )
            found.setdefault(user, []).append(row)
    if not found:
        raise InputError(
            "holds no user's rows", file=str(place), fix="name a JSONL file, or a folder of them"
        )
    return found


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as stream:
        shape = '{"prompt": …, "expected": …}'
        yield from jsonl.objects(str(file), stream, limit=ROW_BYTES, shape=shape)


def _encoded(base: Any, row: Mapping[str, Any], user: str, number: int) -> Example:
    """A row as tokens: `prompt` and `expected` as they are, or a chat through its template."""
    prompt, answer = row.get("prompt"), row.get("expected", row.get("completion"))
    if isinstance(prompt, str) and isinstance(answer, str):
        read = tuple(base.tokenizer(prompt)["input_ids"])
        learnt = tuple(base.tokenizer(answer, add_special_tokens=False)["input_ids"])
        # What serving stops at is learnt with the answer.
        example = Example(read, (*learnt, *sorted(base.eos)[:1]))
    else:
        messages = messages_of(row, file=f"rows of {user[:80]}", line=number)
        place = f"row {number} of {user[:80]}"
        example = encode(base.tokenizer, messages, name=base.name, row=place)
    room = base.context or example.length
    if not example.prompt or not example.answer or example.length > room:
        raise InputError(
            f"has a prompt of {len(example.prompt)} and an answer of {len(example.answer)} tokens;"
            f" the model takes {base.context} together, and at least one of each",
            file=f"rows of {user[:80]}",
            field=f"row {number}",
            fix="shorten it, or leave it out",
        )
    return example
