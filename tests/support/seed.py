"""The seed of all that tests do by chance. The first line of a run shows it."""

import os
import secrets

VARIABLE = "JOBLEDGER_TEST_SEED"
"""Repeats a run's seed. Set for the processes of a run too, so that all have the same."""

SEED = int(os.environ.setdefault(VARIABLE, str(secrets.randbelow(2**32))))
