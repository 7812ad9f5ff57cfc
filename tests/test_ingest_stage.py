import os
import re
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byheart.config import Config, Project
from byheart.errors import IngestError
from byheart.ingest import stage
from byheart.ingest.convert import ReadPage
from byheart.ingest.crawl import Page
from byheart.ingest.files import find_sources
from byheart.ingest.pool import Source, read_all
from byheart.progress import Progress, silent
from byheart.records import Document, Fact, Section, Skipped
from byheart.store import RunFolder


def found(path: Path, **changes: object) -> list[Source | Skipped]:
    options = {"prefix": "", "include": (), "exclude": (), "max_file_mb": 1.0} | changes
    return list(find_sources(path, **options))  # type: ignore[arg-type]


def reasons(items: list[Source | Skipped]) -> dict[str, str]:
    return {item.location: item.reason for item in items if isinstance(item, Skipped)}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_a_folder_is_walked_in_order_without_hidden_and_installed_files(tmp_path: Path) -> None:
    names = ["b.md", "a/z.html", "a.md", ".git/x.md", "a/node_modules/y.md", ".hidden.md"]
    write(tmp_path, dict.fromkeys(names, "text"))
    assert [item.location for item in found(tmp_path)] == ["a.md", "a/z.html", "b.md"]


def test_files_that_are_no_pages_are_named_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": "x", "b.xyz": "x", "c.md": "", "d.md": "x" * 2**20 + "x", "e.md": "x", "f.md": "x"})
    (tmp_path / "out.md").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe.md")
    left_out = reasons(found(tmp_path, exclude=("f*",)))
    assert left_out.keys() == {"a.png", "b.xyz", "c.md", "d.md", "f.md", "out.md", "pipe.md"}
    assert "max_file_mb" in left_out["d.md"]
    assert "ingest.exclude" in left_out["f.md"]
    assert "out of the folder" in left_out["out.md"]


def test_a_zip_is_read_like_a_folder_and_its_traps_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "docs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/a.md", "# A")
        archive.writestr("../evil.md", "x")
        archive.writestr("/abs.md", "x")
        archive.writestr("m/big.md", "0" * 20_000_000)
        archive.writestr("__MACOSX/m/._a.md", "x")
    items = found(path)
    good = [item for item in items if isinstance(item, Source)]
    assert [(item.location, item.load()) for item in good] == [("m/a.md", b"# A")]
    left_out = reasons(items)
    assert "leads out" in left_out["../evil.md"]
    assert "leads out" in left_out["/abs.md"]
    assert "zip bomb" in left_out["m/big.md"]


def test_a_zip_entry_that_lies_about_its_size_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.md", os.urandom(1_200_000))
    size = (1_200_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (9).to_bytes(4, "little")))
    [entry] = found(path)
    assert isinstance(entry, Source)
    with pytest.raises(ValueError, match="unpack"):
        entry.load()


@pytest.mark.parametrize("content", [b"no archive", b"", b"PK\x03\x04 cut off"])
def test_a_broken_archive_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "docs.zip").write_bytes(content)
    assert "cannot be opened" in reasons(found(tmp_path / "docs.zip"))["docs.zip"]


def test_an_archive_whose_names_are_no_text_is_reported(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as archive:
        archive.writestr("ä.md", "# A")
    broken = (tmp_path / "docs.zip").read_bytes().replace("ä".encode(), b"\xff\xfe")
    (tmp_path / "docs.zip").write_bytes(broken)
    assert "cannot be opened" in reasons(found(tmp_path / "docs.zip"))["docs.zip"]


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_entry_costs_itself_alone(tmp_path: Path, packing: int) -> None:
    path = tmp_path / "docs.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("a.md", "# A\n\n" + "".join(f"Line {number} of many. " for number in range(200)))
        archive.writestr("b.md", "# B")
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes(byte ^ 0xA5 for byte in content[60:100]) + content[100:])
    damaged, whole = (item for item in found(path) if isinstance(item, Source))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        damaged.load()
    assert whole.load() == b"# B"


def source(location: str, data: bytes) -> Source:
    return Source(location, "", "2024-01-01T00:00:00+00:00", lambda: data)


def test_a_deadly_file_costs_itself_alone() -> None:
    def unreadable() -> bytes:
        raise PermissionError("Permission denied")

    deep = b"<html><body><p>x" + b"<div>" * 5_000 + b"y</body></html>"
    huge = b"<html><body><p>" + b"x y " * 9_000_000
    sources: list[Source | Skipped] = [
        source("a.md", b"# A\n\none"),
        Skipped("b.md", "passed through"),
        source("deep.html", deep),
        source("huge.html", huge),
        Source("locked.md", "", "", unreadable),
        source("z.md", b"# Z\n\ntwo"),
    ]
    results = list(read_all(sources, language="", timeout_s=60, workers=1, memory_mb=150))
    assert [item.document.title if isinstance(item, ReadPage) else item.location for item in results] == [
        "A", "b.md", "deep.html", "huge.html", "locked.md", "Z",
    ]  # fmt: skip
    why = {item.location: item.reason for item in results if isinstance(item, Skipped)}
    assert why["b.md"] == "passed through"
    assert "nested" in why["deep.html"]
    assert re.search("150 MB of memory|cannot be read", why["huge.html"])  # libxml2 has no word for "no memory"
    assert why["locked.md"] == "Permission denied"


def test_a_file_that_takes_too_long_is_given_up_and_the_rest_goes_on() -> None:
    slow = b"`" * 60_000 + b" `a" * 60_000
    results = list(read_all([source("slow.md", slow), source("b.md", b"b")], language="", timeout_s=0.7, workers=1))
    assert isinstance(results[0], Skipped)
    assert "longer than 0.7 s" in results[0].reason
    assert isinstance(results[1], ReadPage)


def test_a_reader_that_cannot_start_is_an_error_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(IngestError, match=r"/bin/false -m byheart\.ingest\.worker"):
        list(read_all([source("a.md", b"a")], language="", timeout_s=30, workers=1))


def test_no_child_process_outlives_the_reading() -> None:
    reading = read_all([source(f"{n}.md", b"x") for n in range(9)], language="", timeout_s=30, workers=1)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("byheart-read")] == []
    assert _children() == []


def _children() -> list[str]:
    psutil = pytest.importorskip("psutil")
    return [child.name() for child in psutil.Process().children() if "byheart.ingest.worker" in child.cmdline()]


def project(folder: Path, *docs: str) -> Project:
    return Project(folder=folder, config=Config(docs=docs))


def test_the_stage_writes_documents_sections_facts_and_what_was_left_out(tmp_path: Path) -> None:
    page = "# One\n\nA sentence.\n\n## Sub\n\n1. Step.\n"
    write(tmp_path / "docs", {"a.md": page, "b/copy.md": page, "c.html": "<h1>Two</h1><p>Text.</p>", "d.bin": "x"})
    events: list[Progress] = []
    result = stage.run(project(tmp_path, "docs"), RunFolder(tmp_path / "run"), events.append)
    run = RunFolder(tmp_path / "run")
    documents = run.read("1-documents.jsonl", Document)
    sections = run.read("2-sections.jsonl", Section)
    facts = run.read("2-facts.jsonl", Fact)
    skipped = run.read("1-skipped.jsonl", Skipped)
    assert result.counts == {"documents": 2, "sections": 3, "facts": 3, "skipped": 2}
    assert [(document.location, document.title) for document in documents] == [("a.md", "One"), ("c.html", "Two")]
    assert [section.url for section in sections] == ["a.md#one", "a.md#sub", "c.html#two"]
    assert [section.order for section in sections] == [0, 1, 2]
    assert [fact.kind for fact in facts] == ["statement", "step", "statement"]
    assert {item.location: item.reason for item in skipped}["b/copy.md"] == "it has the same text as a.md"
    assert [event.done for event in events if event.total == 4] == [1, 2, 3, 4]
    first = {name: (run / name).read_bytes() for name in result.outputs}
    stage.run(project(tmp_path, "docs"), run, silent)
    assert {name: (run / name).read_bytes() for name in result.outputs} == first


def test_two_folders_with_equal_names_inside_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, {"one/index.md": "One.", "two/index.md": "Two."})
    stage.run(project(tmp_path, "one", "two"), RunFolder(tmp_path / "run"), silent)
    documents = RunFolder(tmp_path / "run").read("1-documents.jsonl", Document)
    assert [document.location for document in documents] == ["one/index.md", "two/index.md"]


def test_nothing_read_is_an_error_that_names_what_was_tried(tmp_path: Path) -> None:
    write(tmp_path / "docs", {"a.md": "", "b.png": "x"})
    with pytest.raises(IngestError, match=r"(?s)docs.*a\.md: it is empty.*b\.png.*byheart\.yaml"):
        stage.run(project(tmp_path, "docs"), RunFolder(tmp_path / "run"), silent)
    assert not (tmp_path / "run" / "1-documents.jsonl").exists()
    with pytest.raises(IngestError, match="no such file or folder"):
        stage.run(project(tmp_path, "missing"), RunFolder(tmp_path / "run"), silent)


def fake_crawl(pages: list[Page | Skipped]) -> Callable[..., Iterator[Page | Skipped]]:
    def crawl(start_url: str, *, state_dir: Path, **_: object) -> Iterator[Page | Skipped]:
        assert start_url == "https://help.example.com"
        state_dir.mkdir(parents=True)
        yield from pages

    return crawl


def test_pages_of_a_site_are_read_like_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = (
        b'<html lang="de"><body><main><h1 id="top">Seite</h1><p>Gr\xfc\xdfe. <a href="b">B</a></p></main></body></html>'
    )
    url = "https://help.example.com/de/a"
    pages = [Page(url, html, "text/html", "2024-05-01T00:00:00+00:00", "latin-1"), Skipped(f"{url}b", "404")]
    monkeypatch.setattr(stage, "crawl", fake_crawl(pages))
    result = stage.run(project(tmp_path, "https://help.example.com"), RunFolder(tmp_path / "run"), silent)
    run = RunFolder(tmp_path / "run")
    [document] = run.read("1-documents.jsonl", Document)
    assert document.markdown == "# Seite {#top}\n\nGrüße. [B](https://help.example.com/de/b)\n"
    assert (document.location, document.language, document.fetched_at) == (url, "de", "2024-05-01T00:00:00+00:00")
    assert run.read("2-sections.jsonl", Section)[0].url == f"{url}#top"
    assert result.counts["skipped"] == 1
    assert not (run / stage.CRAWL_STATE).exists(), "the next ingest must read the site afresh"


def test_the_state_of_the_source_changes_with_its_files(tmp_path: Path) -> None:
    write(tmp_path / "docs", {"a.md": "one"})
    manual = project(tmp_path, "docs", "https://help.example.com")
    before = stage.source_state(manual)
    assert stage.source_state(manual) == before
    write(tmp_path / "docs", {"b.md": "two"})
    after = stage.source_state(manual)
    assert after != before
    os.utime(tmp_path / "docs" / "b.md", (1, 1))
    assert stage.source_state(manual) != after
    assert stage.source_state(project(tmp_path, "missing")) != before


def test_the_worker_needs_no_heavy_library() -> None:
    import subprocess

    code = "import sys, byheart.ingest.worker; print([m for m in ('torch', 'numpy', 'crawlee') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
