"""The brand's colour on the manual's pages: the same shades as static/widget/colours.js makes of it for the chat."""

from __future__ import annotations

from collections.abc import Callable

Colour = tuple[float, float, float]  # red, green, blue, 0 to 255

_LEAST_CONTRAST = 4.6  # WCAG 2.2's AA asks for 4.5; rounding to 8 bits takes a little away
_WHITE, _BLACK, _INK = (255.0, 255.0, 255.0), (0.0, 0.0, 0.0), (16.0, 18.0, 27.0)


def brand_css(accent: str) -> str:
    """Return a style sheet that sets the colours of base.css, light and dark, from #rgb or #rrggbb."""
    rules = {
        is_dark: ";".join(f"{name}:{value}" for name, value in palette(accent, is_dark).items()) for is_dark in (0, 1)
    }
    return f":root{{{rules[0]}}}\n@media (prefers-color-scheme:dark){{:root{{{rules[1]}}}}}\n"


def palette(accent: str, is_dark: bool | int) -> dict[str, str]:
    """Return the custom properties that follow from an accent colour on a light or dark ground."""
    colour = _parse(accent)
    ground = _parse("#1b1e29") if is_dark else _WHITE
    on_white = contrast(colour, _WHITE)
    text = _WHITE if on_white >= _LEAST_CONTRAST or on_white >= contrast(colour, _INK) else _INK
    fill = _mix_until(
        colour, _BLACK if text == _WHITE else _WHITE, lambda mixed: contrast(mixed, text) >= _LEAST_CONTRAST
    )
    soft = _mix(ground, fill, 0.24 if is_dark else 0.09)
    link = _mix_until(
        fill,
        _WHITE if is_dark else _BLACK,
        lambda mixed: min(contrast(mixed, ground), contrast(mixed, soft)) >= _LEAST_CONTRAST,
    )
    names = ("--accent", "--accent-text", "--accent-soft", "--link")
    return {name: _hex(value) for name, value in zip(names, (fill, text, soft, link), strict=True)}


def contrast(one: Colour, other: Colour) -> float:
    """Return WCAG's contrast of two colours, 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    shares = [value / 255 for value in colour]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mix_until(colour: Colour, target: Colour, is_enough: Callable[[Colour], bool]) -> Colour:
    mixes = (_mix(colour, target, min(step / 25, 1)) for step in range(26))
    return next((mixed for mixed in mixes if is_enough(mixed)), target)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (float(int(a + (b - a) * share + 0.5)) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _parse(text: str) -> Colour:
    digits = text.removeprefix("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    red, green, blue = (float(int(digits[at : at + 2], 16)) for at in (0, 2, 4))
    return red, green, blue


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)
