"""Are all headings of a manual in its sections? python bench/bench_headings.py FOLDER [FOLDER …]

Counts the headings of the source files with other means than byheart's own (regular expressions on Markdown, lxml on
HTML), looks each one up in the sections, and prints the share found, pages per second and peak memory.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import lxml.html

from byheart.config import Config, Project
from byheart.ingest.stage import run
from byheart.progress import silent
from byheart.records import Document, Fact, Section, Skipped
from byheart.store import RunFolder

_SITE_PARTS = "ancestor::nav or ancestor::header[not(ancestor::main)] or ancestor::footer or ancestor::aside"


def main() -> int:
    """Print a line for each folder; exit code 1 where a heading is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--show", type=int, default=10, help="how many missing headings to show")
    arguments = parser.parse_args()
    return max(measure(folder, arguments.show) for folder in arguments.folders)


def measure(folder: Path, show: int) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        project = Project(folder=Path(scratch), config=Config(docs=(str(folder.resolve()),)))
        run_folder = RunFolder(project.run_path)
        started = time.perf_counter()
        run(project, run_folder, silent)
        seconds = time.perf_counter() - started
        documents = run_folder.read("1-documents.jsonl", Document)
        skipped = run_folder.read("1-skipped.jsonl", Skipped)
        sections = run_folder.read("2-sections.jsonl", Section)
        facts = run_folder.read("2-facts.jsonl", Fact)
    headings: dict[str, Counter[str]] = {document.id: Counter() for document in documents}
    for section in sections:
        headings[section.document_id][_key(section.heading_path[-1])] += 1
    total, missing = 0, []
    for document in documents:
        expected = source_headings(folder / document.location)
        total += expected.total()
        missing += [(document.location, text) for text in (expected - headings[document.id]).elements()]
    share = 1 - len(missing) / max(total, 1)
    peak_mb = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(
        f"{folder}: {total - len(missing)} of {total} headings ({share:.2%}), "
        f"{len(documents)} pages in {seconds:.1f} s ({len(documents) / seconds:.0f} pages/s), "
        f"{len(sections)} sections, {len(facts)} facts, "
        f"{len(skipped)} left out, peak {peak_mb:.0f} MB"
    )
    for location, text in missing[:show]:
        print(f"  missing: {location}: {text}")
    return 1 if missing else 0


def source_headings(path: Path) -> Counter[str]:
    """Return the headings of a source file, as bare words."""
    if path.suffix in {".html", ".htm", ".xhtml"}:
        tree = lxml.html.parse(str(path), parser=lxml.html.HTMLParser(encoding="utf-8"))
        found = tree.xpath(
            f"//*[self::h1 or self::h2 or self::h3 or self::h4 or self::h5 or self::h6][not({_SITE_PARTS})]"
        )
        return Counter(key for key in (_key(element.text_content()) for element in found) if key)
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"^([ \t]*)(```+|~~~+).*?^[ \t]*\2", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", text, re.MULTILINE)
    found += re.findall(r"^(?![ \t]*[-*+#>|\d])([^\n]*\w[^\n]*)\n(?:={2,}|-{3,})[ \t]*$", text, re.MULTILINE)
    return Counter(_key(re.sub(r"\{\s*#[^}]*\}\s*$|\]\([^)]*\)|<[^>]+>", "", heading)) for heading in found)


def _key(heading: str) -> str:
    return re.sub(r"[\W_]+", "", heading).casefold()


if __name__ == "__main__":
    sys.exit(main())
