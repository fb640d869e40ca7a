"""How corank's docstrings become Markdown: labels in bold, arguments as a list, examples as code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_LABEL = re.compile(r"^(Args|Returns|Raises|Source|Yields):\s*(.*)$")
_ITEM = re.compile(r"^    (\*{0,2}\w[\w, *]*): (.*)$")


class Layout(griffe.Extension):
    """Lay out the docstring of every object as it is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """Lay out one docstring."""
    out: list[str] = []
    listed = code = False
    for line in text.splitlines():
        if code and not line.strip():
            out.append("```")
            code = False
        if not code and line.startswith(">>> "):
            out += ["", "```pycon"]
            code = True
        label, item = _LABEL.match(line), _ITEM.match(line)
        if code:
            out.append(line)
        elif label:
            listed = label[2] == ""
            out += ["", f"**{label[1]}** {label[2]}".rstrip(), ""]
        elif listed and item:
            out.append(f"- `{item[1]}`: {item[2]}")
        elif out and out[-1].startswith("- `") and line.strip():
            out[-1] += f" {line.strip()}"
        else:
            if out and not out[-1] and len(out) > 1 and out[-2].startswith("**") and line.strip():
                out[-2] += f" {line.strip()}"
                continue
            out.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join([*out, "```"] if code else out))
