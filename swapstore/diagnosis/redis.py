"""The questions to a Redis or Valkey server, and to what resembles one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Ask
from swapstore.diagnosis import redis_checks, redis_permissions, redis_time
from swapstore.diagnosis.redis_info import Answers, parse
from swapstore.operations.steps import ask_all

if TYPE_CHECKING:
    from swapstore.commands import Failed
    from swapstore.diagnosis.check import Check
    from swapstore.operations.context import Context
    from swapstore.operations.operation import Operation

# What the drivers and the scripts beside them send.
NEEDED = (
    *("GET", "GETRANGE", "SET", "SADD", "SMEMBERS", "EVAL", "EVALSHA"),
    *("EXISTS", "PTTL", "PERSIST", "PEXPIRE", "UNLINK", "PUBLISH"),
)


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Ask all there is to ask, in as few round trips as the answers depend on each other."""
    answers = Answers(
        **(
            yield from _ask(
                ctx,
                info=("INFO",),
                save=("CONFIG", "GET", "save"),
                policy=("CONFIG", "GET", "maxmemory-policy"),
                commands=("COMMAND", "INFO", *map(str.lower, NEEDED)),
                cluster=("CLUSTER", "INFO"),
                script=("EVAL", "return 1", "0"),
                role=("ROLE",),
            )
        )
    )
    info = parse(answers.info)
    clock = yield from redis_time.measure(ctx)
    permissions = yield from redis_permissions.examine(ctx)
    return [
        redis_checks.server(info, answers, NEEDED),
        redis_checks.eviction(info, answers),
        redis_checks.memory(info),
        redis_checks.persistence(info, answers),
        redis_checks.replication(info, answers),
        redis_checks.cluster(info, answers),
        redis_permissions.scripts(answers.script, permissions),
        redis_permissions.commands(permissions, ctx.keys.namespace),
        redis_time.skew(clock),
    ]


def _ask(ctx: Context, **questions: tuple[str, ...]) -> Operation[dict[str, Any | Failed]]:
    replies = yield from ask_all(ctx, [Ask(words) for words in questions.values()])
    return dict(zip(questions, replies, strict=True))
