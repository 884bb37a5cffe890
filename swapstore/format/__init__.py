"""The stored format, as pure code: what bytes mean, and which bytes come next."""
