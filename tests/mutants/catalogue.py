"""All mutants."""

from __future__ import annotations

from tests.mutants import (
    in_copying,
    in_diff,
    in_drivers,
    in_events,
    in_health,
    in_http,
    in_log,
    in_pages,
    in_plain,
    in_publish,
    in_reading,
    in_repair,
    in_retention,
    in_serve,
    in_store,
    in_verify,
    in_views,
)
from tests.mutants.mutant import Mutant

MUTANTS = (
    *in_store.MUTANTS,
    *in_drivers.MUTANTS,
    *in_publish.MUTANTS,
    *in_pages.MUTANTS,
    *in_plain.MUTANTS,
    *in_reading.MUTANTS,
    *in_log.MUTANTS,
    *in_retention.MUTANTS,
    *in_verify.MUTANTS,
    *in_repair.MUTANTS,
    *in_events.MUTANTS,
    *in_health.MUTANTS,
    *in_copying.MUTANTS,
    *in_diff.MUTANTS,
    *in_http.MUTANTS,
    *in_views.MUTANTS,
    *in_serve.MUTANTS,
)
CHECKS = tuple(dict.fromkeys(check for mutant in MUTANTS for check in mutant.checks))
UNCHANGED = Mutant("(the code as it is)", "The named checks pass without a mutant.", CHECKS, ())
