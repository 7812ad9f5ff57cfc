"""Word documents to Markdown, by way of HTML."""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePosixPath

import mammoth

from byheart.ingest.html import convert_html
from byheart.ingest.markdown_text import Converted

_MAX_UNPACKED_BYTES = 256 * 2**20
_OLE_MAGIC = b"\xd0\xcf\x11\xe0"  # what Word 97, and a password, wrap a document in
_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh\nb => strong"


def convert_docx(data: bytes, *, location: str) -> Converted:
    """Return a .docx file as Markdown. Raises ValueError saying why it cannot be read."""
    if data.startswith(_OLE_MAGIC):
        raise ValueError("it is encrypted, or in the old .doc format: save it as .docx without a password")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as fault:
        raise ValueError("it is damaged: not a .docx file") from fault
    if unpacked > _MAX_UNPACKED_BYTES:
        raise ValueError(f"it unpacks to {unpacked // 2**20} MB, over the limit of {_MAX_UNPACKED_BYTES // 2**20} MB")
    try:
        html = mammoth.convert_to_html(
            io.BytesIO(data), style_map=_STYLES, convert_image=mammoth.images.img_element(lambda image: {"src": ""})
        ).value
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as fault:
        raise ValueError(f"it is damaged: {fault}") from fault
    if not html.strip():
        raise ValueError("there is no text in it")
    return convert_html(f"<html><body><main>{html}</main></body></html>", fallback_title=PurePosixPath(location).stem)
