"""Which client a fixture is for: the asyncio one, or the blocking one that is generated from it."""

import pytest

BOTH = ["sync", "async"]
"""One test of each kind has both: `@pytest.mark.parametrize("collect", BOTH, indirect=True)`."""


def kind_of(request: pytest.FixtureRequest) -> str:
    """Return the client that a test asks for: the asyncio one, unless it says otherwise."""
    kind: str = getattr(request, "param", "async")
    return kind
