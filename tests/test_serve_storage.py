"""What is kept of conversations, what becomes of it, and answers that go on while the database is away."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from byheart.cli import app as cli
from byheart.errors import ConfigError, StorageError
from byheart.evaluate.questions import YOURS_OUTSIDE, questions_from_files
from byheart.serve import desk as desk_of
from byheart.serve.conversations import Exchange, forget, forget_older, save_exchanges, save_feedback, wanting
from byheart.serve.database import FILE_NAME, Database, exchanges, feedback, metadata
from byheart.serve.desk import Desk
from byheart.serve.gate import GateRules
from byheart.serve.keys import add_key, find_key
from byheart.serve.tally import count
from serving import ANSWER, QUESTION, Bot, client_of, make_app, running, wait_until

NOBODY = 65534


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database("", folder=tmp_path)
    opened.migrate()
    yield opened
    opened.close()


def exchange(id: str, question: str = QUESTION, **changes: Any) -> Exchange:
    values: dict[str, Any] = {
        "conversation": "", "customer": "", "key_id": "", "created_at": time.time(), "answer": "Drag it.",
        "abstained": False, "confidence": 0.9, "sources": ("a.md", "b.md#c"),
    }  # fmt: skip
    return Exchange(id=id, question=question, **(values | changes))


def rows(database: Database, table: sa.Table = exchanges) -> int:
    with database.begin() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def ask(client: Any, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": question}]} | fields)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_the_migrations_make_the_tables_that_the_code_uses_and_can_run_again(database: Database) -> None:
    database.migrate()
    with database.begin() as connection:
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:
            found = {column["name"]: bool(column["nullable"]) for column in inspector.get_columns(table.name)}
            assert found == {column.name: bool(column.nullable) for column in table.columns}


def test_an_answer_is_kept_takes_a_thumb_and_is_forgotten_on_request(database: Database) -> None:
    with running(make_app(Bot(), database=database)) as address, client_of(address) as client:
        reply = ask(client, user="anna", metadata={"conversation_id": "c1"})
        said = {"completion_id": reply["id"], "verdict": "down", "reason": "wrong", "comment": "It is F, not M."}
        assert client.post("/v1/feedback", json=said).json() == {"object": "feedback", "completion_id": reply["id"]}
        assert client.post("/v1/feedback", json={**said, "comment": None, "verdict": "up"}).status_code == 200
        with database.begin() as connection:
            kept = connection.execute(exchanges.select()).one()
            thumb = connection.execute(feedback.select()).one()
        assert (kept.question, kept.answer, kept.customer, kept.conversation) == (QUESTION, ANSWER.text, "anna", "c1")
        assert kept.sources.split("\n") == [citation.url for citation in ANSWER.citations]
        assert (thumb.verdict, thumb.reason, thumb.comment) == ("up", "wrong", "")
        assert client.delete("/v1/conversations/c1").json()["exchanges"] == 1
        assert (rows(database), rows(database, feedback)) == (0, 0)
        assert client.post("/v1/feedback", json=said).status_code == 404
        assert client.post("/v1/feedback", json={**said, "verdict": "meh"}).json()["error"]["param"] == "verdict"


def test_nothing_is_kept_where_the_config_or_the_caller_says_so(database: Database) -> None:
    for changes, fields in (({"keeps_exchanges": False}, {}), ({}, {"store": False})):
        app = make_app(Bot(), database=database, **changes)
        with running(app) as address, client_of(address) as client:
            ask(client, **fields)
        assert rows(database) == 0


def test_what_is_too_old_goes_and_0_days_keep_all(database: Database) -> None:
    now = time.time()
    for id, age_days in (("new", 1), ("old", 100)):
        save_exchanges(database, [exchange(id, created_at=now - age_days * 86400)])
    assert forget_older(database, days=0, now=now) == 0
    assert forget_older(database, days=90, now=now) == 1
    assert rows(database) == 1


def test_all_of_one_customer_goes_and_nobody_elses(database: Database) -> None:
    for id, customer in (("1", "anna"), ("2", "anna"), ("3", ""), ("4", "bert")):
        save_exchanges(database, [exchange(id, customer=customer)])
    save_feedback(database, exchange_id="1", verdict="down", reason="", comment="")
    assert forget(database, customer="anna") == 2
    assert forget(database) == 0
    assert (rows(database), rows(database, feedback)) == (2, 0)


def test_the_feedback_verb_lists_what_to_do_better_and_writes_a_questions_file(tmp_path: Path) -> None:
    (tmp_path / "byheart.yaml").write_text("docs: .\n")
    database = Database("", folder=tmp_path)
    database.migrate()
    save_exchanges(database, [exchange("1", "Can I fly?", abstained=True)])
    save_exchanges(database, [exchange("2", "can I  FLY?", abstained=True)])
    save_exchanges(database, [exchange("3", "How do I\x1b[2J export?")])
    save_exchanges(database, [exchange("4", "What is well answered?")])
    save_feedback(database, exchange_id="3", verdict="down", reason="wrong", comment="It is in the menu.")
    assert [(item.why, item.asked) for item in wanting(database)] == [("not answered", 2), ("thumb down", 1)]
    database.close()
    listed = CliRunner().invoke(cli, ["feedback", str(tmp_path)]).stdout
    assert "(2 times)" in listed
    assert "[wrong; It is in the menu.]" in listed
    assert "\x1b" not in listed
    assert "well answered" not in listed
    target = tmp_path / "asked.jsonl"
    assert CliRunner().invoke(cli, ["feedback", str(tmp_path), "--write", str(target)]).exit_code == 0
    assert json.loads(target.read_text().splitlines()[1])["note"] == "thumb down; wrong; It is in the menu."
    read = questions_from_files(paths=[target], max_per_group=10, seed=0)
    assert [question.group for question in read] == [YOURS_OUTSIDE] * 2
    again = CliRunner().invoke(cli, ["feedback", str(tmp_path), "--write", str(target)])
    assert again.exit_code == 1


def test_a_full_disk_costs_what_would_be_kept_and_no_answer(database: Database) -> None:
    @sa.event.listens_for(database._engine, "connect")
    def _no_more_pages(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # SQLite then says what it says on a full disk

    database._engine.dispose()
    with running(make_app(Bot(), database=database)) as address, client_of(address) as client:
        for number in range(40):
            ask(client, "short", metadata={"conversation_id": f"{number} {'x' * 400}"})
        wait_until(lambda: client.get("/ready").json()["storage"] == "failing")
        assert client.get("/ready").status_code == 200
        assert "byheart_lost_notes_total 0.0" not in client.get("/metrics").text
        assert ask(client)["choices"][0]["message"]["content"] == ANSWER.text


def test_a_database_that_is_gone_and_back_costs_no_answer(database: Database, tmp_path: Path) -> None:
    with running(make_app(Bot(), database=database)) as address, client_of(address) as client:
        reply = ask(client)
        wait_until(lambda: rows(database) == 1)
        with database.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE exchanges RENAME TO gone")
        assert ask(client)["choices"][0]["message"]["content"] == ANSWER.text
        said = {"completion_id": reply["id"], "verdict": "up"}
        refused = client.post("/v1/feedback", json=said)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
        assert client.get("/ready").json()["storage"] == "failing"
        with database.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO exchanges")
        assert client.post("/v1/feedback", json=said).status_code == 200
        assert client.get("/ready").json()["storage"] == "ok"


def test_what_comes_in_one_moment_is_kept_in_one_step_and_a_fault_costs_its_own_alone(database: Database) -> None:
    steps: list[object] = []
    sa.event.listen(database._engine, "commit", steps.append)

    def breaks(_database: Database, _items: Sequence[int]) -> None:
        raise ValueError("a fault of ours")

    async def scenario() -> tuple[int, int]:
        lost: list[int] = []
        desk = Desk(database, on_lost=lost.append)
        desk.note(breaks, 1)
        desk.note(breaks, 2)
        for number in range(50):
            desk.note(save_exchanges, exchange(f"{number}", "zero \0 in it"))
        await desk.settle()
        found = len(steps)
        for _ in range(desk_of.MAX_WAITING + 3):
            desk.note(breaks, 1)
        await desk.close()
        return found, sum(lost)

    assert asyncio.run(scenario()) == (1, 2 + desk_of.MAX_WAITING + 3)
    assert rows(database) == 50


def test_an_answer_of_just_now_can_be_rated_and_forgotten_at_once(database: Database) -> None:
    with running(make_app(Bot(), database=database)) as address, client_of(address) as client:
        for _ in range(5):
            said = {"completion_id": ask(client)["id"], "verdict": "up"}
            assert client.post("/v1/feedback", json=said).status_code == 200
            gone = client.delete(f"/v1/conversations/{ask(client)['id']}").json()
            assert gone["exchanges"] == 1
    assert rows(database) == 5


def test_a_fault_of_the_database_is_told_without_what_was_asked(database: Database) -> None:
    save_exchanges(database, [exchange("1")])
    with pytest.raises(StorageError) as fault:
        save_exchanges(database, [exchange("1", "my secret question")])
    assert "UNIQUE constraint failed" in str(fault.value)
    assert "secret" not in str(fault.value)


def test_an_address_that_is_no_database_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, fault in (("mysql://x/y", "mysql"), ("nonsense", "no address"), ("$NOT_SET_HERE", "NOT_SET_HERE")):
        with pytest.raises(ConfigError, match=fault):
            Database(address, folder=tmp_path)
    monkeypatch.setenv("BOT_DATABASE", f"sqlite:///{tmp_path / 'other.sqlite'}")
    Database("$BOT_DATABASE", folder=tmp_path).migrate()
    assert (tmp_path / "other.sqlite").exists()
    assert not (tmp_path / FILE_NAME).exists()


def test_a_database_of_a_newer_version_is_left_alone(database: Database) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="newer byheart"):
        database.migrate()


def test_servers_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    databases = [Database("", folder=tmp_path) for _ in range(4)]
    faults: list[Exception] = []

    def migrate(database: Database) -> None:
        try:
            database.migrate()
        except StorageError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=migrate, args=[database]) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not faults
    for database in databases:
        assert rows(database) == 0
        database.close()


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """An empty folder that nobody may enter, too; pytest's own are closed to all but the one who runs the tests."""
    with tempfile.TemporaryDirectory(prefix="byheart-", dir="/tmp") as name:
        folder = Path(name)
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            os.chown(folder, NOBODY, NOBODY)
        yield folder


@dataclasses.dataclass(frozen=True)
class PostgreSQL:
    """A server of the test's own, which can be stopped and started."""

    address: str
    command: Sequence[str]

    def control(self, *words: str) -> None:
        subprocess.run([*self.command, *words], check=True, capture_output=True)

    def start(self) -> None:
        self.control("start")

    def stop(self) -> None:
        self.control("-m", "immediate", "stop")


@pytest.fixture
def postgresql(server_folder: Path) -> Iterator[PostgreSQL]:
    program = shutil.which("postgres") or max(
        map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), default=None
    )
    if program is None:
        pytest.skip("NOT CHECKED: no PostgreSQL on this machine. Install the package postgresql to test with one.")
    pytest.importorskip("psycopg", reason="NOT CHECKED: no psycopg here. Install byheart[postgres] to test with one.")
    binaries, data, user = Path(program).resolve().parent, server_folder / "data", "byheart"
    as_user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    as_user = ["setpriv", *as_user] if os.geteuid() == 0 else []
    made = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", user, "-A", "trust"]
    subprocess.run(made, check=True, capture_output=True)
    options = f"-c listen_addresses= -c unix_socket_directories={server_folder}"
    control = [*as_user, str(binaries / "pg_ctl"), "-D", str(data), "-o", options, "-l", str(server_folder / "log")]
    server = PostgreSQL(f"postgresql://{user}@/postgres?host={server_folder}", [*control, "-w"])
    server.start()
    yield server
    with contextlib.suppress(subprocess.CalledProcessError):  # the test has stopped it
        server.stop()


@contextlib.contextmanager
def opened(address: str, folder: Path) -> Iterator[Database]:
    database = Database(address, folder=folder)
    database.migrate()
    yield database
    database.close()


@pytest.mark.slow
def test_postgresql_keeps_counts_and_forgets_as_sqlite_does(postgresql: PostgreSQL, tmp_path: Path) -> None:
    with (
        opened(postgresql.address, tmp_path) as first,
        opened(postgresql.address, tmp_path) as second,
        running(make_app(Bot(), database=first)) as one,
        running(make_app(Bot(), database=second)) as two,
        client_of(one) as asking,
        client_of(two) as rating,
    ):
        key, text = add_key(first, name="x", scopes=["chat"])
        assert find_key(second, text) == key
        used = {("s", 1): (1, 2), ("t", 1): (1, 0)}
        assert count(first, used) == used
        assert count(second, used) == {("s", 1): (2, 4), ("t", 1): (2, 0)}
        save_exchanges(first, [exchange("1", "zero \0 in it"), exchange("2")])
        id = ask(asking)["id"]
        said = {"completion_id": id, "verdict": "down"}
        wait_until(lambda: rating.post("/v1/feedback", json=said).status_code == 200)
        postgresql.stop()
        assert ask(asking)["choices"][0]["message"]["content"] == ANSWER.text
        assert rating.post("/v1/feedback", json=said).status_code == 503
        postgresql.start()
        wait_until(lambda: rating.post("/v1/feedback", json=said).status_code == 200)
        assert rating.delete(f"/v1/conversations/{id}").json()["deleted"] is True


@pytest.mark.slow
def test_postgresql_stopped_and_started_costs_no_answer_and_no_restart_and_limits_hold_again(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    with (
        opened(postgresql.address, tmp_path) as first,
        opened(postgresql.address, tmp_path) as second,
        running(make_app(Bot(), database=first, rules=GateRules(requests_per_minute=1000))) as one,
        running(make_app(Bot(), database=second, rules=GateRules(requests_per_minute=1000))) as two,
        client_of(one) as here,
        client_of(two) as there,
    ):
        for outage in (1, 2):
            postgresql.stop()
            for _ in range(5):
                assert ask(here)["choices"][0]["message"]["content"] == ANSWER.text
            # of each answer: the request, its words, and the exchange
            wait_until(lambda outage=outage: f"byheart_lost_notes_total {15.0 * outage}" in here.get("/metrics").text)
            assert here.get("/ready").json() == {"ready": True, "engine": "ok", "storage": "failing"}
            postgresql.start()
            ask(here)
            wait_until(lambda: here.get("/ready").json()["storage"] == "ok")
            wait_until(lambda outage=outage: rows(second) == outage)
        seen = [used(there)]

        def rises_by_more_than_its_own() -> bool:
            ask(here)
            seen.append(used(there))
            return seen[-1] > seen[-2] + 1

        wait_until(rises_by_more_than_its_own)


def used(client: httpx.Client) -> int:
    """Ask, and return how many requests of this minute the server has heard of."""
    reply = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": QUESTION}]})
    limit, left = (int(reply.headers[f"x-ratelimit-{what}-requests"]) for what in ("limit", "remaining"))
    return limit - left
