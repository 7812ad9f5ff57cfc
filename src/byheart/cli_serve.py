"""Verbs around a running server: its keys, what customers said of answers, and what is to be forgotten.

They import what they need inside themselves, as cli.py does, and for its reason.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from byheart.cli_options import HERE, Bot, group
from byheart.errors import ConfigError, RunFolderError

if TYPE_CHECKING:
    from byheart.serve.database import Database

keys = group("Make, list and revoke keys to the API.")


@keys.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who the key is for.")],
    bot: Bot = HERE,
    scope: Annotated[
        list[str] | None, typer.Option(help="chat (default), page, embed or metrics; may be repeated.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Its own limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Its own limit.")] = None,
) -> None:
    """Make a key. Its text is shown this once; the database holds a hash."""
    from byheart.serve.keys import add_key

    with _database(bot) as database:
        key, text = add_key(
            database, name=name, scopes=scope or ["chat"],
            requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute,
        )  # fmt: skip
    typer.echo(text)
    typer.echo(f"Keep it: it is not shown again. Revoke it with: byheart keys revoke {key.id}", err=True)


@keys.command(name="list")
def list_(bot: Bot = HERE) -> None:
    """List all keys, without their secrets."""
    from byheart.serve.keys import list_keys

    with _database(bot) as database:
        found = list_keys(database)
    for key in found:
        state = f"revoked {_day(key.revoked_at)}" if key.revoked_at else f"since {_day(key.created_at)}"
        limits = f"{key.requests_per_minute or '-'} requests, {key.tokens_per_minute or '-'} tokens a minute"
        typer.echo(f"{key.id}  {key.name:<20}  {','.join(key.scopes):<18}  {limits:<36}  {state}")
    if not found:
        typer.echo("There are no keys. Make one with: byheart keys add NAME", err=True)


@keys.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as byheart keys list shows it.")],
    bot: Bot = HERE,
) -> None:
    """Revoke a key. Running servers refuse it within two seconds."""
    from byheart.serve.keys import revoke_key

    with _database(bot) as database:
        if not revoke_key(database, id=id):
            raise ConfigError([f"There is no key {id!r} that could be revoked. See: byheart keys list"])
    typer.echo(f"Revoked {id}.")


def feedback(
    bot: Bot = HERE,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them as a file for `questions:`.")] = None,
) -> None:
    """List the questions it declined and the answers disliked."""
    from byheart.serve.conversations import as_questions, wanting

    with _database(bot) as database:
        found = wanting(database)
    if write:
        _write_new(write, "".join(f"{line}\n" for line in as_questions(found)))
        typer.echo(f"Wrote {len(found)} questions to {write}. Give each its key_facts and source, then list the file")
        typer.echo("under questions: in byheart.yaml.")
        return
    for item in found:
        times = f" ({item.asked} times)" if item.asked > 1 else ""
        said = "; ".join(part for part in (item.reason, item.comment) if part)
        typer.echo(f"{item.why:<12}  {_plain(item.question)}{times}{f'  [{_plain(said)}]' if said else ''}")
    if not found:
        typer.echo("Nothing: every question was answered, and no answer got a thumb down.", err=True)


def forget(
    bot: Bot = HERE,
    id: Annotated[str, typer.Option(help="An answer's id, or a conversation's.")] = "",
    customer: Annotated[str, typer.Option(help="All of one customer: the `user` that requests named.")] = "",
) -> None:
    """Delete what was kept of a conversation or a customer."""
    from byheart.serve import conversations

    if not (id or customer):
        raise ConfigError(["Say what to forget: --id ID, or --customer NAME."])
    with _database(bot) as database:
        count = conversations.forget(database, id=id, customer=customer)
    typer.echo(f"Deleted {count} question{'' if count == 1 else 's'} with the answers.")


@contextlib.contextmanager
def _database(bot: Path) -> Iterator[Database]:
    from byheart.config_file import load
    from byheart.serve.database import open_database

    project = load(bot, (), need_sources=False).project
    database = open_database(project.config.serve.database, folder=project.folder)
    try:
        yield database
    finally:
        database.close()


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:  # what a person has filled in must not be written over
            file.write(text)
    except OSError as fault:
        raise RunFolderError(f"{path}: {fault.strerror}. Choose another name.") from fault


def _plain(text: str) -> str:
    """Return the text on one line, without characters that steer a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
