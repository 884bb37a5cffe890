"""The stored format, as pure code: what the stored bytes mean, and how the next manifest is built."""
