"""What a name may be made of."""

import sys
import unicodedata

import pytest

from jobledger_server.rpc.validation import Checker, InvalidRequest


def test_only_control_characters_are_refused() -> None:
    for code in range(sys.maxunicode + 1):
        check = Checker()
        check.name("name", f"a{chr(code)}b", 3)
        if unicodedata.category(chr(code)) == "Cc":
            with pytest.raises(InvalidRequest) as refused:
                check.finish()
            assert refused.value.violations == (("name", "has a control character"),)
        else:
            check.finish()
