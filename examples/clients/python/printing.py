"""One JSON object a line."""

import json
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message


def emit(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def as_json(message: Message) -> dict[str, Any]:
    """Protobuf's own JSON: int64 as strings, for readers that lose digits."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
