"""Mistakes in views: what is served, and who is told."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

FAULTS = "views/test_faults.py::test_"

MUTANTS = (
    mutant(
        "a view that nobody keeps up to date is served",
        "Reading a view whose thread or task has ended raises: it would serve old data for ever.",
        FAULTS + "a_view_whose_event_loop_has_ended",
        Edit("AsyncView._end", "self._held = {}", "pass"),
    ),
    mutant(
        "a change is forgotten before everybody was told",
        "What a look has shown is told, although the process is forked while on_change runs.",
        FAULTS + "a_fork_while_on_change_runs[sqlite]",
        Edit("View._keep", "self._call(names)", "viewing.told(names)\nself._call(names)"),
    ),
    mutant(
        "the replica that lags is believed",
        "A view never goes back: what a replica shows differently is read from the primary.",
        "real/test_replicas.py::test_a_view_beside_replicas_that_lag",
        Edit("Viewing.look", "self._primary if self.ready else ctx", "ctx"),
    ),
    mutant(
        "messages of others are taken for hints",
        "Only a well-formed name of a dataset is looked at: others may publish on the channels.",
        "views/test_watching.py::test_messages_of_others_are_not_looked_up",
        Edit("Watch._named", "arguments.is_dataset(name)", "True"),
    ),
)
