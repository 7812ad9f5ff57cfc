"""Addresses of a crawl: which ones are the same page, which belong to the manual, which a crawl must never open.

The manual is what lies on the start address's site (host and port, http or https) in the start address's folder:

    https://help.example.com            everything on help.example.com
    https://example.com/docs/           everything below /docs/
    https://example.com/docs            /docs and everything below /docs/
    https://example.com/docs/start.html everything below /docs/
"""

from __future__ import annotations

import dataclasses
import fnmatch
import ipaddress
import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

HTML_TYPES = {"text/html", "application/xhtml+xml"}
TEXT_TYPES = {"text/markdown", "text/plain"}

# Query parameters that say where a visitor came from, never which page is shown.
_TRACKING = re.compile(r"(utm_.*|gclid|fbclid|msclkid|dclid|yclid|mc_cid|mc_eid|_ga|_gl)", re.IGNORECASE)
_INDEX = re.compile(r"/index\.(html?|xhtml|php|aspx?)$", re.IGNORECASE)
_FILE = re.compile(r"\.[a-z][a-z0-9]{1,5}$", re.IGNORECASE)  # ".html", and not the ".2" of "/docs/v1.2"
_ASSET = re.compile(
    r"\.(png|jpe?g|gif|svg|webp|avif|ico|bmp|tiff?|css|js|mjs|map|json|xml|rss|atom|woff2?|ttf|otf|eot|mp[34]|m4[av]|"
    r"webm|ogg|wav|mov|avi|zip|gz|tgz|bz2|xz|7z|rar|exe|msi|dmg|deb|rpm|apk|iso|csv|xlsx?|pptx?)$",
    re.IGNORECASE,
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_WEB_PORTS = {None, 80, 443}


class Site(NamedTuple):
    """One web server: http and https on their usual ports count as one."""

    host: str
    port: int | None


def clean(address: str, base: str = "") -> str:
    """Return the absolute http(s) address without fragment and tracking parameters; "" where there is none."""
    try:
        return _cleaned(urlsplit(urljoin(base, address.strip())))
    except ValueError:  # brackets without an IPv6 address, a port that is no number, broken characters
        return ""


def _cleaned(parts: SplitResult) -> str:
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return ""
    port = parts.port
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.rstrip(".")
    usual = {"http": 80, "https": 443}[parts.scheme]
    netloc = host if port in {None, usual} else f"{host}:{port}"
    path = quote(_without_dots(parts.path), safe="/%:@!$&'()*+,;=~")
    query = quote(_without_tracking(parts.query), safe="/%:@!$&'()*+,;=~?")
    return urlunsplit((parts.scheme, netloc, path, query, ""))


def key(address: str) -> str:
    """Return what all addresses of one page share: no scheme, final slash, index.html, order of parameters."""
    parts = urlsplit(clean(address))
    site = _site(parts)
    path = _INDEX.sub("/", parts.path).rstrip("/")
    query = "&".join(sorted(parts.query.split("&"))) if parts.query else ""
    return f"{site.host}:{site.port or ''}{path or '/'}?{query}"


def site_of(address: str) -> Site:
    """Return the server of a clean address."""
    return _site(urlsplit(address))


def is_asset(address: str) -> bool:
    """Return whether the address names a picture, a style sheet, an archive: what a page uses and no page."""
    return bool(_ASSET.search(urlsplit(address).path))


def same_article(one: str, other: str) -> bool:
    """Return whether two addresses can be one article by their names: /en/latest/install and /en/stable/install.

    A canonical link is believed only then: sites that name their home page as the canonical page of every page exist.
    """
    names = [posixpath.basename(urlsplit(address).path.rstrip("/")).lower() for address in (one, other)]
    short, long = sorted((_FILE.sub("", name) for name in names), key=len)
    return bool(short) and (short == long or long.startswith(short + "-"))


def source_name(address: str) -> str:
    """Return what an article and its source text share: /guide/a.html, /guide/a.md, /_sources/guide/a.rst.txt."""
    name = key(address).partition("?")[0].replace("/_sources/", "/")
    while _FILE.search(name):
        name = _FILE.sub("", name)
    return name


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """What belongs to the manual: a site, a folder on it, and the globs of the config."""

    site: Site
    folder: str  # ends with "/"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def around(cls, start: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Scope:
        """Return the scope of a clean start address."""
        path = urlsplit(start).path or "/"
        if _FILE.search(path):
            path = posixpath.dirname(path)
        return cls(site_of(start), path.rstrip("/") + "/", tuple(include), tuple(exclude))

    def holds(self, address: str) -> bool:
        """Return whether a clean address lies on the site and in the folder."""
        return site_of(address) == self.site and f"{urlsplit(address).path}/".startswith(self.folder)

    def wants(self, address: str) -> bool:
        """Return whether the globs let the address in. A glob is held against the address, and against its path."""
        path = urlsplit(address).path
        names = (address, path, path.lstrip("/"))

        def matches(globs: tuple[str, ...]) -> bool:
            return any(fnmatch.fnmatchcase(name, glob) for glob in globs for name in names)

        return (not self.include or matches(self.include)) and not matches(self.exclude)


def is_private(ip: str) -> bool:
    """Return whether an IP address is not one of the public internet (loopback, RFC 1918, ULA, CGNAT …)."""
    return not _unwrapped(ip).is_global


def is_never_a_manual(ip: str) -> bool:
    """Return whether no manual can be there: link-local (cloud metadata, 169.254.169.254) and multicast."""
    address = _unwrapped(ip)
    return address.is_link_local or address.is_multicast or ip == "fd00:ec2::254"


def _unwrapped(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address inside an IPv6 one where there is one: the packet ends up there."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inside = address.ipv4_mapped or address.sixtofour
    if inside is None and address in _NAT64:
        inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inside or address


def _site(parts: SplitResult) -> Site:
    return Site((parts.hostname or "").rstrip("."), None if parts.port in _WEB_PORTS else parts.port)


def _without_dots(path: str) -> str:
    if not path:
        return "/"
    plain = posixpath.normpath(path).replace("//", "/") if "/." in path or "//" in path else path
    return plain + "/" if path.endswith("/") and not plain.endswith("/") else plain


def _without_tracking(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if not _TRACKING.fullmatch(name)]
    return query if len(kept) == len(pairs) else urlencode(kept)
