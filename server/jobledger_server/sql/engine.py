"""Opens a database by its URL."""

from sqlalchemy import URL, exc, make_url

from jobledger_server.sql.dialect import BadDatabaseUrl, Database
from jobledger_server.sql.postgresql import open_postgresql
from jobledger_server.sql.sqlite import open_sqlite


def parse_url(database: str) -> URL:
    """Read a database URL and give it its driver. Raises BadDatabaseUrl."""
    try:
        url = make_url(database)
    except exc.ArgumentError:
        raise BadDatabaseUrl(
            f"cannot read the database URL {database!r}: write sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None
    match url.get_backend_name():
        case "sqlite":
            if not url.database or url.database == ":memory:" or "mode=memory" in str(url):
                raise BadDatabaseUrl("SQLite needs a file, not memory: write sqlite:///FILE")
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            # libpq's name for it, which many have in their URLs; the driver has another.
            query = {("ssl" if k == "sslmode" else k): v for k, v in url.query.items()}
            return url.set(drivername="postgresql+asyncpg", query=query)
        case other:
            raise BadDatabaseUrl(
                f"cannot use a {other!r} database: write sqlite:///FILE or "
                "postgresql://USER:PASSWORD@HOST:PORT/NAME"
            )


def open_database(url: URL) -> Database:
    """Make the engines for a parsed URL; nothing is connected yet. Raises BadDatabaseUrl."""
    if url.get_backend_name() == "sqlite":
        return open_sqlite(url)
    return open_postgresql(url)
