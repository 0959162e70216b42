"""What a name may be made of."""

import sys
import unicodedata

import pytest

from jobledger_server.rpc.validation import Checker, InvalidRequest

CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1)]
CONTROL = [each for each in CHARACTERS if unicodedata.category(each) == "Cc"]


def test_no_other_character_is_refused() -> None:
    name = "".join(set(CHARACTERS) - set(CONTROL))
    check = Checker()
    check.name("name", name, len(name))
    check.finish()


def test_control_characters_are_refused() -> None:
    for control in CONTROL:
        check = Checker()
        check.name("name", f"a{control}b", 3)
        with pytest.raises(InvalidRequest) as refused:
            check.finish()
        assert refused.value.violations == (("name", "has a control character"),)
