"""The policy of the jobs whose creator sets one, and what the service gives to the others."""

MAX_ATTEMPTS = 3
"""Of the policy, and by default."""

INITIAL_BACKOFF = 200_000
"""Of the policy, in microseconds; a pause is shorter by up to a fifth. By default it is longer."""
