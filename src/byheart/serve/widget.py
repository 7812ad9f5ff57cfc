"""widget.js: the chat's modules, styles and settings as the one script that pages load."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import rjsmin
from starlette.requests import Request
from starlette.responses import Response

from byheart.errors import ByheartError
from byheart.serve.colours import brand_css

# In the order in which they need each other. They share one scope: a name may be declared once.
MODULES = (
    "receipts", "markdown", "parts", "colours", "words", "client", "transcript", "conversation", "view", "element",
    "main",
)  # fmt: skip
STYLES = ("text.css", "widget/chat.css")

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const)\b)", re.MULTILINE)
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_CSS_SPACE = re.compile(r"\s*\n\s*|\s*([{};,>])\s*|(?<=[a-z]:)\s+")  # not before "(" or "+": there it has a meaning

# a module has no current script: then the element is found by its address
_SCRIPT = """document.currentScript ?? document.querySelector('script[src*="widget.js"]')"""


_LOGO_TYPES = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
_MAX_LOGO_BYTES = 256 * 1024  # it is shown 38 pixels wide, and loaded by every page that has the widget

# What the widget loads from another site's page: nothing in it is secret.
PUBLIC = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
_HEADERS = {**PUBLIC, "cache-control": "public, max-age=300", "vary": "accept-encoding"}


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How the chat looks: what the config's `chat` holds. An empty text leaves the choice to the widget."""

    accent: str = "#4f46e5"
    theme: str = "auto"
    greeting: str = ""
    language: str = ""
    contact: str = ""
    logo: Path | None = None
    key: str = ""  # with the scope page: everyone can read it


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file that is kept ready to be sent, together with its compressed form."""

    body: bytes
    media_type: str

    def response(self, request: Request) -> Response:
        """Answer with the file, or with 304 where the browser has this version already."""
        tag = f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'
        headers = {**_HEADERS, "etag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                _compressed(self.body), media_type=self.media_type, headers={**headers, "content-encoding": "gzip"}
            )
        return Response(self.body, media_type=self.media_type, headers=headers)


def read_logo(path: Path) -> File:
    """Return the logo. Raises ByheartError where it is not there, no picture, or too heavy for every page view."""
    media_type = _LOGO_TYPES.get(path.suffix.lower())
    if media_type is None:
        raise ByheartError(f"chat.logo: {path.name} is none of {', '.join(_LOGO_TYPES)}. Save it as one of these.")
    try:
        body = path.read_bytes()
    except OSError as fault:
        raise ByheartError(
            f"chat.logo: {path} cannot be read: {fault.strerror}. The path starts at byheart.yaml."
        ) from fault
    if len(body) > _MAX_LOGO_BYTES:
        raise ByheartError(f"chat.logo: {path.name} has {len(body) // 1024} KB; at most {_MAX_LOGO_BYTES // 1024}.")
    return File(body, media_type)


def widget_file(*, title: str, suggestions: Sequence[str], look: Look) -> File:
    """Return widget.js for a bot. Data attributes of the script element may override what is set here."""
    settings = {
        "title": title,
        "suggestions": list(suggestions),
        "accent": look.accent,
        "theme": look.theme,
        "greeting": look.greeting,
        "language": look.language,
        "contact": look.contact,
        "logo": "logo" if look.logo else "",
        "key": look.key,
        "languages": languages(),
    }
    # "<" cannot end a script element that someone puts this into; JSON is JavaScript otherwise
    values = json.dumps(settings, ensure_ascii=False).replace("<", "\\u003c")
    code = f'"use strict";\n(() => {{\n{_code()}\nstart({values}, {_SCRIPT}, {json.dumps(_styles())});\n}})();\n'
    return File(code.encode(), "text/javascript")


def icon_file(look: Look) -> File:
    """Return the icon that stands in a browser's tab: the logo, or a speech bubble in the brand's colour."""
    if look.logo:
        return read_logo(look.logo)
    return File(_static().joinpath("icon.svg").read_bytes().replace(b"#4f46e5", look.accent.encode()), "image/svg+xml")


def brand_file(look: Look) -> File:
    """Return the style sheet that puts the brand's colour into the manual's pages."""
    return File(brand_css(look.accent).encode(), "text/css")


@functools.cache
def languages() -> list[str]:
    """Return the languages, besides English, that the interface speaks."""
    return sorted(path.name.removesuffix(".json") for path in _static().joinpath("languages").iterdir())


@functools.cache
def _code() -> str:
    """Return the modules as one, without imports, exports, comments and needless space."""
    code = "".join(_static().joinpath("widget", f"{name}.js").read_text(encoding="utf-8") for name in MODULES)
    return str(rjsmin.jsmin(_EXPORT.sub("", _IMPORT.sub("", code))))


@functools.cache
def _styles() -> str:
    code = "".join(_static().joinpath(name).read_text(encoding="utf-8") for name in STYLES)
    return _CSS_SPACE.sub(r"\1", _CSS_COMMENT.sub("", code)).replace(";}", "}")


@functools.lru_cache(maxsize=8)
def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def _static() -> Traversable:
    return files("byheart.serve").joinpath("static")
