"""Jobs and the states that people see of them: one table for the Python client and the page."""

import json
from pathlib import Path
from typing import Any, Final

CASES: Final[list[dict[str, Any]]] = json.loads(
    Path(__file__).with_suffix(".json").read_text("utf-8")
)
"""`job` is a message as JSON, `state` its `display_state`, `key` what the page calls that."""
