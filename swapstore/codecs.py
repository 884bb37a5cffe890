"""Values to bytes and back: `json` and `bytes`. Never pickle.

JSON is strict both ways. msgspec is the encoder because it is fast, but it is lenient where JSON is not
(NaN becomes null, sets become arrays, bytes become base64), so the value is walked first and refused if
JSON cannot hold it: what is read back equals what was published.
"""

from __future__ import annotations

from typing import Any

import msgspec

from swapstore import json_values
from swapstore.checks import payload_size, shown
from swapstore.errors import Corrupt, InvalidInput

CODECS = ("json", "bytes")


def encode(value: Any, codec: str, *, limit_bytes: int) -> bytes:
    """Return the payload bytes of `value`.

    `msgspec.Raw` under `json` is taken as JSON text that is already encoded: it is checked and stored as
    it is. Raises `InvalidInput` naming the place in the value that cannot be held, and `PayloadTooLarge`
    when the payload takes more than `limit_bytes`.
    """
    if codec == "json":
        payload = _encode_json(value, limit_bytes)
    elif codec == "bytes":
        if not isinstance(value, bytes | bytearray | memoryview):
            raise InvalidInput(
                f"codec 'bytes' takes bytes, not {type(value).__name__}: encode it first, or use codec='json'"
            )
        payload = bytes(value)
    else:
        raise InvalidInput(f"unknown codec {shown(codec)}: use one of {', '.join(CODECS)}")
    payload_size(len(payload), limit_bytes)
    return payload


def decode(raw: bytes, codec: str) -> Any:
    """Return the value of payload bytes; `Corrupt` if they are not what the codec writes."""
    if codec == "bytes":
        return raw
    if codec != "json":
        raise Corrupt(f"the payload's codec {codec!r} is unknown to this version of swapstore; upgrade it")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"the payload is not JSON although its codec says so ({error}); use .raw") from error


def _encode_json(value: Any, limit_bytes: int) -> bytes:
    if isinstance(value, msgspec.Raw):
        text = bytes(value)
        payload_size(len(text), limit_bytes)
        json_values.check(_parsed(text), limit_bytes)
        return text
    try:
        return msgspec.json.encode(json_values.plain(value, limit_bytes), enc_hook=json_values.of_subclass)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "the value holds a string with a lone surrogate, which UTF-8 cannot carry; clean the text first"
        ) from error
    except InvalidInput:
        raise
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the value cannot be encoded as JSON: {error}") from error


def _parsed(text: bytes) -> Any:
    if not text.strip():
        raise InvalidInput("the text is empty; JSON holds one value at least")
    if text.startswith(b"\xef\xbb\xbf"):
        raise InvalidInput("the text begins with a byte order mark, which JSON may not; save it without one")
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the text is not JSON (UTF-8, no NaN or Infinity): {error}") from error
