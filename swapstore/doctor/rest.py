"""The questions to a REST endpoint, and to the server behind it as far as it lets them through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Ask, Failed
from swapstore.doctor import redis
from swapstore.doctor.check import Check, Verdict, reason
from swapstore.doctor.info import Answers, parse
from swapstore.protocol.load import ask_all

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

_BYTE = b"\xff"  # no text: it comes back only if replies are encoded
_SCRIPT = ("EVAL", "return string.char(255)", "0")


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Ask the endpoint itself, then the server. Raises what a request raises that is not answered."""
    questions = {
        "script": _SCRIPT,
        "info": ("INFO",),
        "save": ("CONFIG", "GET", "save"),
        "policy": ("CONFIG", "GET", "maxmemory-policy"),
        "role": ("ROLE",),
    }
    replies = yield from ask_all(ctx, [Ask(words) for words in questions.values()])
    told = dict(zip(questions, replies, strict=True))
    answers = Answers(**told, commands=None, cluster=None)
    info = parse(answers.info)
    clocks = yield from redis.measure(ctx)
    return [
        Check("endpoint", Verdict.OK, "it answers, and takes the token"),
        _scripts(answers.script),
        _replies(answers.script),
        redis.server(info, answers, ()),
        redis.eviction(info, answers),
        redis.memory(info),
        redis.persistence(info, answers),
        redis.replication(info, answers),
        redis.skew(clocks),
    ]


def _scripts(reply: Any) -> Check:
    """Whether a script runs: the commit is one, where that is possible."""
    if not isinstance(reply, Failed):
        return Check("scripts", Verdict.OK, "a script ran")
    return Check(
        "scripts",
        Verdict.WARNING,
        f"a script does not run: {reason(reply)}",
        "Publish with a token that may run EVAL and EVALSHA: the commit is a script. For a token that only "
        "reads this is as it should be.",
    )


def _replies(reply: Any) -> Check:
    """Whether every byte comes back as it is."""
    if reply == _BYTE:
        return Check("replies", Verdict.OK, "every byte comes back as it was (base64)")
    if isinstance(reply, Failed):
        return Check(
            "replies",
            Verdict.UNKNOWN,
            "whether every byte comes back cannot be told without a script",
            "See that the endpoint heeds the header Upstash-Encoding: base64.",
        )
    return Check(
        "replies",
        Verdict.WARNING,
        "replies come as plain text: bytes that are none come back changed",
        "What swapstore publishes through this endpoint is text, and safe. Read what was published over the "
        "Redis protocol there too, or use an endpoint that heeds the header Upstash-Encoding: base64.",
    )
