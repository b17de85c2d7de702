"""Pictures within a page: they take its colours, so that they are dark where it is, and share no names with others."""

import re
from html import escape

from wakeq_bench.pages.drawing import GRID, INK, MUTED, PALETTE, PAPER, TINTS

_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    **{color: f"c{number}" for number, color in enumerate(PALETTE, 1)},
    **{tint: f"t{number}" for number, tint in enumerate(TINTS, 1)},
}
# What only a file of its own needs. The page has the one rule of the style sheet.
_OF_FILES = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_ROOT = re.compile(r'<svg [^>]*viewBox="([^"]*)"[^>]*>')
_COLOR = re.compile(r"#[0-9a-f]{6}\b")
_NAME = re.compile(r'(\bid="|\bxlink:href="#|url\(#)')
# Groups are named and never referred to, and a thousandth of a pixel is nothing: both are most of a file.
_GROUP_NAME = re.compile(r'<g id="[^"]*"')
_EMPTY_GROUP = re.compile(r"<g\s*/>")
_UNTURNED = re.compile(r' transform="rotate\(-0 [^"]*\)"')
_TAG = re.compile(r"<[^>]*>")
_DIGITS = re.compile(r"(\.\d\d)\d+")
_SPACE = re.compile(r"\s*\n\s*")
_FONT = re.compile(r"'DejaVu Sans'")


def inlined(svg: str, name: str, words: str, css_class: str) -> str:
    """The picture as an element; `name` is of its own in the page, `words` are for whoever can't see it."""
    text = _UNTURNED.sub("", _OF_FILES.sub("", svg))
    text = _EMPTY_GROUP.sub("", _GROUP_NAME.sub("<g", text))
    text = _SPACE.sub("\n", _TAG.sub(lambda tag: _DIGITS.sub(r"\1", tag[0]), text))
    text = _NAME.sub(lambda match: f"{match[1].replace('xlink:', '')}{name}-", text)
    text = _COLOR.sub(lambda match: f"var(--{_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0], text)
    text = _FONT.sub("inherit", text)
    described = f'class="{css_class}" role="img" aria-label="{escape(words)}"'
    return _ROOT.sub(lambda match: f'<svg viewBox="{match[1]}" {described}>', text, count=1).strip()
