"""`adapterbot attest …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Json, output_option
from adapterbot.cli.output import document, leave, line, say, wrote
from adapterbot.errors import ExitCode

attest_app = typer.Typer(
    help="Sign an adapter, and verify who signed it: in-toto, SLSA, CycloneDX."
)
app.add_typer(attest_app, name="attest", no_args_is_help=True)

Adapter = Annotated[Path, typer.Argument(help="Adapter directory.")]
TrustConfig = Annotated[
    Path | None,
    typer.Option(
        "--trust-config",
        help="Client trust config of your own Sigstore instance.",
        show_default="the public instance",
    ),
]
ReportFile = Annotated[Path | None, typer.Option("--report", help="A report.json of the gate.")]


@attest_app.command("sign")
def attest_sign(
    adapter: Adapter,
    key: Annotated[
        Path | None, typer.Option(help="Private key, PEM: ed25519 or ECDSA, without a password.")
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign by Sigstore, as the workflow that runs.")
    ] = False,
    trust_config: TrustConfig = None,
    report: ReportFile = None,
    builder: Annotated[
        str | None,
        typer.Option(help="URI of who trained it.", show_default="the workflow that runs"),
    ] = None,
    output: Annotated[
        Path | None, output_option("Where to write it.", "ADAPTER.intoto.json")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign an adapter: its files, and the lock, config, suite and report that belong to it.

    ```console
    adapterbot attest sign adapters/dates --key key.pem
    ```

    Writes an in-toto Statement v1 with SLSA provenance v1 in a DSSE envelope, beside the adapter.

    Exit codes: 0 signed, 1 we failed, 2 bad input.
    """
    from adapterbot.commands import attest as command
    from adapterbot.errors import InputError

    if bool(key) == keyless:
        raise InputError(
            "give a key, or --keyless, and not both", field="--key", fix="name a private key"
        )
    if key and trust_config:
        raise InputError(
            "applies to --keyless only", field="--trust-config", fix="drop it, or --key"
        )
    place = command.sign(
        command.subject(adapter),
        key,
        trust=trust_config,
        report=report,
        output=output,
        builder=builder,
    )
    wrote(place, as_json=as_json)


@attest_app.command("verify")
def attest_verify(
    adapter: Adapter,
    key: Annotated[Path | None, typer.Option(help="Public key, PEM.")] = None,
    identity: Annotated[
        str, typer.Option(help="Who signed without a key: a workflow's URL with its ref.")
    ] = "",
    issuer: Annotated[
        str, typer.Option(help="Issuer of that identity.")
    ] = "https://token.actions.githubusercontent.com",
    repository: Annotated[
        str | None,
        typer.Option(
            help="URL of the repository that ran that workflow.", show_default="the workflow's own"
        ),
    ] = None,
    trust_config: TrustConfig = None,
    report: ReportFile = None,
    as_json: Json = False,
) -> None:
    """Verify that an adapter and its lock are what a trusted key or workflow signed.

    ```console
    adapterbot attest verify adapters/dates --key key.pub
    ```

    Exit codes: 0 they are, 1 we failed, 2 bad input, 3 they are not.
    """
    from adapterbot.attest import NotAttested
    from adapterbot.commands import attest as command
    from adapterbot.errors import InputError

    if bool(key) == bool(identity):
        raise InputError(
            "give a key, or an identity, and not both", field="--key", fix="name a public key"
        )
    for option, given in (("--trust-config", trust_config), ("--repository", repository)):
        if key and given:
            raise InputError("applies to --identity only", field=option, fix="drop it, or --key")
    of = command.subject(adapter)
    try:
        found = command.verify(
            of,
            key or command.workflow(identity, issuer, repository),
            trust=trust_config,
            report=report,
        )
    except NotAttested as error:
        if as_json:
            document(json.dumps({"verified": False, "why": str(error)}))
        else:
            say(f"not verified: {error}")
        leave(ExitCode.FINDING)
    if as_json:
        told = {
            "verified": True,
            "lock": found.lock,
            "changed": sorted(found.changed),
            "statement": found.statement.as_signed(),
        }
        document(json.dumps(told, indent=2))
        return
    files = len(found.statement.subject)
    lock = f", and {found.lock}" if found.lock else ""
    line(f"verified  {files} file{'' if files == 1 else 's'} of {of.path or 'the root'}{lock}")
    line(f"builder   {found.statement.predicate.run.builder.id}")
    for thing in found.statement.predicate.build.dependencies:
        here = "  another is here" if thing.name in found.changed else ""
        line(f"from      {thing.name}  {thing.digest.sha256[:12]}{here}")


@attest_app.command("cyclonedx")
def attest_cyclonedx(
    adapter: Adapter,
    report: ReportFile = None,
    output: Annotated[Path | None, output_option("Where to write it.", "standard output")] = None,
    as_json: Json = False,
) -> None:
    """Describe an adapter as a CycloneDX ML-BOM: files, base model, data, and how it was judged.

    ```console
    adapterbot attest cyclonedx adapters/dates --report .adapterbot/report.json
    ```

    Exit codes: 0 written, 1 we failed, 2 bad input.
    """
    from adapterbot.commands import attest as command
    from adapterbot.files import atomic

    of = command.subject(adapter)
    if output:
        of.spare(output, report)
    text = command.bill(of, report)
    if output is None:
        document(text.rstrip("\n"))  # which is JSON anyway
        return
    atomic.write_text(output, text)
    wrote(output, as_json=as_json)
