"""What stands beside the questions: documents, conversations and replay, in their shares, and no question less."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from byheart.answer.base import Turn
from byheart.answer.citing import question_of
from byheart.answer.grounds import exchanges
from byheart.catalog import find_model
from byheart.chat import Chat, Example, bind
from byheart.errors import TrainError
from byheart.memory.choose import GB, Machine
from byheart.memory.size import Size, size_of
from byheart.models.adapters import LoraSettings
from byheart.train import fit, lessons, mix
from byheart.train.answers import loss_of_questions
from byheart.train.buckets import Buckets
from byheart.train.doctor import Reading, diagnose
from byheart.train.lessons import Beside, Manual, Room
from byheart.train.mix import Shares, Told
from tiny_models import tiny_tokenizer

SECTIONS = [
    ((f"Page {page}", f"Section {section}"), f"Open board {page} and choose {section}. Guests cannot. " * 3,
     (f"fact {page} {section} 0", f"fact {page} {section} 1"))
    for page in range(6) for section in range(3)
]  # fmt: skip
PAIRS = [
    Told(f"How do I {verb} {fact} in {path[1]} of {path[0]}?", f"Choose {fact}, then {path[1]} of {path[0]}.",
         fact_ids=(fact,), place=(path[0], " › ".join(path)))
    for path, _, facts in SECTIONS for fact in facts for verb in ("open", "find", "use")
]  # fmt: skip
REFUSED = Told("What is the weather?", "The manual does not say.")
MANUAL = Manual(SECTIONS, {})


@functools.cache
def chat_of(name: str = "gpt2") -> Chat:
    entry = find_model(name)
    assert entry
    return bind(tiny_tokenizer(entry), entry, encoder_decoder=False)[0]


def questions(chat: Chat) -> list[Example]:
    return chat.examples([(pair.question, pair.answer, ()) for pair in (*PAIRS, REFUSED)])


def made(
    shares: Shares, *, chat: Chat | None = None, manual: Manual = MANUAL, seed: int = 0, most: int = 200,
    replay: Sequence[Told] = (),
) -> tuple[Beside, dict[str, str]]:  # fmt: skip
    chat = chat or chat_of()
    return lessons.beside(
        questions(chat), [*PAIRS, REFUSED], manual, replay, chat=chat, shares=shares, room=Room(most, 0, 0), seed=seed
    )


def replay_file(folder: Path, *lines: str) -> Path:
    path = folder / "general.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def tokens(examples: list[Example]) -> int:
    return sum(len(example.prompt) + len(example.answer) for example in examples)


@pytest.mark.parametrize("name", ["gpt2", "openchat/openchat_3.5"])
def test_the_shares_of_the_tokens_come_out_as_set(name: str) -> None:
    chat = chat_of(name)
    replay = [Told("What is two and two?", "Four.")]
    shares = Shares(documents=0.4, conversations=0.05, replay=0.1)
    found, said = made(shares, chat=chat, replay=replay)
    whole = tokens(questions(chat)) + tokens(found.examples)
    bounds = list(itertools.accumulate(found.counts.values(), initial=0))
    for kind, first, end in zip(found.counts, bounds, bounds[1:], strict=False):
        part = found.examples[first:end]
        longest = max(tokens([example]) for example in part)
        assert abs(tokens(part) - getattr(shares, kind) * whole) <= longest  # half of one is what rounding costs
    assert bounds[-1] == len(found.examples) == len(found.facts)
    assert list(found.counts) == ["documents", "conversations", "replay"]
    assert said["the mix"].startswith("109 questions (45% of the tokens), ")


def test_the_seed_alone_tells_what_is_taken() -> None:
    shares = Shares(0.3, 0.2, 0.0)
    assert made(shares) == made(shares)
    assert made(shares)[0].examples != made(shares, seed=1)[0].examples


def test_every_section_comes_once_before_any_comes_again() -> None:
    found, said = made(Shares(0.5, 0.0, 0.0))
    assert found.counts["documents"] > 2 * len(SECTIONS)
    assert len(set(found.examples[: len(SECTIONS)])) == len(set(found.examples)) == len(SECTIONS)
    assert said["documents"] == "18 sections in 18 parts of at most 200 tokens"
    assert (
        f"{found.counts['documents']} documents (50%, each {found.counts['documents'] / 18:.1f} times)"
        in said["the mix"]
    )
    few, said = made(Shares(0.05, 0.0, 0.0))
    assert f"{few.counts['documents']} documents (5%, {few.counts['documents']} of 18)" in said["the mix"]


def test_a_chat_model_is_asked_for_a_section_in_other_words_each_time() -> None:
    chat = chat_of("openchat/openchat_3.5")
    found, _ = made(Shares(0.6, 0.0, 0.0), chat=chat, most=400)
    asked = {chat.tokenizer.decode(example.prompt) for example in found.examples}
    assert len(asked) >= 2 * len(SECTIONS)
    assert any("What does the manual say under «Page 3 › Section 2»?" in text for text in asked)


def test_a_document_shares_no_batch_with_a_question_about_its_facts() -> None:
    found, _ = made(Shares(0.4, 0.1, 0.0))
    facts = [pair.fact_ids for pair in (*PAIRS, REFUSED)] + found.facts
    lengths = [(1,)] * len(facts)  # whatever their length: only the facts keep them apart
    order = Buckets(lengths, batch_size=4, seed=0, facts=facts)
    batches = [order.batch(step) for step in range(order.steps_per_epoch)]
    assert sorted(itertools.chain(*batches)) == list(range(len(facts)))
    mixed = [
        batch for batch in batches if len({f for i in batch for f in facts[i]}) < sum(len(facts[i]) for i in batch)
    ]
    assert len(mixed) <= 2  # the last ones, which nothing else is left for


def test_long_sections_are_cut_between_blocks_and_nothing_is_lost() -> None:
    text = "One two three.\n\n- a list\n- of items\n\n```\ncode\n\nmore code\n```\n\nFour five six seven. Eight nine.\n"

    def words(most: int) -> list[str]:
        return mix.cut(text, fits=lambda part: len(part.split()) <= most)

    assert words(100) == [text]
    assert [part.strip() for part in words(8)] == [
        "One two three.", "- a list\n- of items", "```\ncode\n\nmore code\n```", "Four five six seven. Eight nine.",
    ]  # fmt: skip
    assert "Four five six seven." in [part.strip() for part in words(4)]  # a block too long is cut between sentences
    assert max(len(part.split()) for part in words(2)) == 2
    assert all("".join(words(most)) == text for most in (1, 2, 3, 5, 8, 12))
    assert mix.cut("", fits=lambda part: True) == []


def test_documents_fit_into_what_the_model_reads_and_say_which_part_they_are() -> None:
    long = "Open the dashboard and choose Delete. " * 40
    manual = Manual([(("Boards", "Delete"), long, ("fact",)), (("Boards",), "x" * 5000, ()), (("Empty",), "", ())], {})
    chat = chat_of()
    found, said = made(Shares(0.5, 0.0, 0.0), manual=manual, most=100)
    assert max(tokens([example]) for example in found.examples) <= 100
    parts = {chat.tokenizer.decode(example.prompt): chat.text(example.answer) for example in found.examples}
    assert " ".join(parts[f"Boards › Delete ({n}/{len(parts)})\n"] for n in range(1, len(parts) + 1)) == long.strip()
    assert said["documents"].endswith("; 1 more are left out, as no part of them is short enough")


def test_addresses_and_pictures_are_not_learned() -> None:
    told, _ = mix.documents(
        [(("A",), "See [the page](https://a.example/x_(y)#z) ![a board](b.png).", ("f",))], fits=lambda to, text: True
    )
    assert told == [Told("A", "See the page a board.", fact_ids=("f",))]


def test_the_turns_of_a_conversation_are_about_one_page_and_never_repeat_a_fact() -> None:
    told = list(mix.conversations([*PAIRS, REFUSED], shuffle=random.Random(0)))
    by_question = {pair.question: pair for pair in PAIRS}
    lengths = set()
    stood: list[str] = []
    for conversation in told:
        turns = [by_question[asked] for asked, _ in (*conversation.history, (conversation.question, ""))]
        assert len({turn.place[0] for turn in turns}) == 1
        assert len({fact for turn in turns for fact in turn.fact_ids}) == len(turns)
        assert conversation.fact_ids == turns[-1].fact_ids
        lengths.add(len(turns))
        stood += [turn.question for turn in turns]
    assert lengths == {2, 3}
    assert len(stood) == len(set(stood)) > 0.8 * len(PAIRS)
    alone = [Told("Why?", "So.", fact_ids=("f",), place=("page", "section")), REFUSED]
    assert list(mix.conversations(alone, shuffle=random.Random(0))) == []


@pytest.mark.parametrize("asked", ["How do I invite a guest?", "And how do I undo that?"])
@pytest.mark.parametrize("name", ["gpt2", "openchat/openchat_3.5"])
def test_a_conversation_is_learned_token_for_token_as_it_is_served(name: str, asked: str) -> None:
    chat = chat_of(name)
    told = lessons.as_served(Told(asked, "Only an owner may.", history=(("Can I delete a board?", "Choose Delete."),)))
    example = chat.examples([(told.question, told.answer, told.history)])[0]
    turns = [Turn("user", "Can I delete a board?"), Turn("assistant", "Choose Delete.")]
    assert list(example.prompt) == chat.prompt(question_of(asked, turns), exchanges(turns))  # as answer.grounds does
    assert chat.text(example.answer) == "Only an owner may."


def test_replay_is_read_in_both_forms(tmp_path: Path) -> None:
    messages = (
        '{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}, '
        '{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Sum?"}, '
        '{"role": "assistant", "content": "4"}]}'
    )
    found = mix.read_replay(replay_file(tmp_path, messages, "", '{"question": "Why?", "answer": "So."}'))
    assert found == [Told("Sum?", "4", history=(("Hi.", "Hello."),)), Told("Why?", "So.")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "Why?"}', "KeyError: 'answer'"),
        ('{"messages": [{"role": "user", "content": "Hi."}]}', "its messages are by user"),
        ('{"messages": []}', "its messages are by nobody"),
        ('{"messages": [{"role": "user", "content": 5}, {"role": "assistant", "content": "x"}]}', "a text is missing"),
        ('{"question": " ", "answer": "So."}', "a text is missing"),
        ("[1, 2]", "TypeError"),
        ("5", "TypeError"),
        ("{torn", "JSONDecodeError"),
    ],
)
def test_a_line_that_is_no_conversation_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = replay_file(tmp_path, '{"question": "Why?", "answer": "So."}', line)
    with pytest.raises(TrainError) as caught:
        mix.read_replay(path)
    assert f"train.replay: {path}:2: no conversation ({said}" in str(caught.value).replace("ValueError: ", "")


def test_a_replay_file_that_cannot_be_read_or_is_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="holds no conversation"):
        mix.read_replay(replay_file(tmp_path, ""))
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    for name in ("latin", "lost"):
        with pytest.raises(TrainError, match=f"{name} cannot be read"):
            mix.read_replay(tmp_path / name)


def test_what_cannot_be_filled_goes_to_the_questions_and_is_said() -> None:
    replay = [Told("Why?", "So it is. " * 200)]
    found, said = made(Shares(0.4, 0.1, 0.2), manual=Manual([], {}), replay=replay)
    assert (
        said["documents"]
        == said["replay"]
        == "none: nothing there that 200 tokens hold; the share goes to the questions"
    )
    assert list(found.counts) == ["conversations"]
    assert tokens(found.examples) / (tokens(found.examples) + tokens(questions(chat_of()))) == pytest.approx(
        0.1, abs=0.02
    )
    assert made(Shares(0.4, 0.0, 0.0), manual=Manual([], {}))[0] == Beside([], [], {})


OPEN: dict[str, Any] = {"documents": None, "conversations": None, "replay": None, "passages": None, "reads": False}


def test_the_default_shares_are_the_designs_and_none_for_a_model_from_scratch() -> None:
    shares, said = mix.choose_shares(**OPEN, has_replay=True, from_scratch=False)
    assert shares == Shares(0.4, 0.05, 0.1)
    assert shares.questions == pytest.approx(0.45)
    assert said["train.mix_documents"] == "0.4: of the tokens, after EntiGraph and sdg_hub; not measured here"
    shares, said = mix.choose_shares(**OPEN, has_replay=False, from_scratch=False)
    assert shares == Shares(0.4, 0.05, 0.0)
    assert said["train.mix_replay"].startswith("0: train.replay names no file")
    assert said["train.mix_passages"] == "0: the bot answers by heart (answer.grounding)"
    shares, said = mix.choose_shares(**OPEN | {"reads": True}, has_replay=True, from_scratch=False)
    assert shares == Shares(0.4, 0.05, 0.1, 0.3)
    assert shares.questions == pytest.approx(0.15)
    assert said["train.mix_passages"].startswith("0.3: of the tokens, for what answer.grounding puts into prompts")
    shares, said = mix.choose_shares(**OPEN | {"reads": True}, has_replay=True, from_scratch=True)
    assert shares == Shares(0.0, 0.0, 0.0)
    assert said["train.mix_documents"].startswith("0: a model from scratch reads few tokens")


def test_a_share_that_is_set_is_kept_and_the_others_take_what_it_leaves() -> None:
    shares, said = mix.choose_shares(**OPEN | {"conversations": 0.8}, has_replay=True, from_scratch=False)
    assert shares == Shares(0.1, 0.8, 0.0)
    assert "train.mix_conversations" not in said
    shares, _ = mix.choose_shares(**OPEN | {"documents": 0.2}, has_replay=False, from_scratch=True)
    assert shares == Shares(0.2, 0.0, 0.0)
    shares, _ = mix.choose_shares(**OPEN | {"passages": 0.7}, has_replay=False, from_scratch=False)
    assert shares == Shares(0.2, 0.0, 0.0, 0.7)


def test_documents_are_cut_shorter_where_memory_holds_no_longer_ones() -> None:
    entry = find_model("openchat/openchat_3.5")
    assert entry
    size = size_of(entry.architecture, entry.shape, parameters=entry.parameters)
    lora = LoraSettings(targets="all-linear", rank=32, alpha=64, dropout=0.0)

    def longest(gb: float, size: Size | None = size, wished: int = 4096) -> int:
        machine = Machine(1, gb * GB, "a GPU", in_bf16=True)
        return fit.longest_that_fits(
            wished, least=100, size=size, base_model=entry.name, lora=lora, machine=machine, method="lora"
        )

    assert longest(80) == 4096
    assert longest(18) == 2048
    assert longest(4) == 100  # the questions are that long anyway
    assert longest(4, size=None, wished=512) == 512


def test_what_is_told_of_a_step_is_the_loss_of_its_questions_alone() -> None:
    batch = [Example((1,), (2, 3)), Example((1,), (2, 3, 4, 5)), Example((1,), (2,) * 30)]
    assert loss_of_questions(1.7, [1.0, 4.0, 9.0], batch, [True, True, False]) == pytest.approx((2 + 16) / 6)
    assert loss_of_questions(1.7, [1.0, 4.0, 9.0], batch, [False, False, False]) is None
    assert loss_of_questions(1.7, [1.0, 4.0, 9.0], batch, [True, True, True]) == 1.7


def test_documents_that_stay_harder_than_questions_do_not_look_jumpy_to_the_loss_doctor() -> None:
    kinds = {told: set[str]() for told in ("all", "questions")}
    for told, found in kinds.items():
        chance = random.Random(0)
        readings = [Reading(0, None, 3.0)]
        for step in range(1, 2001):
            fall = math.exp(-3 * step / 2000)
            is_document = chance.random() < 0.2
            level = 1.0 + 1.8 * fall if is_document else 0.05 + 2.45 * fall
            loss = level * math.exp(chance.gauss(0, 0.35))
            unseen = 0.055 + 2.7 * fall if step % 100 == 0 else None
            known = 1 - fall if unseen else None
            readings.append(Reading(step, loss if told == "all" or not is_document else None, unseen, known=known))
            if unseen:
                found.add(diagnose(readings, total_steps=2000, warm_up_steps=60, is_last=step == 2000).kind)
    assert "jumpy" in kinds["all"]
    assert "jumpy" not in kinds["questions"]
