"""What could break the promise: asked of the store itself, in the words of its kind.

A diagnosis is an operation like those of `swapstore.protocol`: it yields the questions and is sent the
answers, so that every client of a kind of store runs the same one. It writes nothing. What a server does
not say, or not to this user, is `unknown`: never an error, and never a guess.
"""
