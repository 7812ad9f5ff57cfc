from __future__ import annotations

import pytest

from byheart.synthesize.filters import (
    NOT_JOINED,
    Source,
    answer_fault,
    joint_fault,
    language_of,
    outside_fault,
    plain,
    question_fault,
    sentences,
)

TEXT = """To invite **Guests**, open the [board menu](https://example.com/menu) and click **Share**.

1. Enter up to 50 addresses.
2. Guests cannot delete a board, but they can
   comment on cards.

| Plan | Boards |
|------|--------|
| Free | 3 |

See https://example.com/help for more.
"""
SOURCE = Source(headings=("Roles", "Invite guests"), markdown=TEXT)
ANSWER = "To invite **Guests**, open the board menu and click **Share**."


@pytest.mark.parametrize(
    "question",
    [
        "How do I invite guests?",
        "guests invite",
        "Hi, we have a workshop tomorrow with people from two other firms. How can they get in?",
        "Is the help at https://example.com/help free?",
        "How do I put text above a card on this page?",
        "SSO",
    ],
)
def test_questions_of_all_lengths_and_tones_pass(question: str) -> None:
    assert question_fault(question, ANSWER, SOURCE) is None


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("", "empty question"),
        (" ?! ", "empty question"),
        ("How do I?", "question without content"),
        ("word " * 81, "question too long"),
        ("What does this section say about guests?", "question refers to a text that its reader does not see"),
        ("Who can delete boards according to the text?", "question refers to a text that its reader does not see"),
        ("As mentioned above, who may comment?", "question refers to a text that its reader does not see"),
        ("Is fact 3 about guests?", "question refers to a text that its reader does not see"),
        ("Can I buy it at https://evil.example/pay ?", "question holds an address that the section does not"),
        ("Shall I write to boss@evil.example?", "question holds an address that the section does not"),
        (
            "Wie kann ich die Gäste zu einem Board einladen und was ist mit den Karten?",
            "question is in another language",
        ),
        ("Как пригласить гостей?", "question is in another script"),
        ("Is it right that to invite guests, open the board menu and click share?", "question gives its answer away"),
        ("Which menu opens when I click share on a board and invite guests?", "question copies its answer"),
    ],
)
def test_questions_not_fit_to_learn_are_rejected_with_the_reason(question: str, reason: str) -> None:
    answer = ANSWER if "copies" not in reason else "To invite guests, open the board menu, click Share."
    fault = question_fault(question, answer, SOURCE)
    assert fault is not None
    assert fault.reason == reason


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        "Open the board menu and click Share. Then simply enter up to 50 addresses of the guests.",
        "1. Enter up to 50 addresses.\n2. Guests cannot delete a board, but they can comment on cards.",
        "Guests can comment on cards.",
        "Yes. Guests cannot delete boards.",
        "Plan Free: 3 Boards",
        "Free",
    ],
)
def test_answers_in_the_manuals_words_pass(answer: str) -> None:
    assert answer_fault(answer, SOURCE) is None


@pytest.mark.parametrize(
    ("answer", "reason", "evidence"),
    [
        ("", "empty answer", ""),
        ("**", "empty answer", "**"),
        ("board " * 401, "answer too long", "401 words"),
        ("Enter up to 100 addresses.", "answer has a number that the section does not", "100"),
        ("Open the board menu and click **Invite**.", None, ""),
        ("Open the board menu and click **Publish**.", "answer names a label that the section does not", "Publish"),
        ("Open the board menu. Billing happens monthly by card.", "answer is not in the section", "billing"),
        ("Guests can delete a board.", "answer denies what the section affirms, or affirms what it denies", ""),
        ("You can not click Share.", "answer denies what the section affirms, or affirms what it denies", "Share"),
    ],
)
def test_answers_that_the_section_does_not_support_are_rejected(answer: str, reason: str | None, evidence: str) -> None:
    fault = answer_fault(answer, SOURCE)
    assert (fault and fault.reason) == reason
    assert fault is None or evidence in fault.evidence


def test_a_denial_turned_round_is_found() -> None:
    source = Source(headings=(), markdown="A trial account cannot export boards to a file. You can print boards.")
    fault = answer_fault("A trial account can export boards to a file.", source)
    assert fault is not None
    assert "affirms what it denies" in fault.reason
    assert answer_fault("Trial accounts cannot export boards to a file.", source) is None


def test_every_sentence_of_a_section_supports_itself() -> None:
    for sentence in sentences(plain(TEXT)):
        assert answer_fault(sentence, SOURCE) is None


def test_markdown_leaves_only_its_words() -> None:
    assert plain("> **Note** see [the `x_y` menu](a.md) ![icon](i.png)<br> *now*") == "Note see the x_y menu icon  now"
    assert plain("- one\n- two\n\n| a | b |") == "one\ntwo\na\nb"


def test_lines_that_go_on_in_lower_case_are_one_sentence() -> None:
    assert sentences("Guests cannot\ndelete boards. They\nmay read.\nOwners may") == [
        "Guests cannot\ndelete boards.",
        "They\nmay read.",
        "Owners may",
    ]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I get the board to the team?", "en"),
        ("Wie kann ich mit der Karte auf das Board?", "de"),
        ("Comment est-ce que je peux avec le tableau dans une équipe ?", "fr"),
        ("¿Cómo puedo con el tablero y los grupos para mi equipo?", "es"),
        ("export pdf", ""),
        ("", ""),
    ],
)
def test_a_language_is_told_by_its_function_words(text: str, language: str) -> None:
    assert language_of(text) == language


def test_a_japanese_manual_takes_japanese_questions() -> None:
    source = Source(headings=("ボード",), markdown="ゲストはボードを削除できません。カードにコメントできます。")
    assert question_fault("ゲストは何ができますか", "カードにコメントできます。", source) is None
    assert answer_fault("カードにコメントできます。", source) is None
    assert answer_fault("請求書は毎月送信されます。", source) is not None


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Do you deliver pizza?", None),
        ("", "empty question"),
        ("see www.example.com/x please", "question holds an address"),
        ("Kann ich mit der App auch die Steuer machen und wie ist das?", "question is in another language"),
        ("What does the manual say? I mean this manual", "question refers to a text that its reader does not see"),
    ],
)
def test_outside_questions_are_checked_without_a_section(question: str, reason: str | None) -> None:
    fault = outside_fault(question, "en")
    assert (fault and fault.reason) == reason


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("The Team plan has voting. A vote takes up to 3 minutes.", ""),
        ("A vote takes up to 3 minutes, on the Team plan.", ""),
        ("A vote takes up to 3 minutes.", "without this one it is answered, too: The Team plan has voting."),
        ("The Team plan has voting.", "without this one it is answered, too: A vote takes up to 3 minutes."),
        ("The Team plan has voting. Guests cannot delete a board.", "more than they say: "),
        ("A vote takes up to 5 minutes on the Team plan.", "more than they say: 5 in"),
    ],
)
def test_the_answer_to_a_multi_hop_question_takes_all_its_facts_and_nothing_else(answer: str, fault: str) -> None:
    statements = ["The Team plan has voting.", "A vote takes up to 3 minutes."]
    found = joint_fault(answer, statements, ["Help"])
    assert (found is None) == (not fault)
    if found:
        assert found.reason == NOT_JOINED
        assert found.evidence.startswith(fault)
