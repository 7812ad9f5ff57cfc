from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from byheart import records, store
from byheart.errors import MissingInputError, RunFolderError
from byheart.records import Citation, Document, Fact, Grade, Pair, Prediction, Rejected, Section, stable_id
from byheart.store import RunFolder

PAIR = Pair("p", ("f1", "f2"), "s", "Größe?\n„ja“ 🎉", "", "qa", "newcomer", 0.3, "offline", "rules/task", "train")
CITATION = Citation("Boards", "Export", "b.md#export", 0.5, "s")
RECORDS: list[Any] = [
    Document("d", "a.md", "T", "de", "# Ü\u2028b\tc", "sha", "2026-01-01T00:00:00Z"),
    Section("s", "d", ("T", "H"), "a.md#h", "", 3, "sha"),
    Fact("f", "s", "A board.", 0, 8, "definition"),
    PAIR,
    Rejected(PAIR, "empty question", ""),
    Prediction("x", "q", "byheart", "Yes", (CITATION, CITATION), 0.9, False, 0.01),
    Prediction("y", "q", "bm25", "", (), 0.0, True, 0.0),
    Grade("x", "correct", None, "rules", ""),
    Grade("y", "not attempted", False, "rules", "none"),
]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def mark(folder: RunFolder, stage: str, **changes: Any) -> store.Mark:
    values: dict[str, Any] = {"went_in": {"a": "1"}, "outputs": (), "seconds": 1.0, "chosen": {}, "counts": {}}
    return folder.mark_done(stage, **{**values, **changes})


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_its_line(record: Any, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    assert records.write_jsonl(path, [record, record]) == 2
    assert path.read_bytes().count(b"\n") == 2
    assert list(records.read_jsonl(path, type(record))) == [record, record]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"location": "x"}', r"missing \['reason'\]"),
        ('{"location": "x", "reason": "y", "more": 1}', r"unknown \['more'\]"),
        ("[1]", "JSON object, not list"),
        ('{"location": "x", "rea', "line 1 column 23"),
    ],
)
def test_a_line_that_does_not_fit_is_named_with_file_and_number(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(f'{{"location": "a", "reason": "b"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"r\.jsonl:3: .*({fault})"):
        list(records.read_jsonl(path, records.Skipped))


def test_ids_depend_on_the_parts_and_where_they_are_cut() -> None:
    assert stable_id("a", "b") == stable_id("a", "b")
    assert len({stable_id("ab"), stable_id("a", "b"), stable_id("b", "a"), stable_id("a", "b", "")}) == 4
    assert len(stable_id("a")) == 16


def test_a_file_that_is_missing_or_damaged_says_what_to_do(folder: RunFolder) -> None:
    with pytest.raises(MissingInputError, match=r"3-pairs\.jsonl is not there yet.*byheart run"):
        folder.read("3-pairs.jsonl", Pair)
    (folder / "3-pairs.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"3-pairs\.jsonl:1:.*\n.*delete it and run again"):
        folder.read("3-pairs.jsonl", Pair)


def test_a_write_that_fails_in_the_middle_leaves_the_old_file(folder: RunFolder) -> None:
    folder.write("3-pairs.jsonl", [PAIR])

    def rows() -> Any:
        yield PAIR
        raise RuntimeError("the stage broke")

    with pytest.raises(RuntimeError, match="the stage broke"):
        folder.write("3-pairs.jsonl", rows())
    assert folder.read("3-pairs.jsonl", Pair) == [PAIR]
    folder.write("3-pairs.jsonl", [PAIR, PAIR])  # what the failure left behind is in nobody's way
    assert len(folder.read("3-pairs.jsonl", Pair)) == 2
    assert sorted(path.name for path in folder.path.iterdir()) == ["3-pairs.jsonl"]


def test_a_folder_is_replaced_as_a_whole(folder: RunFolder) -> None:
    for name in ("old", "new"):
        with folder.replacing("4-model") as partial:
            partial.mkdir()
            (partial / name).write_text(name, encoding="utf-8")
    assert [path.name for path in (folder / "4-model").iterdir()] == ["new"]
    with pytest.raises(RuntimeError), folder.replacing("4-model") as partial:
        partial.mkdir()
        raise RuntimeError
    assert [path.name for path in (folder / "4-model").iterdir()] == ["new"]


def test_data_reaches_the_disk_before_the_name(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_sync(handle: int) -> None:
        order.append("sync")
        fsync(handle)

    def noted_replace(path: Path, target: Path) -> Path:
        order.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    folder.write_text("report.html", "x")
    assert order == ["sync", "rename"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "disk is full.*free some space"), (errno.EACCES, "No permission"), (errno.EROFS, "read-only")],
)
def test_a_disk_that_refuses_is_explained_and_the_old_file_stays(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    folder.write_text("report.html", "old")

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(RunFolderError, match=rf"report\.html\.partial: .*{advice}"):
            folder.write_text("report.html", "new")
        with pytest.raises(RunFolderError, match=advice):
            mark(folder, "ingest")
    assert (folder / "report.html").read_text(encoding="utf-8") == "old"


def test_the_newest_mark_of_each_stage_counts(folder: RunFolder) -> None:
    folder.write_text("out.txt", "x")
    mark(folder, "ingest", outputs=["out.txt", "gone.txt"])
    second = mark(folder, "ingest", went_in={"a": "2"}, counts={"pages": 3})
    other = mark(folder, "train")
    assert folder.marks() == {"ingest": second, "train": other}
    first = json.loads((folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["outputs"] == {"out.txt": store.file_digest(folder / "out.txt"), "gone.txt": "missing"}


@pytest.mark.parametrize("torn", ['{"stage": "train", "fing', '{"stage": "train"}', "\xff\xfe", "[]", "null"])
def test_a_torn_last_line_counts_as_not_written_and_the_next_mark_as_written(folder: RunFolder, torn: str) -> None:
    first = mark(folder, "ingest")
    with (folder / "manifest.jsonl").open("ab") as manifest:
        manifest.write(torn.encode("latin-1"))
    assert folder.marks() == {"ingest": first}
    second = mark(folder, "train")
    assert folder.marks() == {"ingest": first, "train": second}


def test_a_folder_in_use_names_who_holds_it_and_is_free_again_afterwards(folder: RunFolder) -> None:
    second = RunFolder(folder.path)
    in_use = rf"in use by another byheart \(process {os.getpid()}\)"
    with folder.locked(), pytest.raises(RunFolderError, match=in_use), second.locked():
        pass
    with folder.locked():
        assert (folder / ".lock").read_text(encoding="utf-8") == str(os.getpid())


def _hold_and_die(path: Path) -> None:
    with RunFolder(path).locked():
        os._exit(9)


def test_a_process_that_dies_leaves_no_lock_behind(folder: RunFolder) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(folder.path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    with folder.locked():
        pass


def test_a_digest_of_a_folder_follows_its_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1", encoding="utf-8")
    first = store.file_digest(tmp_path / "a")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    renamed = store.file_digest(tmp_path / "a")
    (tmp_path / "a" / "y").write_text("2", encoding="utf-8")
    assert len({first, renamed, store.file_digest(tmp_path / "a")}) == 3


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert store.fingerprint({"a": 1, "b": 2}) == store.fingerprint({"b": 2, "a": 1})
    assert store.fingerprint({"a": 1}) != store.fingerprint({"a": 2})


def test_a_path_that_cannot_be_a_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"file/run: .*Check the folder"):
        RunFolder(tmp_path / "file" / "run")
