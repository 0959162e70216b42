"""What a name may be made of."""

import sys
import unicodedata

import pytest

from jobledger_server.rpc.validation import Checker, InvalidRequest

# All of them: Unicode has promised to add none.
CONTROL = [chr(code) for code in range(256) if unicodedata.category(chr(code)) == "Cc"]


def test_no_other_character_is_refused() -> None:
    name = "".join(map(chr, set(range(sys.maxunicode + 1)) - set(map(ord, CONTROL))))
    with Checker() as check:
        check.name("name", name, len(name))


def test_control_characters_are_refused() -> None:
    for control in CONTROL:
        with pytest.raises(InvalidRequest) as refused, Checker() as check:
            check.name("name", f"a{control}b", 3)
        assert refused.value.violations == (("name", "has a control character"),)
