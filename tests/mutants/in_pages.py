"""Mistakes of the page: it shows what is not stored, hides what is, or runs it as a script."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

DATASET = "serve/test_page_dataset.py::test_"
SNAPSHOT = "serve/test_page_snapshot.py::test_"
VALUES = "serve/test_page_values.py::test_"

MUTANTS = (
    mutant(
        "a search skips what is stored with escapes",
        "A search finds a text however it is stored.",
        SNAPSHOT + "search_finds_what_is_stored_as_an_escape",
        Edit("_walk", ' or "\\\\u" in text', ""),
    ),
    mutant(
        "a match is looked for on the first page of its parent",
        "A match leads to the part of the tree that shows it.",
        SNAPSHOT + "search_finds_keys_and_values_and_leads_to_them[sqlite]",
        Edit("matches_in", "node.place - node.place % CHILDREN", "0"),
    ),
    mutant(
        "marks of direction are shown as they are",
        "A value cannot turn the text around it.",
        DATASET + "whatever_the_store_holds_is_text[sqlite]",
        Edit("visible", 'f"\\\\u{ord(found[0]):04x}"', "found[0]"),
    ),
    mutant(
        "texts with the same beginning are the same value",
        "A change deep in a long value is a change.",
        VALUES + "objects_and_long_texts_are_cut[sqlite]",
        Edit("_value_of", "digest=hashlib.sha256(node.raw).digest()", 'digest=b""'),
    ),
)
