"""AWS's event stream, ``application/vnd.amazon.eventstream``: the frames in which Bedrock streams."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

__all__ = ["CONTENT_TYPE", "event_frame", "exception_frame"]

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7  # The type of a header's value.


def event_frame(kind: str, payload: Mapping[str, Any]) -> bytes:
    """Return the frame of one event."""
    return _frame({":event-type": kind, ":content-type": "application/json", ":message-type": "event"}, payload)


def exception_frame(kind: str, message: str) -> bytes:
    """Return the frame of an error in mid-stream, e.g. of the kind ``throttlingException``."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return _frame(headers, {"message": message})


def _frame(headers: Mapping[str, str], payload: Mapping[str, Any]) -> bytes:
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    body = json.dumps(payload).encode()
    # Two lengths and their checksum before, the checksum of it all behind: four bytes each.
    lengths = struct.pack("!II", 16 + len(head) + len(body), len(head))
    frame = lengths + struct.pack("!I", zlib.crc32(lengths)) + head + body
    return frame + struct.pack("!I", zlib.crc32(frame))
