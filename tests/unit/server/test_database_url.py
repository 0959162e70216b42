"""The hosts of a PostgreSQL URL."""

import pytest

from jobledger_server.database.url import hosts_of, parse_url


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://u:s,t@a/n", [("a", None)]),
        ("postgresql://a:1,b/n?target_session_attrs=primary", [("a", 1), ("b", None)]),
        ("postgresql://u@a,b:2/n?port=7&target_session_attrs=primary", [("a", 7), ("b", 2)]),
        (
            "postgresql://u@[::1]:5,[::2]/n?target_session_attrs=primary",
            [("::1", 5), ("::2", None)],
        ),
        ("postgresql://%2Frun,b/n?target_session_attrs=primary", [("/run", None), ("b", None)]),
        ("postgresql:///n?host=a:1", [("a", 1)]),
        ("postgresql:///n?host=/run&port=5", [("/run", 5)]),
        ("postgresql://a/n?port=5", [("a", 5)]),
        ("postgresql:///n", [(None, None)]),
    ],
)
def test_the_hosts_of_a_url_are_read_as_libpq_reads_them(
    url: str, found: list[tuple[str | None, int | None]]
) -> None:
    assert list(hosts_of(parse_url(url))) == found
