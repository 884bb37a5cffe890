"""What in a store could break the promise: questions for each kind of store, and checks of its answers.

A diagnosis is an operation like those of `swapstore.protocol`: it yields the questions and receives the
answers, so that every client of a kind of store runs the same one. It writes nothing. What a server does not
say, or not to this user, is `unknown`: never an error, and never a guess.
"""
