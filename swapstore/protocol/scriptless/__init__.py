"""Commit where no script runs. Nothing outside this folder asks which committer a client uses."""
