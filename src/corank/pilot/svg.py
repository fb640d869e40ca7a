"""A stand-alone SVG file rewritten to live inside a page: its ids are its own, its colours are the page's."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

_URL = re.compile(r"url\(#([^)]+)\)")
_HREF = "{http://www.w3.org/1999/xlink}href"


def inline(svg: str, key: str, palette: Mapping[str, str], *, title: str, text: str) -> str:
    """Rewrite a stand-alone SVG file for use inside a page.

    Namespaces, metadata and the style element (which would restyle the page) go; ids that are used, and
    those of rings, which the page shows and hides, get the prefix `key`; the others go; fonts are the page's.

    Args:
        svg: a whole file, as matplotlib writes it.
        key: a word that no other picture of the page has.
        palette: `{name: "#rrggbb"}`; each of these colours becomes the CSS variable `--name`.
        title: the picture's name, read aloud.
        text: what it shows, read aloud.
    Returns: an `<svg>` element without any namespace.
    """
    variables = {colour: f"var(--{name})" for name, colour in palette.items()}
    root = ET.fromstring(svg)
    used = {href[1:] for e in root.iter() if (href := e.get(_HREF, "")).startswith("#")}
    used |= {match for e in root.iter() for value in e.attrib.values() for match in _URL.findall(value)}
    for parent in root.iter():
        parent.tag = _local(parent.tag)
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
        parent.attrib = {
            _local(k): new
            for k, v in parent.attrib.items()
            if (new := _attribute(_local(k), v, key, used, variables)) is not None
        }
        if parent.text is not None and not parent.text.strip():
            parent.text = None
        if parent.tail is not None and not parent.tail.strip():
            parent.tail = None
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "class": "picture",
        "role": "img",
        "aria-labelledby": f"{key}-title {key}-text",
        "viewBox": root.attrib["viewBox"],
        "width": width,
        "height": height,
    }
    for place, (tag, said) in enumerate((("title", title), ("desc", text))):
        element = ET.Element(tag, {"id": f"{key}-{'title' if tag == 'title' else 'text'}"})
        element.text = said
        root.insert(place, element)
    return ET.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _attribute(name: str, value: str, key: str, used: set[str], variables: Mapping[str, str]) -> str | None:
    if name == "id":
        return f"{key}-{value}" if value in used or value.startswith("ring") else None
    if name == "href":
        return f"#{key}-{value[1:]}" if value.startswith("#") else "".join(value.split())
    if name == "transform" and value.startswith("rotate(-0 "):
        return None
    if name == "d":
        return " ".join(value.split())
    if name == "style":
        value = ";".join(filter(None, (_declaration(part, variables) for part in value.split(";"))))
    return _URL.sub(rf"url(#{key}-\1)", value)


def _declaration(declaration: str, variables: Mapping[str, str]) -> str | None:
    name, _, value = (part.strip() for part in declaration.partition(":"))
    if name == "font-family" or not name:
        return None
    if name == "font":  # matplotlib before 3.10 writes the shorthand
        size = re.search(r"[\d.]+px", value)
        weight = re.match(r"(bold|\d{3})\b", value)
        found = [f"font-weight:{weight[1]}"] if weight else []
        return ";".join([*found, f"font-size:{size[0]}"] if size else found)
    return f"{name}:{variables.get(value.lower(), value)}"
