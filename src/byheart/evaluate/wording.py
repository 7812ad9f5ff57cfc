"""Figures in words that a documentation engineer reads without a statistics book."""

from __future__ import annotations

from byheart.evaluate.metrics import Share

NBSP = "\u00a0"
SYSTEM_NAMES = {
    "byheart": "byheart",
    "closed-book": "model by heart alone",
    "retrieve": "model reading passages",
    "untrained": "untrained model",
    "bm25": "keyword search",
}

OTHER_WAYS = frozenset({"closed-book", "retrieve"})  # to ask the same trained model: no baselines to be better than


def percent(share: float | None) -> str:
    """Return "71 %". Nearly all is never "100 %", and hardly any never "0 %"."""
    if share is None:
        return "–"
    rounded = round(share * 100)
    if rounded == 100 and share < 1:
        return f">99{NBSP}%"
    if rounded == 0 and share > 0:
        return f"<1{NBSP}%"
    return f"{rounded}{NBSP}%"


def interval(share: Share) -> str:
    """Return "62–79 %"."""
    if share.low is None or share.high is None:
        return ""
    return f"{round(share.low * 100)}–{round(share.high * 100)}{NBSP}%"


def sure(share: Share) -> str:
    """Return what the interval means: "62–79 % if many more such questions were asked (from 80)"."""
    if share.n == 0:
        return "nothing to measure it on"
    return f"{share.count} of {share.n} questions; asked many more of the kind, expect {interval(share)}"


def seconds(value: float) -> str:
    """Return "84 ms" or "1.3 s"."""
    return f"{value * 1000:.0f}{NBSP}ms" if value < 1 else f"{value:.1f}{NBSP}s"


def chance(p_value: float) -> str:
    """Return how likely the difference is luck."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def plural(count: int, noun: str, many: str = "") -> str:
    """Return "1 page" or "1,234 pages"."""
    return f"{count:,}{NBSP}{noun if count == 1 else many or noun + 's'}"
