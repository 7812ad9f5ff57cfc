from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byheart.answer.base import Answer, Turn
from byheart.records import Citation, Section
from byheart.serve.engine import (
    Engine,
    EngineBusyError,
    count_tokens,
    describe,
    pieces,
    shorten,
    split_conversation,
)
from byheart.serve.pages import Manual, render_markdown
from byheart.serve.suggest import FollowUps, suggest
from serving import ANSWER, MOVE_PAGE, MOVE_SECTIONS, QUESTION, Bot


def test_the_last_user_message_is_the_question_and_the_turns_before_it_the_history() -> None:
    messages = [
        ("system", "Talk like a pirate."),
        ("user", "What is a card?"),
        ("assistant", "A note."),
        ("developer", "More rules."),
        ("user", " And a board? "),
        ("assistant", "prefilled"),
        ("user", "  "),
    ]
    question, history = split_conversation(messages)
    assert question == "And a board?"
    assert history == (Turn("user", "What is a card?"), Turn("assistant", "A note."))


@pytest.mark.parametrize("messages", [[], [("system", "x")], [("user", " \n")], [("assistant", "x")]])
def test_a_conversation_without_a_question_is_refused(messages: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="no question"):
        split_conversation(messages)


def test_tokens_are_words_punctuation_marks_and_single_characters_of_scripts_without_spaces() -> None:
    assert count_tokens("Don't panic, café!") == 7
    assert count_tokens("") == 0
    assert count_tokens("ボード v2 を開く") == 3 + 1 + 3


def test_an_answer_is_cut_before_the_first_stop_sequence() -> None:
    reply = shorten("one two three", stop=["three", "two"], max_tokens=None)
    assert (reply.text, reply.finish_reason, reply.tokens) == ("one ", "stop", 1)


def test_an_answer_that_has_just_as_many_tokens_as_allowed_is_complete() -> None:
    assert shorten("One two, three.", stop=[], max_tokens=5).finish_reason == "stop"
    cut = shorten("One two, three.", stop=[], max_tokens=3)
    assert (cut.text, cut.finish_reason, cut.tokens) == ("One two,", "length", 3)


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_the_pieces_of_a_text_joined_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_the_engine_refuses_what_it_cannot_get_to_and_recovers() -> None:
    async def scenario() -> None:
        bot = Bot()
        engine = Engine(bot, workers=1, waiting=1)
        first = engine.submit("wait", ())
        assert await asyncio.to_thread(bot.entered.acquire, timeout=10)
        second = engine.submit(QUESTION, ())
        assert not engine.is_open
        with pytest.raises(EngineBusyError, match="2 questions are waiting"):
            engine.submit(QUESTION, ())
        bot.release.set()
        assert await second == ANSWER
        assert isinstance(await first, Answer)
        assert await engine.submit(QUESTION, ()) == ANSWER
        engine.close()
        with pytest.raises(EngineBusyError, match="shutting down"):
            engine.submit(QUESTION, ())

    asyncio.run(scenario())


def test_a_question_given_up_while_it_waits_leaves_its_place_at_once() -> None:
    async def scenario() -> None:
        bot = Bot()
        engine = Engine(bot, workers=1, waiting=1)
        first = engine.submit("wait", ())
        assert await asyncio.to_thread(bot.entered.acquire, timeout=10)
        engine.submit(QUESTION, ()).cancel()
        await asyncio.sleep(0)
        assert engine.open == 1
        bot.release.set()
        await first
        assert [question for question, _ in bot.asked] == ["wait"]

    asyncio.run(scenario())


def test_an_answer_that_holds_no_thread_stops_when_it_is_given_up() -> None:
    class Endless:
        stopped = False

        async def answer_async(self, question: str, history: Sequence[Turn] = ()) -> Answer:
            try:
                await asyncio.sleep(60)
            finally:
                self.stopped = True
            raise AssertionError(question, history)

    async def scenario() -> None:
        bot = Endless()
        engine = Engine(bot, workers=1, waiting=0)
        pending = engine.submit(QUESTION, ())
        await asyncio.sleep(0)
        pending.cancel()
        await asyncio.wait({pending})
        assert (bot.stopped, engine.open, engine.is_open) == (True, 0, True)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("question", "wants_a_person"),
    [
        ("Can I talk to a human?", True),
        ("please connect me to your support", True),
        ("I want to speak with someone", True),
        ("How do I remove a person from a board?", False),
        ("Does the chat work with guests?", False),
    ],
)
def test_who_asks_for_a_person_is_offered_one_even_with_an_answer(question: str, wants_a_person: bool) -> None:
    assert describe(ANSWER, question)["escalate"] is wants_a_person


def test_the_engine_passes_on_only_the_newest_turns() -> None:
    async def scenario() -> None:
        bot = Bot()
        engine = Engine(bot, workers=1)
        await engine.submit("short", [Turn("user", str(number)) for number in range(100)])
        assert [turn.text for turn in bot.asked[0][1]] == [str(number) for number in range(68, 100)]
        engine.close()

    asyncio.run(scenario())


def test_a_page_of_the_manual_has_the_anchors_of_its_sections_and_no_markup_but_its_own() -> None:
    page = Manual([MOVE_PAGE], MOVE_SECTIONS).page("cards/move.md", site_title="Help")
    assert page is not None
    assert '<h1 id="cards">Cards</h1>' in page
    assert '<h2 id="move-a-card">Move a card</h2>' in page
    assert '<h3 id="nested-one">Nested one</h3>' in page
    assert "<script" not in page
    assert "<img" not in page
    assert 'href="javascript' not in page
    assert '<a href="boards.md">good</a>' in page
    assert "1<br>2" in page
    assert "&lt;your-name&gt;" in page
    assert 'href="../../static/base.css"' in page


def test_headings_without_sections_of_their_own_get_no_anchor_and_do_no_harm() -> None:
    assert render_markdown("# A\n\n## B", ["b"]) == '<h1>A</h1>\n<h2 id="b">B</h2>\n'
    assert render_markdown("# A", ["", "x", "a"]) == '<h1 id="a">A</h1>\n'
    assert render_markdown("plain", ["x"]) == "<p>plain</p>\n"


def test_suggestions_come_from_different_pages_and_read_like_questions() -> None:
    def section(document: str, *path: str, text: str = "x" * 50) -> Section:
        return Section(document + path[-1], document, path, "", text, 0, "")

    sections = [
        section("a", "Introduction"),
        section("a", "Introduction", "Start your first board"),
        section("a", "Introduction", "Another thing to do"),
        section("b", "Cards", "Vote on cards quickly"),
        section("c", "Export", "Export a board as PDF", text="too short"),
        section("c", "Export", "A heading that is much too long to be shown on a small button of a phone"),
        section("d", "Roles", "Guests"),
    ]
    assert suggest(sections) == ("Start your first board", "Vote on cards quickly", "Guests")
    assert suggest(sections, count=1) == ("Start your first board",)
    assert suggest([]) == ()


def test_follow_ups_are_the_cited_pages_other_headings_nearest_first() -> None:
    def section(number: int, document: str, *path: str, text: str = "x" * 50) -> Section:
        return Section(f"s{number}", document, path, "", text, number, "")

    sections = [
        section(0, "d1", "All about the cards of a board"),
        section(1, "d1", "Cards", "Colour a card"),
        section(2, "d1", "Cards", "Move a card"),
        section(3, "d1", "Cards", "Move a card back"),
        section(4, "d1", "Cards", "Notes"),
        section(5, "d1", "Cards", "Link two cards together", text=""),
        section(6, "d1", "Cards", "Delete a card"),
        section(7, "d2", "Boards", "Share a board"),
        section(8, "d2", "Boards", "Copy a board"),
    ]

    def cite(number: int) -> Citation:
        return Citation("", "", "", 1.0, f"s{number}")

    follow_ups = FollowUps(sections)
    assert follow_ups.after([cite(2)]) == ("Move a card back", "Colour a card", "Delete a card")
    assert follow_ups.after([cite(2), cite(3)], count=2) == ("Colour a card", "Delete a card")
    assert follow_ups.after([cite(6), cite(7)], count=9)[-1] == "Copy a board"
    assert follow_ups.after([cite(99)]) == ()
