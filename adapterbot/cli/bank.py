"""`adapterbot bank …`: options in, results out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Device, Json, a_number, base_option, refuse_typed
from adapterbot.cli.output import document, leave, line, say
from adapterbot.errors import ExitCode

if TYPE_CHECKING:
    from adapterbot.records import Record

bank_app = typer.Typer(help="The vector bank: thousands of users' vectors over one base model.")
app.add_typer(bank_app, name="bank", no_args_is_help=True)

Bank = Annotated[Path, typer.Argument(help="The bank's directory.")]
Dtype = Annotated[
    Literal["fp32", "fp16", "bf16", "int8"],
    typer.Option(help="How rows are kept; int8 has a scale for each vector."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite users that are there already.")]


def show(record: Record, as_json: bool) -> None:
    """A result of a bank's, for people or as JSON."""
    if as_json:
        document(record.model_dump_json(indent=2))
        return
    for name, value in record.model_dump(exclude_none=True).items():
        shown = f"{value:,}" if isinstance(value, int) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {number:.4g}" for key, number in value.items())
        label = type(record).model_fields[name].title or name.replace("_", " ")
        line(f"{label:<16}{shown}")


@bank_app.command("create")
def bank_create(
    context: typer.Context,
    bank: Bank,
    base: Annotated[str, typer.Option(help="Base model: a directory, or its name on the Hub.")],
    targets: Annotated[
        str, typer.Option(help="Modules to adapt, comma-separated, or all-linear.")
    ] = "q_proj,v_proj",
    rank: Annotated[int, typer.Option(min=1, max=2**16, help="VeRA's rank.")] = 256,
    dimension: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**14,
            help="Make a bank of Soup's kind instead: one vector of this length per user.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed of the shared projections.")
    ] = 0,
    store_shared: Annotated[
        bool, typer.Option("--store-shared", help="Store the shared projections in the bank, too.")
    ] = False,
    dtype: Dtype = "fp32",
    name: Annotated[
        str | None, typer.Option(help="The bank's name.", show_default="its directory's name")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an empty bank for a base model.

    ```console
    adapterbot bank create users --base ./base --rank 256 --targets q_proj,v_proj
    ```
    """
    from adapterbot.commands import bank as command

    if dimension is not None:
        problem = "for VeRA's kind of bank, and --dimension makes Soup's"
        refuse_typed(context, {"rank", "targets"}, problem, "leave out the one or the other")
    made = command.create(
        bank,
        base=base,
        targets=tuple(part.strip() for part in targets.split(",") if part.strip()),
        rank=rank,
        dimension=dimension,
        seed=seed,
        store_shared=store_shared,
        dtype=dtype,
        name=name,
    )
    show(made, as_json)


@bank_app.command("add")
def bank_add(
    bank: Bank,
    file: Annotated[Path, typer.Argument(help='JSONL: {"user": …, "vector": […]} a line.')],
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Add users from vectors in a file.

    ```console
    adapterbot bank add users vectors.jsonl
    ```
    """
    from adapterbot.commands import bank as command

    show(command.add(bank, file, replace=replace), as_json)


@bank_app.command("remove")
def bank_remove(
    bank: Bank,
    users: Annotated[list[str], typer.Argument(help="Users, all or none of whom are removed.")],
    as_json: Json = False,
) -> None:
    """Remove users, with their scores and API keys.

    ```console
    adapterbot bank remove users user_1 user_2
    ```
    """
    from adapterbot.commands import bank as command

    show(command.remove(bank, users), as_json)


@bank_app.command("show")
def bank_show(
    bank: Bank,
    user: Annotated[str | None, typer.Argument(help="One user of it.")] = None,
    as_json: Json = False,
) -> None:
    """Describe a bank and its size, or one user of it.

    ```console
    adapterbot bank show users user_1
    ```
    """
    from adapterbot.commands import bank_show as command

    show(command.show(bank) if user is None else command.show_user(bank, user), as_json)


@bank_app.command("list")
def bank_list(
    bank: Bank,
    prefix: Annotated[str, typer.Option(help="Only users whose names start with this.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Show at most this many.")] = None,
    as_json: Json = False,
) -> None:
    """List the users of a bank, in byte order.

    ```console
    adapterbot bank list users --prefix team- --limit 20
    ```
    """
    import json

    from adapterbot.commands import bank_show as command

    found = command.users(bank, prefix, limit)
    if as_json:
        document(json.dumps({"users": list(found)}, indent=2))
        return
    for user in found:
        line(user)


@bank_app.command("size")
def bank_size(
    context: typer.Context,
    users: Annotated[int, typer.Option(min=0, max=10**9, help="How many users.")],
    bank: Annotated[Path | None, typer.Argument(help="A bank of the kind that is meant.")] = None,
    dimension: Annotated[
        int | None,
        typer.Option(min=1, max=2**14, help="Without a bank: one vector of this length."),
    ] = None,
    dtype: Dtype = "fp32",
    as_json: Json = False,
) -> None:
    """Estimate the size of a bank in bytes.

    ```console
    adapterbot bank size --users 100000 --dimension 128
    ```
    """
    from adapterbot.commands import bank_show as command

    if bank is not None:
        refuse_typed(context, {"dtype"}, "is the bank's own", "leave one out")
    show(command.size(users, path=bank, dimension=dimension, dtype=dtype), as_json)


@bank_app.command("verify")
def bank_verify(bank: Bank, as_json: Json = False) -> None:
    """Check every row and record of a bank against its digest.

    ```console
    adapterbot bank verify users
    ```

    Exit codes: 0 sound, 1 we failed, 2 not a bank, 3 damaged.
    """
    from adapterbot.commands import bank as command

    found = command.verify(bank)
    if as_json:
        document(found.model_dump_json(indent=2))
    else:
        for finding in found.findings:
            line(finding)
        say("damaged: restore it from a backup" if found.findings else "sound")
    leave(ExitCode.FINDING if found.findings else ExitCode.CLEAN)


@bank_app.command("compact")
def bank_compact(bank: Bank, as_json: Json = False) -> None:
    """Rewrite a bank without the gaps that removed users leave.

    ```console
    adapterbot bank compact users
    ```
    """
    from adapterbot.commands import bank as command

    show(command.compact(bank), as_json)


@bank_app.command("key")
def bank_key(
    bank: Bank,
    user: Annotated[str, typer.Argument(help="The user it is for.")],
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Revoke all of the user's keys instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an API key with which `adapterbot serve` answers as this user; it is shown once.

    ```console
    adapterbot bank key users user_1
    ```
    """
    from adapterbot.commands import bank as command

    made = command.revoke_keys(bank, user) if revoke else command.new_key(bank, user)
    if isinstance(made, command.NewKey) and not as_json:
        line(made.key)  # alone, so that a shell can take it
    else:
        show(made, as_json)


@bank_app.command("fit")
def bank_fit(
    bank: Bank,
    users: Annotated[
        Path, typer.Option(help="JSONL whose rows name a user, or a folder of USER.jsonl files.")
    ],
    base: Annotated[str | None, base_option("the one that the bank names")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps per user, at most.")] = 200,
    rate: Annotated[
        float, typer.Option(min=1e-6, max=10, callback=a_number, help="Adam's learning rate.")
    ] = 0.02,
    batch: Annotated[int, typer.Option(min=1, help="A user's examples in one step.")] = 2,
    every: Annotated[int, typer.Option(min=1, help="Steps between looks at held-out rows.")] = 10,
    patience: Annotated[
        int, typer.Option(min=1, help="Stop a user after this many looks without a gain.")
    ] = 3,
    at_once: Annotated[int, typer.Option(min=1, help="Users fitted at once.")] = 32,
    held_out: Annotated[
        float,
        typer.Option(
            max=0.9,
            callback=a_number,
            help="Share of a user's prompts whose rows are held out; above 0, one at least.",
        ),
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of the held-out rows and of the order.")] = 0,
    device: Device = None,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Fit many users' vectors at once over the frozen base. An interrupted run resumes.

    ```console
    adapterbot bank fit users --users rows.jsonl --steps 200
    ```
    """
    from adapterbot.bank.plan import Plan
    from adapterbot.commands import bank_fit as command

    fitted = command.fit(
        bank,
        users,
        plan=Plan(steps, rate, batch, every, patience, at_once, held_out, seed),
        base=base,
        device=device,
        replace=replace,
        tell=lambda one, done, total: say(
            f"{done}/{total}  {one.user}  held-out loss {one.base_loss:.3f} → {one.loss:.3f}"
            f" at step {one.step}"
        ),
    )
    if as_json:
        document(fitted.model_dump_json(indent=2))
    else:
        line(f"{len(fitted.fitted)} users fitted, {fitted.skipped} were already")
