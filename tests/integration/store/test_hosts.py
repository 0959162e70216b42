"""URLs with several hosts of PostgreSQL: none that is silent or wrong hides the right one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from jobledger_server.database import hosts
from jobledger_server.database.url import parse_url
from jobledger_server.sql.database import open_database
from jobledger_server.sql.postgresql import notifications, postgresql_engines
from jobledger_server.sql.schema import require_supported
from jobledger_server.store import StoreUnavailable
from tests.support.databases import several_servers
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.silent_host import SilentHost
from tests.support.tasks import running

pytestmark = several_servers

Url = Callable[..., str]


def in_front(addresses: Sequence[str], name: str) -> str:
    return f"postgresql://u@{','.join(addresses)}/{name}?target_session_attrs=read-write"


def as_parameters(addresses: Sequence[str], name: str) -> str:
    """As libpq also reads them: hosts and ports in lists of their own."""
    names, ports = zip(*(address.split(":") for address in addresses), strict=True)
    lists = f"host={','.join(names)}&port={','.join(ports)}"
    return f"postgresql://u@/{name}?{lists}&target_session_attrs=primary"


def repeated(addresses: Sequence[str], name: str) -> str:
    """As SQLAlchemy documents it."""
    named = "&".join(f"host={address}" for address in addresses)
    return f"postgresql://u@/{name}?{named}&target_session_attrs=read-write"


every_form = pytest.mark.parametrize("form", [in_front, as_parameters, repeated])


@pytest.fixture
def address(database_url: str) -> str:
    url = parse_url(database_url)
    return f"{url.host}:{url.port}"


@pytest.fixture
def name(database_url: str) -> str:
    return database_url.rpartition("/")[2]


@pytest.fixture
async def silent() -> AsyncIterator[SilentHost]:
    async with SilentHost() as host:
        yield host


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no attempt run into a time limit."""
    monkeypatch.setattr(postgresql_engines, "CONNECT_SECONDS", 3600)
    monkeypatch.setattr(hosts, "STAGGER_SECONDS", 3600)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_engines, "CONNECT_SECONDS", 0.5)


async def use(url: str) -> None:
    """Connect to a database that is up to date."""
    database = open_database(parse_url(url))
    try:
        await require_supported(database)
    finally:
        await database.close()


@every_form
async def test_a_silent_host_hides_none_of_those_after_it(
    address: str, name: str, silent: SilentHost, form: Url
) -> None:
    await use(form([silent.address, silent.address, address], name))
    assert silent.opened == 2
    await silent.left_alone()


@every_form
@pytest.mark.usefixtures("patient")
async def test_after_a_host_that_refuses_the_next_one_is_tried_at_once(
    address: str, name: str, form: Url
) -> None:
    await use(form([f"127.0.0.1:{free_port()}", address], name))


@pytest.mark.usefixtures("patient")
async def test_no_other_host_is_tried_while_the_first_one_answers(
    address: str, name: str, silent: SilentHost
) -> None:
    await use(in_front([address, silent.address], name))
    assert silent.opened == 0


async def test_of_two_hosts_that_answer_the_slower_one_is_left(address: str, name: str) -> None:
    async with Proxy(address) as slow, Proxy(address) as fast:
        slow.delay = 2 * hosts.STAGGER_SECONDS
        database = open_database(parse_url(in_front([slow.target, fast.target], name)))
        async with database.reader.connect():
            assert fast.connections == 1
            async with asyncio.timeout(30):
                while slow.connections:
                    await asyncio.sleep(0.01)
        await database.close()


async def test_notifications_are_heard_although_the_first_host_is_silent(
    address: str, name: str, silent: SilentHost
) -> None:
    listening = asyncio.Event()
    url = parse_url(in_front([silent.address, address], name))
    async with running(
        notifications.Notifications(url, listening.set, lambda: None, lambda _: None).run()
    ):
        await listening.wait()
    assert silent.opened == 1


@pytest.mark.usefixtures("impatient")
async def test_that_no_host_is_a_primary_is_said_with_what_each_one_does(
    name: str, silent: SilentHost
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(StoreUnavailable) as refused:
        await use(in_front([silent.address, nobody], name))
    states = f"{nobody}: Connection refused; {silent.address}: no answer in time"
    assert str(refused.value) == (
        f"cannot use the database postgresql://u@/{name}: no host is a primary ({states})"
    )


@pytest.mark.usefixtures("impatient")
async def test_what_has_to_be_corrected_is_said_rather_than_who_is_silent(
    address: str, name: str, silent: SilentHost
) -> None:
    with pytest.raises(StoreUnavailable, match='database "missing" does not exist'):
        await use(in_front([silent.address, address], "missing"))
