"""Keys to the API: made once, kept as a hash, limited to what they are for, and revoked at once."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence

import sqlalchemy as sa

from byheart.errors import ConfigError
from byheart.serve.database import Database, from_environment, keys

SCOPES = ("chat", "page", "embed", "metrics")
PAGE_SCOPE = "page"  # to ask and to rate answers, and nothing else: everyone who sees the page can read the key
_PREFIX = "bh"


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key, without its secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: float
    revoked_at: float | None


def add_key(
    database: Database,
    *,
    name: str,
    scopes: Sequence[str],
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> tuple[Key, str]:
    """Make a key and return it with its text, which is shown this once. Raises ConfigError for an unknown scope."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise ConfigError([f"There is no scope {', '.join(unknown) or 'given'}. Choose from {', '.join(SCOPES)}."])
    if PAGE_SCOPE in scopes and len(scopes) > 1:
        raise ConfigError([f"The scope {PAGE_SCOPE} stands alone: everyone can read such a key. Make two keys."])
    key = Key(
        secrets.token_hex(6), name[:100], tuple(scopes), requests_per_minute, tokens_per_minute, time.time(), None
    )
    secret = secrets.token_urlsafe(32)  # 256 bits: a plain hash is enough, nobody can try them all
    row = {**dataclasses.asdict(key), "scopes": " ".join(key.scopes), "secret_sha256": _digest(secret)}
    with database.begin() as connection:
        connection.execute(keys.insert().values(row))
    return key, f"{_PREFIX}_{key.id}_{secret}"


def page_key(database: Database, setting: str) -> str:
    """Return the text of the key that `serve.page_key` holds or names; "" where there is none.

    Raises ConfigError where it is no key for pages: any other would give its rights to whoever looks at the page.
    """
    text = from_environment(setting, name="serve.page_key")
    if text:
        key = find_key(database, text)
        if key is None or key.scopes != (PAGE_SCOPE,):
            what = "no key of this server" if key is None else f"a key for {', '.join(key.scopes)}"
            raise ConfigError([f"serve.page_key is {what}. Make one with: byheart keys add NAME --scope page"])
    return text


def list_keys(database: Database) -> list[Key]:
    """Return all keys, the oldest first."""
    with database.begin() as connection:
        return [_key_of(row) for row in connection.execute(keys.select().order_by(keys.c.created_at))]


def revoke_key(database: Database, *, id: str) -> bool:
    """Revoke a key; False where there is none with this id that is not revoked yet."""
    with database.begin() as connection:
        changed = connection.execute(
            keys.update().where(keys.c.id == id, keys.c.revoked_at.is_(None)).values(revoked_at=time.time())
        )
        return changed.rowcount > 0


def find_key(database: Database, text: str) -> Key | None:
    """Return the key that a caller shows; None where it is none, or revoked."""
    prefix, _, rest = text.partition("_")
    id, _, secret = rest.partition("_")
    if prefix != _PREFIX or not secret:
        return None
    with database.begin() as connection:
        row = connection.execute(keys.select().where(keys.c.id == id[:16], keys.c.revoked_at.is_(None))).first()
    if row is None or not hmac.compare_digest(row.secret_sha256, _digest(secret)):
        return None
    return _key_of(row)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _key_of(row: sa.Row[tuple[object, ...]]) -> Key:
    values = dict(row._mapping)
    del values["secret_sha256"]
    return Key(**{**values, "scopes": tuple(values["scopes"].split())})
