"""The diagnosis of a REST endpoint, and of the server behind it as far as it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Ask, Failed
from swapstore.doctor import redis, times
from swapstore.doctor.check import Check, Verdict, reason
from swapstore.doctor.info import Answers, parse
from swapstore.protocol.load import ask_all

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

_BYTE = b"\xff"  # not text: it comes back only if replies are encoded
_SCRIPT = ("EVAL", "return string.char(255)", "0")


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Ask the endpoint itself, then the server. Raises the error of a request that gets no answer."""
    questions = {
        "script": _SCRIPT,
        "info": ("INFO",),
        "save": ("CONFIG", "GET", "save"),
        "policy": ("CONFIG", "GET", "maxmemory-policy"),
        "role": ("ROLE",),
    }
    replies = yield from ask_all(ctx, [Ask(words) for words in questions.values()])
    by_name = dict(zip(questions, replies, strict=True))
    answers = Answers(**by_name, commands=None, cluster=None)
    info = parse(answers.info)
    clocks = yield from redis.measure(ctx)
    return [
        Check("endpoint", Verdict.OK, "it answers, and accepts the token"),
        _scripts(answers.script),
        _replies(answers.script),
        redis.server(info, answers, ()),
        redis.eviction(info, answers),
        redis.memory(info),
        redis.persistence(info, answers),
        redis.replication(info, answers),
        redis.skew(clocks),
        *(yield from times.diagnose(ctx)),
    ]


def _scripts(reply: Any) -> Check:
    """Check whether a script runs: the commit is one, where that is possible."""
    if not isinstance(reply, Failed):
        return Check("scripts", Verdict.OK, "a script ran")
    return Check(
        "scripts",
        Verdict.WARNING,
        f"a script does not run: {reason(reply)}",
        "Publish with a token that may run EVAL and EVALSHA: the commit is a script. A token that only reads "
        "needs no scripts.",
    )


def _replies(reply: Any) -> Check:
    """Check whether every byte comes back unchanged."""
    if reply == _BYTE:
        return Check("replies", Verdict.OK, "every byte comes back unchanged (base64)")
    if isinstance(reply, Failed):
        return Check(
            "replies",
            Verdict.UNKNOWN,
            "without a script it is unknown whether every byte comes back unchanged",
            "Make sure that the endpoint supports the header Upstash-Encoding: base64.",
        )
    return Check(
        "replies",
        Verdict.WARNING,
        "replies are plain text: bytes that are not text come back changed",
        "Data that swapstore publishes through this endpoint is text, and safe. Read data that was published "
        "over the Redis protocol there too, or use an endpoint that supports the header Upstash-Encoding: "
        "base64.",
    )
