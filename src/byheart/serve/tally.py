"""How much each caller has used of its minute: counted in memory at once, added up with other gateways soon after."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sqlalchemy.dialects import postgresql, sqlite

from byheart.serve.database import Database, usage
from byheart.serve.desk import Desk

Subject = tuple[str, int]  # whose usage, and in which minute since 1970
Used = tuple[int, int]  # requests, tokens

_NONE: Used = (0, 0)


@dataclasses.dataclass(slots=True)
class _Count:
    mine: Used = _NONE  # what came to this gateway
    written: Used = _NONE  # of that
    others: Used = _NONE  # what all others had written when this gateway last did


class Tally:
    """Counts for one event loop. While the database is away, each gateway counts for itself.

    One change of the database before each answer cost more than all else that the server does for it, and the answer
    waited for it (docs/experiments.md).
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._counts: dict[Subject, _Count] = {}
        self._minute = 0

    def add(self, name: str, *, minute: int, requests: int = 0, tokens: int = 0) -> Used:
        """Add to what a subject has used in a minute, and return what it has used with it, as far as is known here."""
        if minute > self._minute:
            self._minute = minute
            for old in [subject for subject in list(self._counts) if subject[1] < minute - 1]:
                del self._counts[old]
        subject = (name, minute)
        counted = self._counts.setdefault(subject, _Count())
        counted.mine = _sum(counted.mine, (requests, tokens))
        self._desk.note(self._write, (subject, (requests, tokens)))
        return _sum(counted.mine, counted.others)

    def _write(self, database: Database, noted: Sequence[tuple[Subject, Used]]) -> None:
        """Write what came here, and learn what came elsewhere. Runs in one of the desk's threads."""
        new: dict[Subject, Used] = {}
        for subject, used in noted:
            new[subject] = _sum(new.get(subject, _NONE), used)
        for subject, (requests, tokens) in count(database, new).items():
            counted = self._counts.get(subject, _Count())
            written = counted.written = _sum(counted.written, new[subject])
            counted.others = (requests - written[0], tokens - written[1])


def count(database: Database, used: Mapping[Subject, Used]) -> dict[Subject, Used]:
    """Add to what subjects have used, and return what they have used with it. One step for all gateways."""
    insert = sqlite.insert(usage) if database.is_file else postgresql.insert(usage)
    counted = insert.on_conflict_do_update(
        index_elements=["subject", "minute"],
        set_={name: usage.c[name] + insert.excluded[name] for name in ("requests", "tokens")},
    ).returning(usage)
    rows = [  # in one order for all: two gateways must not wait for each other's rows
        {"subject": name, "minute": minute, "requests": requests, "tokens": tokens}
        for (name, minute), (requests, tokens) in sorted(used.items())
    ]
    with database.begin() as connection:
        return {(row.subject, row.minute): (row.requests, row.tokens) for row in connection.execute(counted, rows)}


def _sum(one: Used, other: Used) -> Used:
    return one[0] + other[0], one[1] + other[1]
