"""The server's database: its tables, its migrations, and its faults in words. SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from byheart.errors import ConfigError, MissingExtraError, StorageError

FILE_NAME = "serve.sqlite"
WAIT_S = 5  # for a lock or a connection; an answer never waits for it
_MIGRATION_LOCK = 6_229_143  # any number, the same for every gateway: they start at once and one of them migrates

metadata = sa.MetaData()

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("secret_sha256", sa.String(64), nullable=False),
    sa.Column("scopes", sa.String(100), nullable=False),  # separated by spaces
    sa.Column("requests_per_minute", sa.Integer),  # NULL: the server's limits for an address
    sa.Column("tokens_per_minute", sa.Integer),
    sa.Column("created_at", sa.Float, nullable=False),  # times are seconds since 1970, UTC
    sa.Column("revoked_at", sa.Float),
)

exchanges = sa.Table(
    "exchanges",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # of the completion
    sa.Column("conversation", sa.String(512), nullable=False, index=True),  # "" where the caller names none
    sa.Column("customer", sa.String(512), nullable=False, index=True),  # OpenAI's `user`; "" where there is none
    sa.Column("key_id", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("abstained", sa.Boolean, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("sources", sa.Text, nullable=False),  # addresses, a line each
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("exchange_id", sa.String(64), sa.ForeignKey("exchanges.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("verdict", sa.String(4), nullable=False),
    sa.Column("reason", sa.String(200), nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("subject", sa.String(64), primary_key=True),  # a key's id, or a hash of an address
    sa.Column("minute", sa.BigInteger, primary_key=True),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
)


class Database:
    """An open database. Its methods, and whatever runs in `begin`, raise StorageError where it refuses."""

    def __init__(self, address: str, *, folder: Path) -> None:
        """Open what `serve.database` names: "" for a file in `folder`, an address, or $NAME of a variable with one."""
        self.url = _url_of(address, folder)
        self.is_file = self.url.get_backend_name() == "sqlite"
        waits = {"timeout": WAIT_S} if self.is_file else {"connect_timeout": WAIT_S}
        self._engine = sa.create_engine(self.url, connect_args=waits, pool_pre_ping=not self.is_file)
        if self.is_file:
            sa.event.listen(self._engine, "connect", _set_up_sqlite)

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, which is committed when the block ends well."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, sqlite3.Error) as fault:  # what _set_up_sqlite meets comes as it is
            raise StorageError(_in_words(fault, self.url)) from fault

    def migrate(self) -> None:
        """Bring the tables to this version's form. Safe when several servers start at once."""
        config = AlembicConfig()
        config.set_main_option("script_location", str(files("byheart.serve").joinpath("migrations")))
        with self.begin() as connection:
            if self.is_file:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python's driver begins by itself only before changes
            else:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as fault:
                raise StorageError(
                    f"serve.database: {self.url.render_as_string()} was written by a newer byheart ({fault}). "
                    "Use that version, or another database."
                ) from fault

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def open_database(address: str, *, folder: Path) -> Database:
    """Return the database that `serve.database` names, its tables in this version's form."""
    database = Database(address, folder=folder)
    database.migrate()
    return database


def from_environment(setting: str, *, name: str) -> str:
    """Return what a setting holds, or what the variable holds that it names as $VARIABLE: secrets stay out of files."""
    if not setting.startswith("$"):
        return setting
    if value := os.environ.get(setting[1:]):
        return value
    raise ConfigError([f"{name}: the environment variable {setting[1:]} is not set."])


def _url_of(address: str, folder: Path) -> sa.URL:
    address = from_environment(address, name="serve.database")
    if not address:
        return sa.URL.create("sqlite", database=str(folder / FILE_NAME))
    try:
        url = sa.make_url(address)
    except SQLAlchemyError as fault:
        raise ConfigError([f"serve.database: no address of a database. {_EXAMPLE}"]) from fault
    backend = url.get_backend_name()
    if backend == "sqlite" and url.database:
        return url
    if backend not in ("postgresql", "postgres"):
        raise ConfigError([f"serve.database: {backend!r} is neither sqlite nor postgresql. {_EXAMPLE}"])
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError("psycopg", "postgres", "A PostgreSQL database")
    return url.set(drivername="postgresql+psycopg")


_EXAMPLE = "Leave it empty for a file in the bot's folder, or write one such as postgresql://user@host/byheart"


def _set_up_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # SQLAlchemy gives the driver's own connection
    cursor.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait for each other
    cursor.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last answers, never the file
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _in_words(fault: Exception, url: sa.URL) -> str:
    """Return what happened, without the statement's values: these are what customers asked."""
    place = url.render_as_string(hide_password=True)
    own = fault if isinstance(fault, sqlite3.Error) else getattr(fault, "orig", None)
    reason = str(own or type(fault).__name__).strip().partition("\n")[0]
    return f"serve.database: {place}: {reason}"
