"""The evaluation set: which questions are asked, and what the user hears about a bad file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from byheart.errors import ConfigError
from byheart.evaluate.questions import questions_from_files, questions_from_pairs
from byheart.records import Fact, Pair, PairKind, Section, Split


def make_pair(number: int, section: str, split: Split = "train", kind: PairKind = "qa") -> Pair:
    return Pair(
        id=f"pair-{section}-{number}",
        fact_ids=(f"fact-{section}",) if section else (),
        section_id=section,
        question=f"question {number} on {section}?",
        answer=f"answer on {section}",
        kind=kind,
        perspective="newcomer",
        temperature=0.6,
        teacher="offline",
        prompt_id="t",
        split=split,
    )


def make_manual(sections: int) -> tuple[list[Section], list[Fact]]:
    names = [f"s{n}" for n in range(sections)]
    return (
        [Section(name, "doc", ("Page", name), f"page.md#{name}", "Text.", n, "") for n, name in enumerate(names)],
        [Fact(f"fact-{name}", name, f"Statement of {name}.", 0, 4, "statement") for name in names],
    )


def write(path: Path, *lines: str | dict[str, object]) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def read(*paths: Path) -> list[tuple[str, str]]:
    return [(q.id, q.group) for q in questions_from_files(paths=paths, max_per_group=400, seed=0)]


def test_every_split_becomes_a_group_and_keeps_the_pairs_id_source_and_facts() -> None:
    sections, facts = make_manual(1)
    pairs = [make_pair(0, "s0"), make_pair(1, "s0", "unseen phrasing"), make_pair(2, "", "outside", "refusal")]
    questions = {
        q.id: q for q in questions_from_pairs(pairs=pairs, facts=facts, sections=sections, max_per_group=9, seed=0)
    }
    assert {q.id: q.group for q in questions.values()} == {
        "pair-s0-0": "seen phrasing",
        "pair-s0-1": "unseen phrasing",
        "pair--2": "outside",
    }
    assert questions["pair-s0-1"].key_facts == ("Statement of s0.",)
    assert questions["pair-s0-1"].source == "page.md#s0"
    assert (questions["pair--2"].key_facts, questions["pair--2"].source, questions["pair--2"].answer) == ((), "", "")


def test_statements_and_refusals_of_the_training_are_not_asked_as_seen_phrasing() -> None:
    sections, facts = make_manual(1)
    pairs = [make_pair(0, "s0", kind="statement"), make_pair(1, "", kind="refusal"), make_pair(2, "s0")]
    questions = questions_from_pairs(pairs=pairs, facts=facts, sections=sections, max_per_group=9, seed=0)
    assert [q.id for q in questions] == ["pair-s0-2"]


def test_a_sample_asks_every_section_once_before_one_twice() -> None:
    sections, facts = make_manual(10)
    pairs = [make_pair(n, f"s{s}") for s in range(10) for n in range(50 if s == 0 else 3)]
    questions = questions_from_pairs(pairs=pairs, facts=facts, sections=sections, max_per_group=15, seed=0)
    asked = Counter(q.source for q in questions)
    assert len(asked) == 10
    assert set(asked.values()) == {1, 2}


def test_seen_phrasing_first_asks_the_sections_that_unseen_phrasing_left_out() -> None:
    sections, facts = make_manual(20)
    pairs = [make_pair(n, f"s{s}", "train" if n else "unseen phrasing") for s in range(20) for n in range(3)]
    questions = questions_from_pairs(pairs=pairs, facts=facts, sections=sections, max_per_group=10, seed=0)
    assert len({q.source for q in questions}) == 20


def test_the_sample_is_the_same_for_a_seed_whatever_the_order_of_the_pairs() -> None:
    sections, facts = make_manual(5)
    pairs = [make_pair(n, f"s{s}") for s in range(5) for n in range(20)]

    def ids(pairs: list[Pair], seed: int) -> set[str]:
        sample = questions_from_pairs(pairs=pairs, facts=facts, sections=sections, max_per_group=10, seed=seed)
        return {q.id for q in sample}

    assert ids(pairs, 0) == ids(pairs[::-1], 0) != ids(pairs, 1)


def test_the_users_file_is_split_into_questions_the_manual_answers_and_others(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"id": "a", "question": "How?", "key_facts": ["Settings"], "source": "p.md#S", "kind": "howto", "extra": 1},
        "",
        {"question": "Price?", "kind": "unanswerable", "source": None},
        {"id": 7, "question": "Weather?"},
        {"id": "d", "question": "Is it?", "answer": "It is."},
        {"id": "e", "question": "Timeline?", "answer": "There is none.", "kind": "false-premise", "key_facts": ["x"]},
    )
    assert sorted(read(path)) == [
        ("7", "yours outside"),
        ("a", "yours"),
        ("d", "yours"),
        ("e", "yours outside"),
        ("mine-3", "yours outside"),
    ]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": "a", "question": "How?"}\n', encoding="utf-8-sig")
    assert read(path) == [("a", "yours outside")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{not json", "not JSON"),
        ('["a"]', "a JSON list, not an object"),
        ({"key_facts": ["x"]}, "no question"),
        ({"question": "  "}, "no question"),
        ({"question": 3}, "question is 3, not a text"),
        ({"question": "How?", "key_facts": "Settings"}, "not a list of texts"),
        ({"question": "How?", "key_facts": [""]}, "not a list of texts"),
        ({"question": "How?", "source": ["p.md"]}, "source is"),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_what_is_expected(
    tmp_path: Path, line: str | dict[str, object], fault: str
) -> None:
    path = write(tmp_path / "q.jsonl", {"question": "Fine?"}, line)
    with pytest.raises(ConfigError) as raised:
        read(path)
    (message,) = raised.value.faults
    assert message.startswith(f"{path}:2: ")
    assert fault in message
    assert "expected one JSON object a line" in message


def test_all_faults_of_all_files_come_at_once(tmp_path: Path) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"question": "Größe?"}'.encode("latin-1"))
    first = write(tmp_path / "one.jsonl", {"id": "a", "question": "A?"}, "oops")
    second = write(tmp_path / "two.jsonl", {"id": "a", "question": "B?"})
    with pytest.raises(ConfigError) as raised:
        read(first, second, write(tmp_path / "empty.jsonl", ""), tmp_path / "none.jsonl", latin)
    told = "\n".join(raised.value.faults)
    assert len(raised.value.faults) == 5
    assert f"{first}:2: not JSON" in told
    assert f"{second}:1: the id 'a' is taken by {first}:1" in told
    assert "empty.jsonl: holds no question" in told
    assert "none.jsonl: No such file" in told
    assert "latin.jsonl: not UTF-8" in told


def test_a_large_file_is_sampled(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", *({"question": f"Number {n}?", "key_facts": ["x"]} for n in range(50)))
    assert len(questions_from_files(paths=[path], max_per_group=10, seed=0)) == 10
