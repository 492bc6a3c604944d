"""`taskcell doctor`"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import EXIT_FAILED, command


def register(app: typer.Typer) -> None:
    command(app, example="taskcell doctor --json", takes_folder=True)(doctor)


def doctor(
    run: Invocation,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of objects.")] = False,
) -> int:
    """Check everything that serving needs: one line each, with its mend. The exit code is 1 if anything is broken."""
    import anyio

    from taskcell.cli.doctor_checks import Verdict, examine
    from taskcell.cli.doctor_clients import examine_clients
    from taskcell.cli.doctor_servers import examine_servers
    from taskcell.cli.doctor_trials import examine_trials
    from taskcell.clients.catalog import Places

    checks = anyio.run(examine, run)
    if not any(check.name == "engine" and check.verdict is Verdict.BROKEN for check in checks):
        checks += anyio.run(examine_servers, run)
        checks += anyio.run(examine_trials, run)
    checks += anyio.run(examine_clients, Places(run.environ, sys.platform))
    if as_json:
        rows = [{"check": c.name, "status": c.verdict.value, "detail": c.detail, "mend": c.mend} for c in checks]
        typer.echo(json.dumps(rows, indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            mend = f" Mend: {check.mend}" if check.mend else ""
            typer.echo(f"{check.verdict.value:6} {check.name:{width}}  {check.detail}{mend}")
    return EXIT_FAILED if any(check.verdict is Verdict.BROKEN for check in checks) else 0
