"""Mistakes of a report on health: it says that all is well, or does not come."""

from __future__ import annotations

from tests.mutants.mutant import Edit, mutant

HEALTH = "store/test_health.py::test_"
PROBES = "http/test_health.py::test_"

MUTANTS = (
    mutant(
        "freshness by the ts of the data",
        "Data that does not change stays fresh as long as its producer confirms it.",
        HEALTH + "fresh_means_that_a_producer_published_or_confirmed",
        Edit("judged", "<= found.confirmed_age_ms <=", "<= found.age_ms <="),
    ),
    mutant(
        "a clock that is ahead counts as fresh",
        "A producer whose clock is ahead does not pass for fresh after its death.",
        HEALTH + "a_producer_whose_clock_is_ahead_is_not_fresh",
        Edit("judged", "not -CLOCKS_AGREE_MS <= found", "not float('-inf') <= found"),
    ),
    mutant(
        "what has no count is large enough",
        "A minimum that cannot be compared is not kept.",
        HEALTH + "a_minimum_is_compared_with_what_is_served[sqlite]",
        Edit("judged", "count is None or count < bound.min_count", "(count or 9999) < bound.min_count"),
    ),
    mutant(
        "no datasets at all are healthy",
        "A monitor of the wrong namespace alarms.",
        HEALTH + "without_names_all_datasets_are_looked_at[sqlite]",
        Edit("Health.state", 'default="missing"', 'default="fresh"'),
    ),
    mutant(
        "a report does not end an outage in time",
        "A report in an outage takes its own time-out, not the patience of a publish.",
        HEALTH + "an_outage_ends_the_report_in_time[blocking]",
        Edit("_waited", "budget.tighten(step.total_s, patient=step.patient)", "pass"),
    ),
    mutant(
        "a report does not end an outage in time (asyncio)",
        "A report in an outage takes its own time-out, not the patience of a publish.",
        HEALTH + "an_outage_ends_the_report_in_time[asyncio]",
        Edit("_awaited", "budget.tighten(step.total_s, patient=step.patient)", "pass"),
    ),
    mutant(
        "a hurried connection stays so",
        "A call after a report waits for its replies as long as before.",
        HEALTH + "a_silent_server_ends_the_report_in_time[blocking]",
        Edit("RedisDriver.receive", "if request.hurried else None", "if False else None"),
    ),
    mutant(
        "an error in a report in full",
        "An endpoint shows no address.",
        PROBES + "no_address_and_no_secret_is_shown[wsgi]",
        Edit("_named", "type(error).__name__", "str(error)"),
    ),
    mutant(
        "a probe waits for its check whatever it takes",
        "A silent store delays a probe by its time-out only.",
        PROBES + "a_check_that_no_timeout_reaches_delays_no_probe[wsgi]",
        Edit("_Checks._left_s", "self._timeout_s", "30"),
    ),
    mutant(
        "a check for each probe",
        "Many probes are one check.",
        PROBES + "many_probes_are_one_check[wsgi]",
        Edit("_Checks._current", "self._last is not None and self._last.serves()", "False"),
    ),
    mutant(
        "a check that a fork has left behind",
        "A worker that was forked during a check makes its own.",
        PROBES + "a_worker_that_is_forked_during_a_check_has_checks_of_its_own",
        Edit("_Checks.__init__", "survive_forks(self)", "pass"),
    ),
    mutant(
        "the first publish is not validated",
        "at_least holds for the first snapshot of a dataset.",
        HEALTH + "at_least_holds_for_the_first_publish[sqlite]",
        Edit("at_least", "if now >= number else", "if now >= number or _ is None else"),
    ),
)
