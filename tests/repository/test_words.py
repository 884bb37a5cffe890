"""The words of the source and the docs: the field's terms, one word for one thing."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

INSTEAD = {  # the word that is not used, and what is written instead
    "albeit": "but",
    "amid": "during",
    "amongst": "among",
    "blacklist": "denied",
    "hitherto": "so far",
    "lest": "so that … not",
    "naught": "nothing",
    "nought": "nothing",
    "obviously": "leave it out",
    "thereof": "of it",
    "thus": "so",
    "upon": "on",
    "utilize": "use",
    "whatsoever": "any",
    "whence": "from where",
    "wherein": "in which",
    "whilst": "while",
    "whitelist": "allowed",
}
TO_COME = {
    "at hand": "available",
    "ears": "subscription",
    "for ever": "permanently",
    "gate": "limiter",
    "growth": "append",
    "horizon": "gap detection",
    "let go of": "unlinked, evicted, deleted",
    "lets go of": "unlinks, evicts, deletes",
    "letting go": "unlinking, evicting, deleting",
    "meanwhile": "concurrently, at the same time",
    "mend": "repair",
    "mended": "repaired",
    "mending": "rebuild",
    "settle": "resolve the outcome",
    "settled": "resolved",
    "steer": "pin and rollback",
    "survey": "what verify found",
    "suspects": "findings",
    "sweep": "search for leaks",
    "telling": "instrumentation",
    "unless given": "default: …",
    "what is none": "invalid",
    "whoever": "the caller",
}
PUBLIC = {"let_go"}  # an attribute of `Pruned`


def texts() -> list[Path]:
    found = [path for kind in ("*.py", "*.lua") for path in (ROOT / "swapstore").rglob(kind)]
    return sorted([*found, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])


def words_in(text: str, words: set[str]) -> set[str]:
    """Which of the words stand in a text, in whatever case and across lines of a comment, names included."""
    flat = re.sub(r"[\s#_]+", " ", re.sub(rf"\b(?:{'|'.join(PUBLIC)})\b", "", text.lower()))
    return {word for word in words if re.search(rf"\b{word}\b", flat)}


def test_the_words_are_those_of_the_field() -> None:
    """A reader meets a private word where engineers have one, or a word that only few people know."""
    found = {path: words_in(path.read_text("utf-8"), set(INSTEAD)) for path in texts()}
    assert not [f"{path}: {word}, better: {INSTEAD[word]}" for path, words in found.items() for word in words]


def test_a_word_is_found_wherever_it_stands() -> None:
    """The search above finds nothing whatever is written, and so proves nothing."""
    text = "Upon\n# let\n    # go of it, a keep_the_gate; Pruned.let_go and lettuce, frigate."
    assert words_in(text, {"upon", "let go of", "gate", "let go"}) == {"upon", "let go of", "gate", "let go"}
    assert words_in("Pruned.let_go, frigate", {"let go", "gate"}) == set()
