"""A file's or page's bytes to a document with its sections and facts. Pure: runs in a child process with limits."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import re
from pathlib import PurePosixPath

import charset_normalizer

from byheart.ingest.docx import convert_docx
from byheart.ingest.facts import extract_facts
from byheart.ingest.html import convert_html
from byheart.ingest.markdown import convert_markdown, title_of_path
from byheart.ingest.markdown_text import Converted
from byheart.ingest.pdf import convert_pdf
from byheart.ingest.sections import split_document
from byheart.records import Document, Fact, Section, stable_id

FORMATS = {
    ".md": "markdown", ".markdown": "markdown", ".mdown": "markdown", ".mdx": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".txt": "text", ".text": "text", ".rst": "text", ".adoc": "text",
    ".pdf": "pdf", ".docx": "docx", ".doc": "docx",
}  # fmt: skip
_FORMAT_OF_TYPE = {
    "text/html": "html", "application/xhtml+xml": "html", "text/markdown": "markdown", "text/plain": "text",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
}  # fmt: skip
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?\s*([\w-]+)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f\ufffd]")
_MAX_CONTROL_SHARE = 0.01  # a text has hardly any control characters; random bytes have one in eight
_SAMPLE_BYTES = 200_000  # enough to tell an encoding by


@dataclasses.dataclass(frozen=True, slots=True)
class ReadPage:
    """A document with its sections and facts."""

    document: Document
    sections: tuple[Section, ...]
    facts: tuple[Fact, ...]


def read_page(data: bytes, *, location: str, content_type: str, language: str, fetched_at: str) -> ReadPage:
    """Return what a file or page holds. Raises ValueError saying why it cannot be read.

    `language`: of the whole manual, or "" to believe the page.
    """
    converted = _converted(data, location=location, content_type=content_type)
    if not re.search(r"\w", converted.markdown):
        raise ValueError("there is no text in it")
    document = Document(
        id=stable_id(location),
        location=location,
        title=converted.title or title_of_path(location),
        language=language or converted.language or "en",
        markdown=converted.markdown,
        sha256=hashlib.sha256(converted.markdown.encode()).hexdigest(),
        fetched_at=fetched_at,
    )
    sections = tuple(split_document(document))
    return ReadPage(document, sections, tuple(fact for section in sections for fact in extract_facts(section)))


def decode(data: bytes, *, declared: str = "") -> str:
    """Return bytes as text: by byte order mark, UTF-8, declaration, or likelihood. Raises ValueError on other bytes."""
    mark = next((encoding for bom, encoding in _BOMS if data.startswith(bom)), "")
    text = _try_decode(data, [mark] if mark else ["utf-8", declared])
    if text is None:
        if b"\0" in data[:_SAMPLE_BYTES]:
            raise ValueError("it is not text")
        guess = charset_normalizer.from_bytes(data[:_SAMPLE_BYTES]).best()
        if guess is None:
            raise ValueError("it is not text")
        text = data.decode(guess.encoding, errors="replace")
    sample = text[:_SAMPLE_BYTES]
    if sample and len(_CONTROL.findall(sample)) / len(sample) > _MAX_CONTROL_SHARE:
        raise ValueError("it is not text")
    return text


def _try_decode(data: bytes, encodings: list[str]) -> str | None:
    for encoding in encodings:
        try:
            return data.decode(encoding) if encoding else None
        except (UnicodeDecodeError, LookupError):
            continue
    return None


def _converted(data: bytes, *, location: str, content_type: str) -> Converted:
    if not data.strip():
        raise ValueError("it is empty")
    kind = _format_of(data, location, content_type)
    if kind == "pdf":
        return convert_pdf(data, location=location)
    if kind == "docx":
        return convert_docx(data, location=location)
    if kind == "html":
        meta = _META_CHARSET.search(data[:4096])
        charset = re.search(r"charset=\"?([\w-]+)", content_type)
        declared = charset[1] if charset else meta[1].decode("ascii", "ignore") if meta else ""
        return convert_html(decode(data, declared=declared), base_url=location, fallback_title=title_of_path(location))
    text = decode(data)
    if kind == "text" and location.lower().endswith((".txt", ".text")):
        text = text.replace("<", "\\<")  # plain text has no HTML
    return convert_markdown(text, location=location)


def _format_of(data: bytes, location: str, content_type: str) -> str:
    """Return the format by the server's word, the first bytes, or the name's end."""
    if data.startswith(b"%PDF-"):
        return "pdf"
    by_type = _FORMAT_OF_TYPE.get(content_type.partition(";")[0].strip().lower(), "")
    by_name = FORMATS.get(PurePosixPath(location.partition("?")[0]).suffix.lower(), "")
    kind = by_name if by_type in {"", "text"} and by_name else by_type
    if kind:
        return kind
    if data.startswith(b"PK\x03\x04"):
        raise ValueError("it is an archive: unpack it, or name it .zip and give it as docs")
    return "html" if data.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")) else "text"
