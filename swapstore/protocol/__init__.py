"""The protocol: which commands each operation sends, in which order, and what it concludes from the replies.

An operation is a generator. It yields a `Batch` of commands and is sent the list of their replies. When the
replies may be lost, `ReplyLost` is thrown into it, because the protocol has to deal with that, not the
transport. It yields a `Wait` to back off. It does no I/O and has no clock and no randomness of its own: its
`Context` provides both. So the same code runs on every driver, sync or async, and a test can stop, lose or
delay any single command.

Start with `publish.py`, then `commit.py` (the commit point), then `read.py`.
"""
