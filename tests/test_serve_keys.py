"""Who may ask, and how much: keys, scopes, limits, other sites' pages."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner

from byheart.cli import app as cli
from byheart.errors import ConfigError
from byheart.serve import gate
from byheart.serve.database import FILE_NAME, Database
from byheart.serve.desk import Desk
from byheart.serve.gate import Gate, GateRules
from byheart.serve.keys import add_key, find_key, list_keys, page_key, revoke_key
from byheart.serve.tally import Tally, count
from serving import ANSWER, QUESTION, Bot, client_of, make_app, running

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database("", folder=tmp_path)
    opened.migrate()
    yield opened
    opened.close()


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def paths_of(app: FastAPI) -> list[tuple[str, str]]:
    """Return every (method, address) that the app answers, with something in each hole of a pattern, and one more."""
    found = [("GET", "/none")]
    for router in app.routes:
        for route in getattr(getattr(router, "original_router", None), "routes", [router]):
            if isinstance(route, Mount):
                found.append(("GET", f"{route.path}/base.css"))
            else:
                assert isinstance(route, Route | APIRoute)
                path = re.sub(r"\{.*?\}", "cards/move.md" if route.path.startswith("/pages") else "x", route.path)
                found += [(method, path) for method in route.methods or ()]
    return found


def test_a_key_is_kept_as_a_hash_found_by_its_text_alone_and_gone_once_revoked(
    database: Database, tmp_path: Path
) -> None:
    key, text = add_key(database, name="Website", scopes=["chat"])
    assert find_key(database, text) == key
    for wrong in ("", "bh", text[:-1], text + "x", f"bh_{key.id}_", text.replace("bh_", "sk_"), "bh_x_y", "\udce4_"):
        assert find_key(database, wrong) is None
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert key.id.encode() in stored
    assert text.rpartition("_")[2].encode() not in stored
    assert revoke_key(database, id=key.id)
    assert not revoke_key(database, id=key.id)
    assert find_key(database, text) is None
    assert [item.revoked_at is None for item in list_keys(database)] == [False]
    with pytest.raises(ConfigError, match=r"no scope root.*chat, page, embed, metrics"):
        add_key(database, name="x", scopes=["root"])


@pytest.mark.parametrize("open_pages", [True, False])
def test_every_route_refuses_without_a_key(database: Database, open_pages: bool) -> None:
    app = make_app(Bot(), database=database, rules=GateRules(keys_required=True, open_pages=open_pages))
    checked = 0
    with running(app) as address, client_of(address) as client:
        for method, path in paths_of(app):
            for headers in ({}, bearer("bh_0_0"), {"authorization": "Basic bh_0_0"}):
                status = client.request(method, path, headers=headers).status_code
                if path in gate.ALWAYS_OPEN or (open_pages and not path.startswith(("/v1", "/metrics", "/none"))):
                    assert status == 200, path
                else:
                    assert status == 401, (method, path)
                    checked += 1
    assert checked >= 24


def test_a_key_opens_what_it_is_for_until_it_is_revoked(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "KEY_MEMORY_S", 0.0)
    chat, chat_text = add_key(database, name="chat", scopes=["chat"])
    _, metrics_text = add_key(database, name="metrics", scopes=["metrics", "embed"])
    app = make_app(Bot(), database=database, rules=GateRules(keys_required=True))
    with running(app) as address, client_of(address) as client, httpx.Client(trust_env=False) as http:
        sdk = openai.OpenAI(base_url=f"{address}/v1", api_key=chat_text, max_retries=0, http_client=http)
        reply = sdk.chat.completions.create(model="byheart", messages=BODY["messages"])
        assert reply.choices[0].message.content == ANSWER.text
        with pytest.raises(openai.PermissionDeniedError, match="embed"):
            sdk.embeddings.create(model="byheart", input="x")
        assert client.get("/metrics", headers=bearer(chat_text)).status_code == 403
        assert client.get("/metrics", headers=bearer(metrics_text)).status_code == 200
        assert client.post("/v1/chat/completions", json=BODY, headers=bearer(metrics_text)).status_code == 403
        revoke_key(database, id=chat.id)
        with pytest.raises(openai.AuthenticationError):
            sdk.models.list()


def test_a_key_for_pages_opens_questions_and_thumbs_alone_and_each_address_is_limited(database: Database) -> None:
    _, text = add_key(database, name="Website", scopes=["page"])
    app = make_app(Bot(), database=database, rules=GateRules(keys_required=True, open_pages=False))
    with running(app) as address, client_of(address) as client:
        opened = {
            (method, path)
            for method, path in paths_of(app)
            if client.request(method, path, headers=bearer(text)).status_code not in (401, 403)
        }
        assert opened == {
            ("POST", "/v1/chat/completions"), ("POST", "/v1/feedback"), ("GET", "/health"), ("GET", "/ready"),
        }  # fmt: skip
        replies = [client.post("/v1/chat/completions", json=BODY, headers=bearer(text)) for _ in range(41)]
        assert replies[0].headers["x-ratelimit-limit-requests"] == "20"
        assert 429 in {reply.status_code for reply in replies}


def test_only_a_key_for_pages_is_put_into_the_page(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = add_key(database, name="Website", scopes=["page"])
    key, strong = add_key(database, name="Backend", scopes=["chat"])
    monkeypatch.setenv("PAGE_KEY", text)
    assert (page_key(database, ""), page_key(database, "$PAGE_KEY"), page_key(database, text)) == ("", text, text)
    with pytest.raises(ConfigError, match=r"serve\.page_key is a key for chat.*--scope page") as fault:
        page_key(database, strong)
    assert strong not in str(fault.value)
    revoke_key(database, id=key.id)
    with pytest.raises(ConfigError, match="no key of this server"):
        page_key(database, strong)
    with pytest.raises(ConfigError, match="stands alone"):
        add_key(database, name="x", scopes=["page", "chat"])


def test_an_address_is_held_to_its_requests_a_minute(database: Database) -> None:
    app = make_app(Bot(), database=database, rules=GateRules(requests_per_minute=2))
    with running(app) as address, client_of(address) as client:
        replies = [client.post("/v1/chat/completions", json=BODY) for _ in range(5)]
        refused = [reply for reply in replies if reply.status_code == 429]
        assert len(refused) >= 1  # five in a row: at most two minutes, of two each
        assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused[0].headers["retry-after"]) <= 60
        assert replies[0].headers["x-ratelimit-limit-requests"] == "2"
        assert client.get("/v1/models").status_code == 200


def test_a_key_is_held_to_its_own_tokens_and_not_to_the_addresss_limit(database: Database) -> None:
    _, text = add_key(database, name="x", scopes=["chat"], tokens_per_minute=10)
    rules = GateRules(keys_required=True, requests_per_minute=1)
    with running(make_app(Bot(), database=database, rules=rules)) as address, client_of(address) as client:
        replies = [client.post("/v1/chat/completions", json=BODY, headers=bearer(text)) for _ in range(6)]
        assert replies[0].status_code == 200
        assert "x-ratelimit-limit-requests" not in replies[0].headers
        assert any("tokens a minute" in reply.text for reply in replies if reply.status_code == 429)


def test_exactly_what_is_over_the_limit_is_refused(database: Database) -> None:
    async def passes(scope: Scope, receive: Receive, send: Send) -> None:
        await Response()(scope, receive, send)

    async def scenario() -> tuple[list[int], list[str]]:
        desk = Desk(database, on_lost=int)
        gate = Gate(
            passes, rules=GateRules(requests_per_minute=3), desk=desk, tally=Tally(desk), clock=lambda: next(moments)
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://x") as client:
            replies = [await client.post("/v1/chat/completions") for _ in range(7)]
        await desk.close()
        left = [reply.headers["x-ratelimit-remaining-requests"] for reply in replies]
        return [reply.status_code for reply in replies], left

    moments = iter([60, 61, 100, 118, 119, 120, 121])
    assert asyncio.run(scenario()) == ([200, 200, 200, 429, 429, 200, 200], ["2", "1", "0", "0", "0", "2", "1"])


def test_what_other_gateways_counted_is_known_once_ones_own_is_written_and_after_a_restart(database: Database) -> None:
    async def scenario() -> None:
        one, two = (Desk(database, on_lost=int) for _ in range(2))
        here, there = Tally(one), Tally(two)
        assert [here.add("x", minute=1, requests=1, tokens=10) for _ in range(2)] == [(1, 10), (2, 20)]
        await one.settle()
        assert there.add("x", minute=1, requests=1) == (1, 0)
        await two.settle()
        assert there.add("x", minute=1, requests=1) == (4, 20)
        await two.settle()
        assert here.add("x", minute=1) == (2, 20)
        await one.settle()
        assert here.add("x", minute=1, tokens=5) == (4, 25)
        assert here.add("x", minute=2, requests=1) == (1, 0)
        assert here.add("y", minute=2, requests=1) == (1, 0)
        await one.settle()
        again = Tally(two)
        again.add("x", minute=1, requests=1)
        await two.settle()
        assert again.add("x", minute=1, requests=1) == (6, 25)
        await two.settle()

    asyncio.run(scenario())


def test_limits_go_on_while_the_database_is_away_and_are_shared_again_after(database: Database) -> None:
    async def scenario() -> int:
        lost: list[int] = []
        desk = Desk(database, on_lost=lost.append)
        tally = Tally(desk)
        rename(database, "usage", "gone")
        assert [tally.add("x", minute=1, requests=1) for _ in range(3)] == [(1, 0), (2, 0), (3, 0)]
        await desk.settle()
        assert desk.is_failing
        rename(database, "gone", "usage")
        count(database, {("x", 1): (10, 0)})
        assert tally.add("x", minute=1, requests=1) == (4, 0)
        await desk.settle()
        assert tally.add("x", minute=1, requests=1) == (15, 0)
        await desk.settle()
        return sum(lost)

    assert asyncio.run(scenario()) == 3


def rename(database: Database, old: str, new: str) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")


def test_two_gateways_on_one_database_count_together(database: Database, tmp_path: Path) -> None:
    other = Database(f"sqlite:///{tmp_path / FILE_NAME}", folder=tmp_path)
    assert count(database, {("x", 1): (1, 5)}) == {("x", 1): (1, 5)}
    assert count(other, {("x", 1): (1, 0), ("y", 1): (1, 0)}) == {("x", 1): (2, 5), ("y", 1): (1, 0)}
    assert count(other, {("x", 2): (1, 0)}) == {("x", 2): (1, 0)}
    other.close()


def test_only_listed_sites_may_read_answers_from_their_pages(database: Database) -> None:
    app = make_app(Bot(), database=database, cors_origins=["https://help.example.com"])
    with running(app) as address, client_of(address) as client:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        for origin, allowed in (("https://help.example.com", True), ("https://evil.example", False)):
            before = client.options("/v1/chat/completions", headers={"origin": origin, **asked})
            after = client.post("/v1/chat/completions", json=BODY, headers={"origin": origin})
            for response in (before, after):
                assert (response.headers.get("access-control-allow-origin") == origin) is allowed


def test_the_keys_verbs_make_list_and_revoke(tmp_path: Path) -> None:
    (tmp_path / "byheart.yaml").write_text("docs: .\n")
    bot = str(tmp_path)
    made = CliRunner().invoke(cli, ["keys", "add", "Website", bot, "--scope", "chat", "--requests-per-minute", "60"])
    text = made.stdout.strip()
    assert text.startswith("bh_")
    listed = CliRunner().invoke(cli, ["keys", "list", bot]).stdout
    assert "Website" in listed
    assert "60 requests" in listed
    assert text not in listed
    revoked = CliRunner().invoke(cli, ["keys", "revoke", text.split("_")[1], bot])
    assert revoked.exit_code == 0, revoked.output
    assert "revoked" in CliRunner().invoke(cli, ["keys", "list", bot]).stdout
    with sqlite3.connect(tmp_path / FILE_NAME) as raw:
        assert raw.execute("select count(*) from keys").fetchone() == (1,)
    raw.close()
