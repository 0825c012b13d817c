"""Matplotlib's SVG, made fit for a page: it takes the page's colours and fonts and holds no inline style.

A page whose policy forbids inline styles ignores `style` attributes, which Matplotlib writes everywhere. They become
presentation attributes, and the colours of `INKS` become classes, so that one drawing serves light, dark and print.
"""

import re
import warnings
from collections.abc import Callable
from io import StringIO
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INKS = {"ink": "#010101", "muted": "#020202", "rule": "#030303", "accent": "#040404", "doubt": "#050505"}
"""Stand-ins for the page's colours; each is near black, so a drawing that misses one is still to be read."""

_CLASSES = {colour: name for name, colour in INKS.items()}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "candist",
    # A label may hold a dollar sign.
    "text.parse_math": False,
    "font.size": 8.5,
    "text.color": INKS["ink"],
    "axes.labelcolor": INKS["muted"],
    "axes.edgecolor": INKS["rule"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INKS["rule"],
    "ytick.color": INKS["rule"],
    "xtick.labelcolor": INKS["muted"],
    "ytick.labelcolor": INKS["muted"],
    "grid.color": INKS["rule"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.8,
    "hatch.color": INKS["doubt"],
    "legend.frameon": False,
}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"(?:^|\s)([\d.]+)px\b")


def draw(name: str, paint: Callable[[Axes], None], height: float = 2.4, width: float = 4.0) -> Markup:
    """Paint on fresh axes and give them as one `<svg>`; ids begin with the name.

    Args:
        name: of the drawing, unique on its page.
        paint: draws on the axes, in colours of `INKS`.
        height: inches.
        width: inches.
    """
    with rc_context(_STYLE), warnings.catch_warnings():
        # The browser has the letters that Matplotlib's own font has not; only widths are guessed by that font.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure.add_subplot())
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    element = themed(text.getvalue(), name)
    # ElementTree writes it, and escapes.
    return Markup(element)  # nosec B704


def themed(svg: str, name: str) -> str:
    """Matplotlib's SVG as an element of HTML: no namespaces, no style, classes for colours, ids of its own."""
    # Matplotlib wrote it, a moment ago.
    root = ElementTree.fromstring(svg)  # nosec B314
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.removeprefix(_SVG) in ("style", "metadata") or not child.tag.startswith(_SVG):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _restyle(element)
        _rename(element, name)
    box = root.get("viewBox", "")
    root.attrib = {"viewBox": box, "class": "plot", "role": "img", "aria-labelledby": f"{name}-title"}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _restyle(element: ElementTree.Element) -> None:
    """Move a style into attributes; colours of `INKS` into classes."""
    rules = (rule.split(":", 1) for rule in element.attrib.pop("style", "").split(";") if ":" in rule)
    declared = {key.strip(): value.strip() for key, value in rules}
    if (font := declared.pop("font", None)) and (size := _FONT.search(font)):
        declared["font-size"] = size[1]
    declared |= {key: element.attrib.pop(key) for key in ("fill", "stroke") if key in element.attrib}
    classes = []
    for key, value in declared.items():
        if key in ("fill", "stroke") and value in _CLASSES:
            classes.append(f"{key}-{_CLASSES[value]}")
        elif key != "font-family":
            element.set(key, value)
    if element.tag == "text" and "fill" not in declared:
        classes.append("fill-ink")
    if classes:
        element.set("class", " ".join(classes))


def _rename(element: ElementTree.Element, name: str) -> None:
    """Ids are of one drawing alone, several of which stand on one page."""
    if _HREF in element.attrib:
        element.set("href", "#" + name + "-" + element.attrib.pop(_HREF).removeprefix("#"))
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif "url(#" in value:
            element.set(key, value.replace("url(#", f"url(#{name}-"))
