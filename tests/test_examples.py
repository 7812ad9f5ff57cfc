"""The configs in examples/ are valid, name models of the catalogue, and say what each line is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from byheart import config_file
from byheart.catalog import find_model
from byheart.config_file import is_address

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CONFIGS = sorted(EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_example_is_a_valid_config_with_comments(path: Path) -> None:
    project = config_file.load(path, need_sources=False).project
    entry = find_model(project.config.base_model)
    assert entry
    assert (entry.family == "encoder") == (project.config.base_model == "starter")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert sum("#" in line for line in lines) >= len(lines) / 3
    for source in project.config.docs + project.config.questions:
        assert is_address(source) or (EXAMPLES / source).exists()


def test_the_first_recipe_is_the_one_that_was_asked_for() -> None:
    config = config_file.load(EXAMPLES / "collaboard-openchat.yaml", need_sources=False).project.config
    assert config.docs == ("https://help.collaboard.app",)
    assert config.base_model == "openchat/openchat_3.5"
    train = config.train
    assert (train.method, train.lora_targets, train.batch_size, train.learning_rate) == ("lora", "all-linear", 1, 1e-4)
    assert (min(config.synthesize.temperatures), max(config.synthesize.temperatures)) == (0.0, 1.2)


def test_the_readme_names_every_example() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in CONFIGS if f"({path.name})" not in readme] == []
    assert len(CONFIGS) >= 5
