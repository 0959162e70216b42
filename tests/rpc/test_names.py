"""What a name may be made of."""

import sys
import unicodedata

from jobledger_server.wire.validation import Checker


def test_of_all_characters_none_but_the_control_characters_is_refused() -> None:
    check = Checker()
    for code in range(sys.maxunicode + 1):
        check.name(f"{code}", f"a{chr(code)}b", 3)
    refused = {int(field): words for field, words in check.violations}
    assert set(refused) == {
        code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cc"
    }
    assert set(refused.values()) == {"has a control character"}
