"""`taskcell import`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.errors import ConfigError

if TYPE_CHECKING:
    from taskcell.migration.moved import Moved

INTO = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write taskcell.toml and manifests/ there, and check them.")
]
ALLOW = Annotated[bool, typer.Option(help="Have the policy allow what is needed, instead of proposing it.")]
SOURCE = Annotated[Path, typer.Argument(help="The file that the other program reads.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Move a configuration of another program here.", no_args_is_help=True, rich_markup_mode=None
    )
    command(group, name="hermes", example="taskcell import hermes ~/.hermes/config.yaml --into cells")(hermes)
    command(group, name="kubiya", example="taskcell import kubiya .skill-engine.toml --into cells")(kubiya)
    command(group, name="mini-swe", example="taskcell import mini-swe mini.yaml > taskcell.toml")(mini_swe)
    command(group, name="docker-run", example="taskcell import docker-run 'docker run -v .:/w alpine'")(docker_run)
    app.add_typer(group, name="import")


def hermes(run: Invocation, *, file: SOURCE, into: INTO = None, allow: ALLOW = False) -> None:
    """Print the configuration for commands that a hermes-agent's terminal ran, and what became of each of its keys."""
    from taskcell.migration import hermes as source
    from taskcell.migration.moved import read_yaml

    _show(run, source.migrate(read_yaml(run.cwd / file.expanduser())), into, allow=allow)


def mini_swe(run: Invocation, *, file: SOURCE, into: INTO = None, allow: ALLOW = False) -> None:
    """Print the configuration for commands that a mini-swe-agent ran, and what became of each of its keys."""
    from taskcell.migration import mini_swe as source
    from taskcell.migration.moved import read_yaml

    _show(run, source.migrate(read_yaml(run.cwd / file.expanduser())), into, allow=allow)


def kubiya(run: Invocation, *, file: SOURCE, into: INTO = None, allow: ALLOW = False) -> None:
    """Print the manifest that says what one of the skill engine says, and what became of each of its keys."""
    from taskcell.config.toml_source import TomlSource, UnreadableToml
    from taskcell.migration import kubiya as source

    path = run.cwd / file.expanduser()
    try:
        data = TomlSource.read(path).data
    except UnreadableToml as error:
        raise ConfigError(str(error)) from None
    name = f"{path.stem.lstrip('.') or 'skills'}.toml"
    _show(run, source.migrate(data, name), into, allow=allow)


def docker_run(
    run: Invocation,
    *,
    line: Annotated[str, typer.Argument(help="The line, in quotes.")],
    name: Annotated[str, typer.Option(help="Name of the skill; default: from the image's.")] = "",
    into: INTO = None,
    allow: ALLOW = False,
) -> None:
    """Print the skill that a line of `docker run` becomes, and what became of each of its options."""
    from taskcell.migration import docker_run as source

    _show(run, source.migrate(line, name), into, allow=allow)


def _show(run: Invocation, moved: Moved, into: Path | None, *, allow: bool) -> None:
    """Print or write the configuration; what became of each key goes to standard error, beside a redirection."""
    from taskcell.assembly.migrated import files, judge_moved

    judged = judge_moved(moved, run)
    written = files(moved, judged.needs, allow=allow)
    if into is None:
        for path, text in written.items():
            typer.echo(text if len(written) == 1 else f"# --- {path}\n{text}")
    else:
        _write(run.cwd / into.expanduser(), written)
    width = max((len(line.fate.value) for line in moved.lines), default=0)
    for line in moved.lines:
        typer.echo(f"{line.fate.value:{width}}  {line.key}: {line.what}.", err=True)
    for sentence in judged.wrong:
        typer.echo(f"wrong: {sentence.rstrip('.')}.", err=True)
    for need in judged.needs:
        verb = "allows" if allow else "must allow"
        typer.echo(f"policy.{need.key} {verb} {need.value}: {'; '.join(need.reasons)}.", err=True)
    if into is not None:
        target = into / "taskcell.toml"
        typer.echo(f"Next: look at {target}, then `taskcell doctor --config {target}`.", err=True)


def _write(folder: Path, written: dict[str, str]) -> None:
    """Write the files, for the user alone: the environment that they take over may hold secrets.

    Raises:
        ConfigError: one is there; nothing was written. Or the folder cannot be written to.
    """
    there = [str(folder / path) for path in written if (folder / path).exists()]
    if there:
        raise ConfigError(f"{' and '.join(there)} would be overwritten; name another folder with --into.")
    try:
        for path, text in written.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with open(folder / path, "x", encoding="utf-8", opener=_for_the_user) as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error.strerror}); name another folder.") from None
    typer.echo(f"Wrote {', '.join(written)} in {folder}.")


def _for_the_user(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
