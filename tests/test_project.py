"""The project's own rules, checked on its source: layers, budgets, fresh documents, pinned and packaged files."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import byheart
from byheart import pipeline
from byheart.cli import StageName

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "byheart"
MODULES = sorted(PACKAGE.rglob("*.py"))
CODE = sorted(path for folder in ("src", "tests", "bench", "scripts") for path in (ROOT / folder).rglob("*.py"))

# From low to high; a unit imports only from lower rows, and units in one row never meet.
ROWS: tuple[set[str], ...] = (
    {"errors"},
    {"records", "progress", "sentences"},
    {"config"},
    {"config_settings"},
    {"config_file"},
    {"catalog", "config_template"},
    {"llm", "chat", "store", "memory"},
    {"models"},
    {"index"},
    {"answer"},
    {"ingest", "synthesize", "train", "evaluate", "serve", "export"},
    {"pipeline"},
    {"cli_options"},
    {"cli_chat", "cli_export", "cli_plan", "cli_screen", "cli_serve"},
    {"cli"},
    {"__main__"},
)
NEURAL = {"models", "train", "export"}
WEB = {"serve"}
SCREEN = {"cli", "cli_chat", "cli_export", "cli_options", "cli_plan", "cli_screen", "cli_serve"}
READING = {"ingest"}
HOME = {  # third-party package -> the units that may import it
    "torch": NEURAL,
    "transformers": NEURAL,
    "peft": NEURAL,
    "accelerate": NEURAL,
    "sentence_transformers": NEURAL,
    "bitsandbytes": NEURAL,
    "fastapi": WEB,
    "starlette": WEB,
    "uvicorn": WEB,
    "prometheus_client": WEB,
    "sqlalchemy": WEB,
    "alembic": WEB,
    "typer": SCREEN,
    "rich": SCREEN,
    "crawlee": READING,
    "lxml": READING,
    "markdownify": READING,
    "trafilatura": READING,
    "pypdfium2": READING,
    "mammoth": READING,
    "openai": {"llm"},
    "yaml": {"config_file", "config_settings", "config_template", "ingest", "synthesize"},
}


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the full name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def make_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_module_imports_only_from_lower_rows() -> None:
    row = {unit: number for number, units in enumerate(ROWS) for unit in units}
    wrong = []
    for path in MODULES:
        importer = unit_of(path)
        if path == PACKAGE / "__init__.py":
            continue
        assert importer in row, f"{path}: give {importer} its row in tests/test_project.py"
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] != "byheart" or parts[1:] in ([], ["__version__"]):
                continue
            imported = parts[1]
            if imported != importer and row[imported] >= row[importer]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {importer} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_each_library_stays_in_its_home() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        for line, name in imports(path)
        if unit_of(path) not in HOME.get(name.partition(".")[0], {unit_of(path)})
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_over_400_lines_and_no_function_over_70() -> None:
    wrong = []
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            wrong.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 70:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {length} lines")
    assert not wrong, "\n".join(wrong)


def test_verbs_have_at_most_20_lines() -> None:
    tree = ast.parse((PACKAGE / "cli.py").read_text(encoding="utf-8"))
    verbs = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    bodies = {verb.name: (verb.body[-1].end_lineno or 0) - verb.body[0].lineno + 1 for verb in verbs}
    assert len(verbs) > 10
    assert {name: lines for name, lines in bodies.items() if lines > 20} == {}


def test_the_library_never_prints() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        if not unit_of(path).startswith("cli")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong, wrong


def test_generated_documents_are_fresh() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in make_docs().pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"run `make docs` for {stale}"


def test_the_readmes_tree_names_every_module_and_nothing_else() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- tree")[2].partition("<!-- end of tree")[0]
    folder, found = "", set()
    for indent, name, caption in re.findall(r"^( {4,8})(\S+)(.*)$", tree, re.MULTILINE):
        folder = name if name.endswith("/") else folder if len(indent) == 8 else ""
        if name.endswith(".py"):
            found.add(folder + name)
            assert len(caption.split()) >= 3, f"{name} has no caption"
    assert found == {path.relative_to(PACKAGE).as_posix() for path in MODULES if path.name != "__init__.py"}


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    dead = [
        f"{document.name}: {target}"
        for document in documents
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    assert not dead


def test_commands_in_the_documents_exist() -> None:
    verbs = set(re.findall(r"^## byheart (\w+)$", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE))
    for document in (ROOT / "README.md", ROOT / "docs" / "tour.md", ROOT / "Makefile"):
        text = document.read_text(encoding="utf-8")
        used = set(re.findall(r"(?:^ {4}|`)byheart ([a-z]+)", text, re.MULTILINE))
        assert used <= verbs, document.name


def test_the_tour_explains_every_file_of_the_run_folder() -> None:
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    written = {
        name
        for path in MODULES
        for name in re.findall(r'"(\d-[a-z]+(?:\.jsonl?)?|report\.html)"', path.read_text(encoding="utf-8"))
    }
    assert len(written) > 8
    assert {name for name in written if f"`{name}" not in tour} == set()


def test_the_clis_stages_are_the_pipelines() -> None:
    assert StageName.__args__ == tuple(stage.name for stage in pipeline.STAGES)


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[<>=!~ ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names - pinned.keys() == set()
    assert "+" not in pinned["torch"]


def test_everything_in_the_package_is_packaged() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = tools["package-data"]["byheart"]
    data = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    ]
    assert [name for name in data if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    folders = {path.parent for path in MODULES}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == byheart.__version__
    assert f"## {byheart.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


def test_paths_are_plain_ascii_without_spaces() -> None:
    odd = [
        str(path.relative_to(ROOT))
        for folder in ("src", "tests", "docs", "examples", "bench", "scripts")
        for path in (ROOT / folder).rglob("*")
        if "run" not in path.relative_to(ROOT).parts
        and not re.fullmatch(r"[\w./-]+", str(path.relative_to(ROOT)), re.A)
    ]
    assert not odd


@pytest.mark.parametrize(
    "config", sorted((ROOT / "examples").glob("*/byheart.yaml")), ids=lambda path: path.parent.name
)
def test_an_examples_config_and_questions_are_there(config: Path) -> None:
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    assert (config.parent / values["docs"]).is_dir()
    assert all((config.parent / name).is_file() for name in values["questions"])
