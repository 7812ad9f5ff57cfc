import io
import zipfile
from collections.abc import Callable

import docx
import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from byheart.ingest.convert import decode, read_page


def read(data: bytes, location: str, content_type: str = "") -> tuple[str, str]:
    page = read_page(data, location=location, content_type=content_type, language="", fetched_at="2024-01-01")
    return page.document.title, page.document.markdown


def pdf(draw: Callable[[Canvas], None], *, password: str = "") -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, encrypt=StandardEncryption(password) if password else None)
    draw(canvas)
    canvas.save()
    return buffer.getvalue()


def write(canvas: Canvas, y: float, text: str, *, size: float = 10, font: str = "Helvetica") -> None:
    canvas.setFont(font, size)
    canvas.drawString(72, y, text)


def handbook(canvas: Canvas) -> None:
    for number in range(1, 4):
        write(canvas, 800, f"Handbook - page {number}")
        if number == 1:
            write(canvas, 760, "Whiteboard", size=24)
        write(canvas, 700, f"Chapter {number}", size=16)
        write(canvas, 670, "A sentence that goes on and on, so that it needs more than one line and is cut in the mid-")
        write(canvas, 658, "dle of a word.")
        write(canvas, 630, "A second paragraph.")
        write(canvas, 600, "Bold heading", font="Helvetica-Bold")
        write(canvas, 585, f"• Point {'abc'[number - 1]} of a list")
        canvas.showPage()


def test_pdf_headings_come_from_the_size_of_type() -> None:
    title, markdown = read(pdf(handbook), "handbook.pdf")
    assert title == "Whiteboard"
    assert markdown.startswith(
        "# Whiteboard\n\n## Chapter 1\n\n"
        "A sentence that goes on and on, so that it needs more than one line and is cut in the middle of a word.\n\n"
        "A second paragraph.\n\n### Bold heading\n\n- Point a of a list"
    )
    assert markdown.count("## Chapter") == 3
    assert "Handbook - page" not in markdown


def test_pdf_headings_come_from_bookmarks_where_it_has_them() -> None:
    def draw(canvas: Canvas) -> None:
        for text, level in (("Boards", 0), ("Sharing", 1)):
            canvas.bookmarkPage(text)
            canvas.addOutlineEntry(text, text, level)
            write(canvas, 700, text)
            write(canvas, 670, f"Text about {text.lower()} that fills the line well.")
            canvas.showPage()

    _, markdown = read(pdf(draw), "boards.pdf")
    assert markdown == (
        "# Boards\n\nText about boards that fills the line well.\n\n"
        "## Sharing\n\nText about sharing that fills the line well.\n"
    )


def word_file() -> bytes:
    document = docx.Document()
    document.add_heading("Whiteboard", 0)
    document.add_heading("Sharing", 1)
    document.add_paragraph("Select ").add_run("Share").bold = True
    document.add_paragraph("Copy the link.", style="List Number")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("Role", "Rights", "Guest", "View"), strict=True):
        cell.text = text
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def test_word_files_keep_headings_steps_tables_and_labels() -> None:
    title, markdown = read(word_file(), "a.docx")
    assert title == "Whiteboard"
    assert markdown.startswith("# Whiteboard\n\n# Sharing\n\nSelect **Share**\n\n1. Copy the link.\n")
    assert "| Guest | View |" in markdown


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as entry:
        for _ in range(300):
            entry.write(bytes(2**20))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "location", "reason"),
    [
        (lambda: b"", "a.md", "empty"),
        (lambda: b" \n", "a.html", "empty"),
        (lambda: b"---\ntitle: x\n---\n", "a.md", "no text"),
        (lambda: b"<html><body><nav>Home</nav></body></html>", "a.html", "no text"),
        (lambda: bytes(range(256)) * 40, "a.md", "not text"),
        (lambda: b"%PDF-1.7\nbroken", "a.pdf", "damaged"),
        (lambda: pdf(lambda canvas: canvas.showPage()), "a.pdf", "OCR"),
        (lambda: pdf(handbook, password="secret"), "a.pdf", "encrypted"),
        (lambda: b"\xd0\xcf\x11\xe0" + bytes(600), "a.docx", "encrypted"),
        (lambda: b"no zip", "a.docx", "damaged"),
        (lambda: word_file()[:-40], "a.docx", "damaged"),
        (bomb, "a.docx", "unpacks to 300 MB"),
    ],
)
def test_what_cannot_be_read_says_why(make: Callable[[], bytes], location: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(make(), location)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252"])
def test_text_is_decoded_whatever_its_encoding(encoding: str) -> None:
    text = "Größe ändern: Öffnen Sie das Menü und wählen Sie die gewünschte Größe für Ihre Übersicht."
    data = text.encode(encoding)
    assert decode(b"\xfe\xff" + data if encoding == "utf-16-be" else data) == text


def test_a_declared_encoding_is_believed_when_the_bytes_are_not_utf8() -> None:
    data = "<html><head><meta charset='iso-8859-2'></head><body><h1>Řádek</h1><p>Žluťoučký kůň.</p></body></html>"
    assert read(data.encode("iso-8859-2"), "a.html")[0] == "Řádek"
    assert decode("ключ".encode("koi8-r"), declared="koi8-r") == "ключ"


@pytest.mark.parametrize(
    ("data", "location", "content_type", "markdown"),
    [
        (b"<html><body><h1>A</h1>b</body></html>", "https://a.b/c", "text/html; charset=utf-8", "# A\n\nb\n"),
        (b"# A", "https://a.b/c.md?raw=1", "text/plain", "# A\n"),
        (b"a <b>", "notes.txt", "", "a \\<b>\n"),
        (b"<!DOCTYPE html><p>hi</p>", "README", "", "hi\n"),
    ],
)
def test_the_format_is_told_by_server_name_and_content(
    data: bytes, location: str, content_type: str, markdown: str
) -> None:
    assert read(data, location, content_type)[1] == markdown


def test_a_page_knows_its_language_unless_the_manual_says_otherwise() -> None:
    data = b"---\nlang: de\n---\nText"
    languages = [
        read_page(data, location="a.md", content_type="", language=language, fetched_at="").document.language
        for language in ("", "fr")
    ]
    assert languages == ["de", "fr"]


def test_reading_the_same_page_twice_gives_the_same_records() -> None:
    pages = [read_page(b"# A\n\nb.\n", location="a.md", content_type="", language="", fetched_at="t") for _ in "ab"]
    assert pages[0] == pages[1]
    assert pages[0].facts[0].section_id == pages[0].sections[0].id
    assert pages[0].sections[0].document_id == pages[0].document.id
