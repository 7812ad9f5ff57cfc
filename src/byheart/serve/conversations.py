"""What was asked and answered, and what customers said of it: kept for a time, and forgotten on request."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from typing import Literal

import sqlalchemy as sa

from byheart.serve.database import Database, exchanges, feedback, usage

DAY_S = 86_400.0


@dataclasses.dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer."""

    id: str  # of the completion
    conversation: str
    customer: str
    key_id: str
    created_at: float
    question: str
    answer: str
    abstained: bool
    confidence: float
    sources: tuple[str, ...]  # addresses of the cited sections


@dataclasses.dataclass(frozen=True, slots=True)
class Wanting:
    """A question that the bot declined, or whose answer a customer did not like."""

    question: str
    answer: str
    sources: tuple[str, ...]
    why: Literal["not answered", "thumb down"]
    reason: str
    comment: str
    asked: int  # how often, in other letter case too


def save_exchanges(database: Database, kept: Sequence[Exchange]) -> None:
    """Keep exchanges, in one step."""
    with database.begin() as connection:
        connection.execute(exchanges.insert(), [_row(exchange) for exchange in kept])


def save_feedback(database: Database, *, exchange_id: str, verdict: str, reason: str, comment: str) -> bool:
    """Keep what a customer says of an answer, instead of what they said before; False where the answer is not kept."""
    values = {"verdict": verdict, "reason": reason, "comment": comment, "created_at": time.time()}
    with database.begin() as connection:
        if connection.execute(sa.select(exchanges.c.id).where(exchanges.c.id == exchange_id)).first() is None:
            return False
        connection.execute(feedback.delete().where(feedback.c.exchange_id == exchange_id))
        connection.execute(feedback.insert().values(exchange_id=exchange_id, **values))
    return True


def forget(database: Database, *, id: str = "", customer: str = "") -> int:
    """Delete an exchange or a conversation by its id, or all of a customer; with its feedback. Return how many."""
    wanted = []
    if id:
        wanted.append(sa.or_(exchanges.c.id == id, exchanges.c.conversation == id))
    if customer:
        wanted.append(exchanges.c.customer == customer)
    if not wanted:
        return 0
    with database.begin() as connection:
        return _delete(connection, sa.or_(*wanted))


def forget_older(database: Database, *, days: float, now: float) -> int:
    """Delete what is older than `days` (0: nothing is ever too old), and counts that no limit needs any more."""
    with database.begin() as connection:
        connection.execute(usage.delete().where(usage.c.minute < int(now // 60) - 2))
        return _delete(connection, exchanges.c.created_at < now - days * DAY_S) if days else 0


def wanting(database: Database, *, limit: int = 1000) -> list[Wanting]:
    """Return the questions that the bot should do better on, those asked most often first."""
    joined = exchanges.outerjoin(feedback, feedback.c.exchange_id == exchanges.c.id)
    query = (
        sa.select(exchanges, feedback.c.verdict, feedback.c.reason, feedback.c.comment)
        .select_from(joined)
        .where(sa.or_(exchanges.c.abstained, feedback.c.verdict == "down"))
        .order_by(exchanges.c.created_at.desc())
        .limit(20 * limit)
    )
    found: dict[str, Wanting] = {}
    with database.begin() as connection:
        for row in connection.execute(query):
            words = " ".join(row.question.lower().split())
            before = found.get(words)
            is_down = row.verdict == "down"
            if before is not None and not (is_down and before.why != "thumb down"):
                found[words] = dataclasses.replace(before, asked=before.asked + 1)
                continue
            found[words] = Wanting(
                question=row.question,
                answer=row.answer,
                sources=tuple(row.sources.split("\n")) if row.sources else (),
                why="thumb down" if is_down else "not answered",
                reason=row.reason or "",
                comment=row.comment or "",
                asked=1 + (before.asked if before else 0),
            )
    return sorted(found.values(), key=lambda item: -item.asked)[:limit]


def as_questions(items: Iterable[Wanting]) -> list[str]:
    """Return lines of a questions file. A person fills in what a right answer holds; else it counts as unanswerable."""
    lines = []
    for item in items:
        said = "; ".join(part for part in (item.why, item.reason, item.comment) if part)
        line = {"question": item.question, "key_facts": [], "source": "", "note": said}
        lines.append(json.dumps(line, ensure_ascii=False))
    return lines


def _row(exchange: Exchange) -> dict[str, object]:
    row = {**dataclasses.asdict(exchange), "sources": "\n".join(exchange.sources)}
    # PostgreSQL takes no character 0: whoever sends one must not cost others what is kept of theirs
    return {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in row.items()}


def _delete(connection: sa.Connection, wanted: sa.ColumnElement[bool]) -> int:
    ids = sa.select(exchanges.c.id).where(wanted).scalar_subquery()
    connection.execute(feedback.delete().where(feedback.c.exchange_id.in_(ids)))
    return connection.execute(exchanges.delete().where(wanted)).rowcount
