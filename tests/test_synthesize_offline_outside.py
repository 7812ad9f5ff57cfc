from __future__ import annotations

import collections
import random
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import pytest
import yaml

from byheart.synthesize import offline_outside
from byheart.synthesize.filters import outside_fault
from byheart.synthesize.offline_outside import bank_entries, foreign_entries, inside_questions, outside_questions

MANUAL = "Open the dashboard and add a project. Rename the folder in its menu. Members see the version history."
PHRASES = ("rename a folder", "dashboards", "version history", "members and their rights in a project")


SECOND = "outside-bank-2.yaml"


def prompts() -> Traversable:
    return resources.files("byheart.synthesize").joinpath("prompts")


def asked(manual: str = MANUAL, phrases: tuple[str, ...] = PHRASES, count: int = 200, seed: int = 1) -> list[str]:
    return [question for _, question in outside_questions(manual, phrases, count=count, rng=random.Random(seed))]


def texts(manual: str) -> set[str]:
    return {entry.text for entry in foreign_entries(manual)}


def test_the_bank_is_broad() -> None:
    entries = bank_entries()
    sizes = collections.Counter(entry.kind for entry in entries)
    assert sizes["off-topic"] >= 150
    assert sizes["unanswerable"] >= 200
    assert len({entry.foreign for entry in entries if entry.kind == "false-premise"}) >= 150
    groups = collections.Counter((entry.kind, entry.group) for entry in entries)
    assert len(groups) >= 50
    assert min(groups.values()) >= 8


def test_no_question_stands_twice_in_the_bank() -> None:
    entries = bank_entries()
    spoken = [" ".join(re.findall(r"[\w{}]+", entry.text.casefold())) for entry in entries]
    assert [text for text, count in collections.Counter(spoken).items() if count > 1] == []
    # YAML keeps the last of two equal keys without a word, and the loader the first of two alike: the files' own lines
    # must be as many.
    files = [prompts().joinpath(name).read_text(encoding="utf-8") for name in ("outside-bank.yaml", SECOND)]
    lines = re.findall(r'^    ".+": ".*"$', "\n".join(files), re.MULTILINE)
    assert len(lines) == sum(not entry.made for entry in entries)


def test_the_second_bank_is_loaded_with_the_first() -> None:
    second = yaml.safe_load(prompts().joinpath(SECOND).read_text(encoding="utf-8"))
    sizes = {kind: sum(map(len, groups.values())) for kind, groups in second.items()}
    assert sizes["off-topic"] >= 250
    assert sizes["unanswerable"] >= 300
    assert sizes["false-premise"] >= 250
    loaded = {(entry.kind, entry.group, entry.text) for entry in bank_entries()}
    own = {(kind, group, text) for kind, groups in second.items() for group, texts in groups.items() for text in texts}
    assert own <= loaded


def test_false_premises_written_in_full_are_taken_before_those_made_of_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_outside, "_in_a_voice", lambda question, rng: question)
    written = {entry.text for entry in foreign_entries(MANUAL) if entry.kind == "false-premise" and not entry.made}
    few = outside_questions(MANUAL, ("{amount}",), count=100, rng=random.Random(1))
    premises = {re.sub(r"\b(12|25|40|80|150|300|1000)\b", "{amount}", text) for kind, text in few if kind[0] == "f"}
    known = {re.sub(r"\b(12|25|40|80|150|300|1000)\b", "{amount}", text) for text in written}
    assert len(premises) == 40
    assert premises <= known
    many = outside_questions(MANUAL, PHRASES, count=2000, rng=random.Random(1))
    texts = [text for kind, text in many if kind == "false-premise"]
    assert sum(text in written for text in texts) > 0.9 * len(written)
    assert len(texts) > 2 * len(written)


def test_every_bank_of_inside_questions_is_merged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "inside-bank.yaml").write_text('chat:\n  - "mark as unread"\n', encoding="utf-8")
    assert inside_questions.__wrapped__() == ("mark as unread",)
    (folder / "inside-bank-2.yaml").write_text('mail:\n  - "Mark as unread?"\n  - "rename it"\n', encoding="utf-8")
    (folder / "outside-bank.yaml").write_text('chat:\n  - "hi"\n', encoding="utf-8")
    assert sorted(map(str.casefold, inside_questions.__wrapped__())) == ["mark as unread", "rename it"]


def test_every_false_premise_says_what_makes_it_foreign() -> None:
    entries = [entry for entry in bank_entries() if entry.kind == "false-premise"]
    assert [entry.text for entry in entries if not entry.foreign] == []
    assert not re.search(r"\{(?!thing|task|amount)", " ".join(entry.text for entry in entries))


def test_the_kinds_are_mixed_in_their_shares() -> None:
    made = outside_questions(MANUAL, PHRASES, count=100, rng=random.Random(1))
    assert collections.Counter(kind for kind, _ in made) == {"off-topic": 20, "unanswerable": 40, "false-premise": 40}
    assert len({kind for kind, _ in made[:20]}) == 3


@pytest.mark.parametrize("count", [1, 10, 2000])
def test_as_many_questions_come_out_as_are_wanted_and_none_twice(count: int) -> None:
    questions = asked(count=count)
    assert len(questions) == count
    assert len({question.casefold().rstrip("?.!") for question in questions}) == count


def test_the_themes_come_evenly() -> None:
    brands = [entry for entry in bank_entries() if entry.group == "brands"]
    names = {entry.foreign[0] for entry in brands}
    of_brands = sum(any(name in question for name in names) for question in asked(count=400))
    assert of_brands < 40  # of 160 false premises, in 21 groups


def test_the_same_seed_gives_the_same_questions_and_another_gives_others() -> None:
    assert asked(seed=3) == asked(seed=3)
    assert len(set(asked(seed=3)) & set(asked(seed=4))) < 100


@pytest.mark.parametrize("phrases", [PHRASES, ()])
def test_every_slot_is_filled(phrases: tuple[str, ...]) -> None:
    questions = asked(phrases=phrases, count=2000)
    assert [question for question in questions if "{" in question or "}" in question] == []
    assert any("version history" in question for question in questions) == bool(phrases)


def test_braces_in_the_manuals_own_phrases_stay_as_they_are() -> None:
    assert any("the {city} field" in question for question in asked(phrases=("the {city} field",), count=400))


def test_tasks_and_things_are_put_where_they_fit() -> None:
    questions = " | ".join(asked(count=2000)).lower()
    assert "can i rename a folder" in questions
    assert "can i version history" not in questions
    assert "does rename a folder" not in questions


@pytest.mark.parametrize(
    ("manual", "gone"),
    [
        ("You can send a fax.", "How do I use the fax gateway?"),
        ("Barcodes are read.", "How do I use the barcode scanner?"),
        ("Tax returns are made here.", "How do I use the tax return form?"),
        ("Two COMPANIES: print supplier lists.", "How do I use the supplier portal?"),
        ("Use the green-screen.", "How do I use the green screen?"),
        ("Add a subtitle.", "How do I use the subtitle editor?"),
        ("Move to us from Lotus Notes.", "connect Lotus Notes"),
        ("Our prices are low.", "price list?"),
        ("All about currencies.", "what does it cost in rupees"),
        ("Pour the wine.", "which wine goes with fish?"),
    ],
)
def test_a_question_whose_foreign_word_the_manual_has_is_left_out(manual: str, gone: str) -> None:
    assert gone in texts(MANUAL)
    assert gone not in texts(manual)
    assert len(texts(manual)) > 0.9 * len(bank_entries())


def test_a_term_of_several_words_counts_only_as_a_whole() -> None:
    assert "How do I use the green screen?" in texts("The screen turns green.")


@pytest.mark.parametrize(
    "manual", ["", "Help", "Öffnen Sie das Menü „Gerät“ und wählen Sie die Größe. Über Straßen führt der Weg."]
)
def test_tiny_and_german_manuals_get_questions(manual: str) -> None:
    assert len(asked(manual, ("Ordner umbenennen", "Größe"), count=50)) == 50


def test_a_manual_that_has_every_foreign_word_leaves_what_is_foreign_everywhere() -> None:
    manual = " ".join(term for entry in bank_entries() for term in entry.foreign)
    made = outside_questions(manual, PHRASES, count=100, rng=random.Random(1))
    assert {kind for kind, _ in made} == {"off-topic"}


def test_the_questions_pass_the_filter_of_outside_questions() -> None:
    questions = asked(count=1000)
    refused = [question for question in questions if outside_fault(question, "en")]
    assert len(refused) < 10, refused


def test_every_slot_of_the_bank_has_words_to_fill_it() -> None:
    # YAML reads a bare 0x80070057 or 2027 as a number.
    text = resources.files("byheart.synthesize").joinpath("prompts", "outside-bank.yaml").read_text(encoding="utf-8")
    fills = yaml.safe_load(text)["fills"]
    assert [value for values in fills.values() for value in values if not isinstance(value, str)] == []
    slots = {slot for entry in bank_entries() for slot in re.findall(r"\{(\w+)\}", entry.text)}
    assert slots == fills.keys() | {"thing", "task"}


def test_the_inside_bank_is_broad_and_shares_no_question_with_the_outside_bank() -> None:
    questions = inside_questions()
    assert len(questions) >= 450
    # YAML reads a bare "404" as a number and "error: x" as a mapping.
    assert [question for question in questions if not isinstance(question, str) or not question.strip()] == []
    spoken = [" ".join(re.findall(r"\w+", question.casefold())) for question in questions]
    assert [text for text, count in collections.Counter(spoken).items() if count > 1] == []
    outside = {" ".join(re.findall(r"\w+", entry.text.casefold())) for entry in bank_entries()}
    assert outside.isdisjoint(spoken)
