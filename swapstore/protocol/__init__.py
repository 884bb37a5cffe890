"""The protocol: what each operation sends, in which order, and what it makes of each reply.

An operation is a generator. It yields a `Batch` of commands and is sent the list of their replies; when a
reply may have been lost, `ReplyLost` is thrown in, because that is an event of the protocol and not of the
transport. It yields a `Wait` where it wants to back off. It does no I/O and has no clock and no randomness
of its own: both are handed in with the `Context`. So the same code runs under every driver, sync or async,
and a test can stop, lose or delay any single command.

Start with `publish.py`, then `swap.py` (the commit point), then `read.py`.
"""
