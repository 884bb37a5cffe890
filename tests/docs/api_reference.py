"""The generated part of the API reference: headings are signatures, the text under them is the docstring.

In docs/reference/api.md, what stands between `<!-- ## swapstore.connect -->` and `<!-- end -->` is made of
the object that the comment names; the hashes are the level of its heading. The rest is written by hand.

    python -m tests.docs.api_reference    # write it anew, after a signature or a docstring has changed
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import swapstore

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"
_BLOCK = re.compile(r"<!-- (#+) ([\w.]+) -->\n.*?<!-- end -->", re.DOTALL)
_CODE = re.compile(r"`(\w+)`")
_ENUM = re.compile(r"<(\w+\.\w+): [^>]*>")
# The section names the class or the module.
_SHORT = ("swapstore.View.", "swapstore.validators.", "swapstore.observe.", "swapstore.testing.")


def generated(page: str) -> str:
    """Return the page with its generated parts as they should be."""
    classes = set(re.findall(r"^#+ `(\w+)`$", page, re.MULTILINE))
    return _BLOCK.sub(lambda block: _rendered(block[1], block[2], classes), page)


def names(page: str) -> list[str]:
    """Return the full names of the objects whose docstrings are in the page."""
    return [block[2] for block in _BLOCK.finditer(page)]


def resolved(name: str) -> Any:
    """Return the object with a full name, such as `swapstore.Store.publish`."""
    found: Any = swapstore
    for part in name.split(".")[1:]:
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    return found


def _rendered(hashes: str, name: str, classes: set[str]) -> str:
    member = resolved(name)
    text = inspect.getdoc(member) or ""
    own = name.rpartition(".")[2]
    linked = _CODE.sub(
        lambda code: f"[`{code[1]}`](#{code[1].lower()})" if code[1] in classes - {own} else code[0], text
    )
    return f"<!-- {hashes} {name} -->\n{hashes} `{_heading(name, member)}`\n\n{linked}\n<!-- end -->"


def _heading(name: str, member: Any) -> str:
    """Return a signature without types, `publish(dataset, value, *, id=None)`; of a class, its name."""
    short = name.rpartition(".")[2]
    shown = short if name.startswith(("swapstore.Store.", *_SHORT)) else name
    if isinstance(member, property):
        return shown
    if inspect.isclass(member):
        return short
    parameters = [
        each.replace(annotation=inspect.Parameter.empty)
        for each in inspect.signature(member).parameters.values()
        if each.name != "self"
    ]
    return shown + _ENUM.sub(r"\1", str(inspect.Signature(parameters)))


def main() -> None:
    """Write the generated parts of the page anew."""
    PAGE.write_text(generated(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
