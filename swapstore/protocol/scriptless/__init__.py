"""Commits where no script runs: the other committer. Nothing outside this folder asks which one it is."""
