"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from rich.console import Console
from typer.testing import CliRunner

from byheart import cli_screen
from byheart.cli import app
from byheart.progress import Progress
from byheart.records import Document, Section, to_json
from byheart.serve.engine import FakeAnswerer
from byheart.store import Mark
from serving import ANSWER_FIELDS


def byheart(*arguments: str, cwd: Path, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-m", "byheart", *arguments],
        cwd=cwd,
        env=environment,
        stdin=stdin,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "bot" / "manual").mkdir(parents=True)
    (tmp_path / "bot" / "manual" / "page.md").write_text("# Boards\nA board holds 500 cards.")
    (tmp_path / "bot" / "byheart.yaml").write_text("docs: manual\n")
    return tmp_path / "bot"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['byheart', '--help']\n"
        "try: runpy.run_module('byheart', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('IMPORTED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    imported = set(shown.partition("IMPORTED")[2].split())
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "numpy", "pydantic", "fastapi", "crawlee", "yaml", "rich", "openai"}


def test_help_and_version_tell_the_way(tmp_path: Path) -> None:
    for arguments in (["--help"], []):
        shown = byheart(*arguments, cwd=tmp_path)
        assert shown.returncode == 0
        verbs = ["init", "run", "ingest", "synthesize", "train", "evaluate", "chat", "ask", "serve", "status", "config"]
        assert all(f"\n  {verb} " in shown.stdout for verb in verbs)
    assert byheart("--version", cwd=tmp_path).stdout.startswith("byheart 0.")


def test_a_mistyped_verb_or_flag_is_a_usage_error(tmp_path: Path) -> None:
    for arguments in (["trian"], ["run", "--dry"], ["run", "--from", "serve"], ["init", "my-bot"]):
        shown = byheart(*arguments, cwd=tmp_path)
        assert shown.returncode == 2, arguments
        assert "Usage: " in shown.stderr
        assert "Traceback" not in shown.stderr


def test_init_then_dry_run(tmp_path: Path) -> None:
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "a.md").write_text("# A")
    made = byheart("init", "my-bot", "--docs", "manual", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "Next: byheart run my-bot" in made.stdout
    assert yaml.safe_load((tmp_path / "my-bot" / "byheart.yaml").read_text())["docs"] == ["../manual"]
    planned = byheart("run", "my-bot", "--dry-run", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    for stage in ("ingest", "synthesize", "train", "evaluate"):
        assert any(line.split()[:2] == [stage, "missing"] for line in planned.stdout.splitlines())
    assert "minutes in all" in planned.stdout
    again = byheart("init", "my-bot", "--docs", "manual", cwd=tmp_path)
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_init_takes_what_a_shell_glob_gives(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.md"):
        (tmp_path / name).touch()
    assert byheart("init", "my-bot", "--docs", "a.md", "b.md", "c.md", cwd=tmp_path).returncode == 0
    written = yaml.safe_load((tmp_path / "my-bot" / "byheart.yaml").read_text())
    assert written["docs"] == ["../a.md", "../b.md", "../c.md"]


def test_faults_are_told_without_a_traceback_unless_asked_for(bot: Path) -> None:
    (bot / "byheart.yaml").write_text("docs: manual\ntrain:\n  epoch: 3\n  seed: x\n")
    shown = byheart("run", cwd=bot)
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert shown.stderr.splitlines() == [
        "byheart.yaml:3: train.epoch: there is no such setting. Did you mean train.epochs?",
        "byheart.yaml:4: train.seed: 'x' does not fit. Allowed: a whole number. Leave it out for the default (0).",
    ]
    assert "Traceback" in byheart("run", "-v", cwd=bot).stderr


def test_config_shows_origins_and_reads_back(bot: Path) -> None:
    shown = byheart("config", "--set", "train.epochs=3", cwd=bot).stdout
    lines = {line.split(":")[0].strip(): line for line in shown.splitlines()}
    assert lines["docs"].endswith("# byheart.yaml:1")
    assert lines["epochs"].endswith("# --set")
    assert lines["lora_rank"].endswith("# default")
    assert yaml.safe_load(shown)["train"]["epochs"] == 3


def test_config_shows_what_a_stage_chose_and_why(bot: Path) -> None:
    mark = Mark("train", "", {}, 1.0, "2026-01-01", {"batch_size": "64: fits", "device": "cpu: no GPU"}, {}, {})
    (bot / "run").mkdir()
    (bot / "run" / "manifest.jsonl").write_text(
        json.dumps({name: getattr(mark, name) for name in mark.__slots__}) + "\n"
    )
    shown = byheart("config", cwd=bot).stdout
    assert "# chosen: 64: fits" in shown
    assert "# chosen: train.device: cpu: no GPU" in shown


def test_the_schema_is_json(tmp_path: Path) -> None:
    assert json.loads(byheart("config", "--schema", cwd=tmp_path).stdout)["required"] == ["docs"]


def test_a_reader_that_goes_away_is_no_fault(bot: Path) -> None:
    command = f"{sys.executable} -m byheart config | true; exit ${{PIPESTATUS[0]}}"
    for _ in range(2):
        ended = subprocess.run(
            ["bash", "-c", command], cwd=bot, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.stderr == ""
        assert ended.returncode in {0, 1}


def test_asking_before_anything_ran_says_what_to_run(bot: Path) -> None:
    for arguments in (["ask", ".", "How do I add a card?"], ["ask", "How do I add a card?"], ["serve"], ["train"]):
        shown = byheart(*arguments, cwd=bot)
        assert shown.returncode == 1, arguments
        assert "byheart run" in shown.stderr
        assert "Traceback" not in shown.stderr


@pytest.fixture
def trained(bot: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bot whose answers come from a table."""
    (bot / "run").mkdir()
    section = Section("s1", "d1", ("Boards", "How to add a card"), "page.md#add", "Press C to add a card. " * 3, 0, "")
    (bot / "run" / "2-sections.jsonl").write_text(to_json(section))
    (bot / "run" / "1-documents.jsonl").write_text(
        to_json(Document("d1", "page.md", "Boards", "en", "# Boards", "", ""))
    )
    answers = FakeAnswerer({"How do I add a card?": "Press **C**."})
    monkeypatch.setattr("byheart.answer.bot.load", lambda folder, **options: answers)
    return bot


def test_ask_prints_the_answer_or_all_of_it_as_json(trained: Path) -> None:
    shown = CliRunner().invoke(app, ["ask", str(trained), "How do I add a card?"])
    assert "Press C." in shown.stdout
    as_json = json.loads(CliRunner().invoke(app, ["ask", str(trained), "How do I add a card?", "--json"]).stdout)
    assert as_json["answer"] == "Press **C**."
    assert list(as_json) == ANSWER_FIELDS


def test_a_bot_answers_without_its_manual_at_hand(trained: Path) -> None:
    (trained / "manual" / "page.md").unlink()
    (trained / "manual").rmdir()
    assert CliRunner().invoke(app, ["ask", str(trained), "How do I add a card?"]).exit_code == 0


def test_serve_opens_the_bot_where_the_flags_say(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, Any] = {}

    def record(web_app: FastAPI, **options: Any) -> None:
        opened.update(options, app=web_app)

    monkeypatch.setattr("byheart.serve.server.serve", record)
    flags = ["--port", "9001", "--set", "serve.title=Ask Inkwell"]
    shown = CliRunner().invoke(app, ["serve", str(trained), *flags])
    assert shown.exit_code == 0, shown.exception
    assert (opened["host"], opened["port"]) == ("127.0.0.1", 9001)
    assert opened["app"].title == "Ask Inkwell"


def test_ctrl_c_says_how_to_go_on(bot: Path) -> None:
    code = (
        "import sys, os, signal\n"
        "from byheart import pipeline, cli\n"
        "def busy(*a, **k): os.kill(os.getpid(), signal.SIGINT)\n"
        "pipeline.run = busy\n"
        "sys.argv = ['byheart', 'run', 'my bot']\n"
        "cli.main()"
    )
    bot.rename(bot.with_name("my bot"))
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=bot.parent, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 130
    assert "go on with: byheart run 'my bot'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_log_gets_lines_and_not_bars() -> None:
    console = Console(record=True, width=80, force_terminal=False, quiet=False, file=io.StringIO())
    with cli_screen.Screen(console) as screen:
        for done in range(101):
            screen.notify(Progress("training", done, 100, note="loss 0.5"))
        screen.notify(Progress("training", message="batch_size = 8: \x1b[2J[fits] the machine"))
    lines = console.export_text().splitlines()
    assert len(lines) == 12
    assert lines[-2] == "training 100 of 100  loss 0.5"
    assert lines[-1] == "batch_size = 8: [2J[fits] the machine"


def test_the_summary_shows_figures_with_their_intervals(tmp_path: Path) -> None:
    share = {"count": 60, "n": 100, "share": 0.6, "low": 0.5, "high": 0.69}
    none = {"count": 0, "n": 0, "share": None, "low": None, "high": None}
    cell = {"system": "byheart", "group": "yours", "n": 100, "correct": share, "incorrect": share}
    cells = [cell | {"not_attempted": share, "page_first": none}]
    (tmp_path / "5-metrics.json").write_text(json.dumps({"cells": cells}))
    console = Console(record=True, width=150, file=io.StringIO())
    mark = Mark("ingest", "", {}, 3.21, "", {}, {"documents": 1200, "facts": 7}, {})
    cli_screen.show_summary(console, {"ingest": mark}, tmp_path)
    text = console.export_text()
    assert "1,200 documents, 7 facts" in text
    assert "60% (50%–69%)" in text
    assert "–\n" in text.replace(" ", "")
    assert "report.html" in text
