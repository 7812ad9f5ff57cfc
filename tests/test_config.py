"""The config: every fault at once and at its place, and the origin of every value."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from byheart.config import Config
from byheart.config_file import load, nearest
from byheart.config_settings import as_yaml, groups, json_schema, settings, value_of
from byheart.config_template import new_config, write_new
from byheart.errors import ConfigError


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "manual").mkdir()
    return tmp_path


def write(bot: Path, text: str | bytes) -> Path:
    (bot / "byheart.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return bot


def faults(bot: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(bot, overrides)
    return [fault.replace(f"{bot}/", "") for fault in caught.value.faults]


def test_one_string_is_a_list_of_one(bot: Path) -> None:
    (bot / "q.jsonl").touch()
    config = load(write(bot, "docs: ./manual\nquestions: q.jsonl\n")).project.config
    assert config.docs == ("./manual",)
    assert config.questions == ("q.jsonl",)


def test_the_yaml_file_itself_can_be_named(bot: Path) -> None:
    write(bot, "docs: manual")
    assert load(bot / "byheart.yaml").project.folder == bot


def test_all_faults_come_at_once_each_with_its_line_and_a_way_out(bot: Path) -> None:
    found = faults(
        write(
            bot,
            "docs: [manual, ./manul]\n"
            "questions: [nowhere.jsonl]\n"
            "train:\n"
            "  epoch: 3\n"
            "  lora_rank: -1\n"
            "  lora_rank: 4\n"
            "  patience: yes\n"
            "  batch_size: .inf\n"
            "synthesize: 5\n"
            "temperatures: [0.1]\n",
        ),
        "train.sed=1",
        "train.method=lorra",
        "serve.port",
        "train.seed=[1",
    )
    expected = [
        ("byheart.yaml:1: docs: './manul' is not there", "looked at manul"),
        ("byheart.yaml:2: questions: 'nowhere.jsonl' is not there", ""),
        ("byheart.yaml:4: train.epoch: there is no such setting", "Did you mean train.epochs?"),
        ("byheart.yaml:5: train.lora_rank: -1 does not fit", "a whole number, at least 1. Leave it out"),
        ("byheart.yaml:6: train.lora_rank: is written twice (first in line 5)", ""),
        ("byheart.yaml:7: train.patience: True does not fit", "a whole number"),
        ("byheart.yaml:8: train.batch_size: inf does not fit", "or nothing"),
        ("byheart.yaml:9: synthesize: takes settings beneath it", "teacher"),
        ("byheart.yaml:10: temperatures: there is no such setting", "Did you mean synthesize.temperatures?"),
        ("--set train.sed=1: there is no setting train.sed", "Did you mean train.seed?"),
        ("--set train.method=lorra: 'lorra' does not fit", "one of lora, qlora, full, none"),
        ("--set serve.port: has no '='", "--set train.epochs=3"),
        ("--set train.seed=[1: is not a YAML value", "a whole number"),
    ]
    for start, way_out in expected:
        matching = [fault for fault in found if fault.startswith(start)]
        assert len(matching) == 1, (start, found)
        assert way_out in matching[0]
    assert len(found) == len(expected), found
    lines = [int(fault.split(":")[1]) for fault in found if fault.startswith("byheart.yaml")]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "byheart.yaml: is empty"),
        ("# only a comment\n", "byheart.yaml: is empty"),
        ("- docs\n", "byheart.yaml:1: is no list of settings"),
        ("just words\n", "byheart.yaml:1: is no list of settings"),
        ("train:\n  epochs: 3\n", "byheart.yaml: docs: is missing"),
        ("docs:\n", "byheart.yaml:1: docs: nothing does not fit"),
        ("docs: []\n", "byheart.yaml:1: docs: [] does not fit"),
        ("docs: ['']\n", "byheart.yaml:1: docs: '' is not there"),
        ("docs: ftp://host/manual\n", "byheart.yaml:1: docs: ftp://host/manual is neither"),
        ("docs: manual\n\ttrain: 1\n", "byheart.yaml:2: holds a tab"),
        ("docs: manual\n  - b: 1\n c\n", "byheart.yaml:2: is not YAML"),
        ("docs: manual\n---\ndocs: manual\n", "byheart.yaml:2: is not YAML"),
        ("a: 1\ndocs: \x07\n", "byheart.yaml:2: holds a character that YAML forbids"),
        (b"docs: manual\n# caf\xe9\n", "byheart.yaml:2: byte 0xe9 is not UTF-8"),
        ("docs: !!python/object/apply:os.getcwd []\n", "byheart.yaml:1: docs: [] does not fit"),
        ("docs: manual\nserve:\n  port: 2020-13-45\n", "byheart.yaml:3: serve.port: cannot be read"),
        ("docs: manual\ntrain:\n  seed: " + "9" * 5000, "byheart.yaml:3: train.seed: cannot be read"),
        ("docs: manual\n? [a, b]\n: 1\n", "byheart.yaml:2: (a list or mapping): there is no such setting"),
        ("a: &a [x, x]\nb: &b [*a, *a]\ndocs: [*b, *b]\n", "byheart.yaml:2: *a: write the value itself"),
        ("docs: " + "[" * 5000, "byheart.yaml:1: is nested too deep"),
        ("docs: manual\n" + "#" * 1_000_001, "byheart.yaml: is larger than 1,000,000 bytes"),
    ],
)
def test_a_broken_file_is_told_with_its_line(bot: Path, text: str | bytes, told: str) -> None:
    found = faults(write(bot, text))
    assert len(found) == 1
    assert found[0].startswith(told)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not there\. Make one with: byheart init .*my-bot --docs"):
        load(tmp_path / "my-bot")


def test_a_group_with_all_its_lines_commented_out_is_fine(bot: Path) -> None:
    assert load(write(bot, "docs: manual\ntrain:\n  # epochs: 3\n")).project.config.train.epochs is None


def test_a_byte_order_mark_and_numbers_without_a_dot_are_fine(bot: Path) -> None:
    config = load(write(bot, "\ufeffdocs: manual\ntrain: {learning_rate: 1e-4}\n")).project.config
    assert config.train.learning_rate == 1e-4


def test_every_value_says_where_it_came_from(bot: Path) -> None:
    write(bot, "docs: manual\ntrain:\n  epochs: 2\n  lora_rank: 8\n")
    loaded = load(bot, ["train.epochs=3", "serve.title=Ask: us", "synthesize.temperatures=[0.5, 1]"])
    assert loaded.project.config.train.epochs == 3
    assert loaded.project.config.serve.title == "Ask: us"
    assert loaded.project.config.synthesize.temperatures == (0.5, 1)
    assert loaded.origins["train.epochs"] == "--set"
    assert loaded.origins["train.lora_rank"] == "byheart.yaml:4"
    assert loaded.origins["train.lora_alpha"] == "default"
    assert loaded.origins.keys() == settings().keys()


def test_a_flag_replaces_the_files_value_and_its_fault(bot: Path) -> None:
    write(bot, "docs: [gone, manual]\ntrain:\n  epochs: many\n")
    assert load(bot, ["docs=manual", "train.epochs=1"]).project.config.docs == ("manual",)
    assert faults(bot, "docs=lost", "train.epochs=1")[0].startswith("--set docs=lost: 'lost' is not there")


def test_a_manual_that_has_moved_away_does_not_keep_a_bot_from_answering(bot: Path) -> None:
    write(bot, "docs: gone")
    assert load(bot, need_sources=False).project.config.docs == ("gone",)


def test_what_is_written_out_reads_back_the_same(bot: Path) -> None:
    write(bot, "docs: ['manual']\ntrain:\n  learning_rate: 1e-5\nserve:\n  title: 'a: #b ›'\n")
    loaded = load(bot)
    text = as_yaml(loaded.project.config, loaded.origins)
    assert "# byheart.yaml:3" in text
    assert load(write(bot, text)).project.config == loaded.project.config


def test_the_schema_agrees_with_the_loader(bot: Path) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"docs": "manual", "questions": ["a"], "train": {"epochs": None, "lora_rank": 1}})
    for wrong in ({}, {"docs": []}, {"docs": "m", "x": 1}, {"docs": "m", "train": {"lora_rank": 0}}):
        assert not validator.is_valid(wrong)
        assert faults(write(bot, yaml.safe_dump(wrong)))


def test_every_setting_is_described_and_its_default_allowed() -> None:
    config = Config(docs=("manual",))
    for setting in settings().values():
        assert setting.description, setting.key
        assert "anything" not in setting.allowed, setting
        if not setting.required:
            default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
            assert value_of(config, setting.key) == default
    assert {key.partition(".")[0] for key in settings() if "." in key} == groups().keys()


def test_the_nearest_name_is_the_right_name_in_another_group_before_a_similar_one() -> None:
    assert nearest("epochs", settings()) == " Did you mean train.epochs?"
    assert nearest("train.lora_rnk", settings()) == " Did you mean train.lora_rank?"
    assert nearest("xyzzy", settings()) == ""


def test_the_template_is_a_valid_config_also_with_its_comments_taken_away(bot: Path) -> None:
    write_new(bot / "byheart.yaml", ["https://help.example.com"])
    assert load(bot).project.config.docs == ("https://help.example.com",)
    text = (bot / "byheart.yaml").read_text()
    lines = text.splitlines()[1:]
    (bot / "real.jsonl").touch()
    write(bot, "\n".join(line.removeprefix("# ") for line in lines))
    assert load(bot).project.config.train.epochs == 3
    assert len(lines) < 30


def test_a_config_is_never_overwritten(bot: Path) -> None:
    write(bot, "docs: manual")
    with pytest.raises(ConfigError, match="is there already"):
        write_new(bot / "byheart.yaml", ["https://example.com"])
    assert (bot / "byheart.yaml").read_text() == "docs: manual"


def test_docs_are_written_as_seen_from_the_bot(bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bot)
    (bot / "an odd: name").mkdir()
    text = new_config(["manual", "an odd: name", str(bot / "manual")], folder=Path("my-bot"))
    assert yaml.safe_load(text)["docs"] == ["../manual", "../an odd: name", str(bot / "manual")]


def test_docs_that_are_not_there_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_new(tmp_path / "my-bot" / "byheart.yaml", ["help.example.com/en", str(tmp_path / "nothing")])
    assert "write https://help.example.com/en" in caught.value.faults[0]
    assert "nothing: is not there" in caught.value.faults[1]
    assert not (tmp_path / "my-bot").exists()


def test_shares_of_the_training_that_leave_nothing_for_questions_are_refused(bot: Path) -> None:
    write(bot, "docs: manual\ntrain:\n  mix_documents: 0.6\n  mix_replay: 0.4\n")
    (fault,) = faults(bot)
    assert fault.startswith(
        "byheart.yaml:2: train: mix_documents, mix_conversations, mix_replay and mix_passages are 1"
    )
    assert faults(bot, "train.mix_documents=0.95")[0].startswith(
        "--set train.mix_documents=0.95: 0.95 does not fit. Allowed: a number, at least 0, at most 0.9, or nothing."
    )
    assert faults(bot, "train.mix_documents=0.5", "train.mix_passages=0.1")
    assert load(bot, ["train.mix_documents=0.5"]).project.config.train.mix_replay == 0.4


def test_a_file_to_replay_must_be_there(bot: Path) -> None:
    write(bot, "docs: manual\ntrain:\n  replay: general.jsonl\n")
    assert faults(bot)[0].startswith("byheart.yaml:3: train.replay: 'general.jsonl' is not there (looked at ")
    (bot / "general.jsonl").touch()
    assert load(bot).project.config.train.replay == "general.jsonl"
    assert load(bot, ["train.replay="]).project.config.train.replay == ""
