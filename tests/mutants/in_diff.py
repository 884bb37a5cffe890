"""Mistakes of `diff`: a change that is not listed, or is listed as another one."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

DIFF = "unit/test_diff.py::test_"
APPLIED = DIFF + "the_changes_make_the_new_value_of_the_old_one"

MUTANTS = (
    mutant(
        "true is taken for 1",
        "A value that became another type is a change.",
        DIFF + "what_python_takes_for_equal_or_json_writes_alike_is_told_apart",
        Edit("_of_leaf", "return (bool, value)", "return value"),
    ),
    mutant(
        "1.0 is taken for 1",
        "A value that became another type is a change.",
        DIFF + "what_python_takes_for_equal_or_json_writes_alike_is_told_apart",
        Edit("_of_leaf", "(float, float(value)) if value.is_integer() else float(value)", "float(value)"),
    ),
    mutant(
        "two objects with one id are matched",
        "The changes make the new value of the old one.",
        DIFF + "a_field_identifies_only_if_every_object_of_both_lists_has_it_once",
        Edit("_identifies", " or value in seen", ""),
    ),
    mutant(
        "rows are matched by a rank",
        "A row is compared with itself, not with the one that took its place in a ranking.",
        DIFF + "objects_are_matched_by_the_field_that_identifies_them",
        Edit("identifying_field", "if _rank(field)[0] < len(IDENTIFIERS) else {str}", ""),
    ),
    mutant(
        "what moved is not listed",
        "The changes make the new value of the old one.",
        APPLIED,
        Edit("_steps_of_lists", "if at in matching.moved:", "if False:"),
    ),
    mutant(
        "slashes in a key are not escaped",
        "A JSON pointer leads to the value that is listed.",
        DIFF + "each_pointer_leads_to_the_value_that_is_listed",
        Edit("_step", '.replace("/", "~1")', ""),
    ),
)
