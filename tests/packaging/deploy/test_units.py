"""The units in deploy/systemd: their settings exist, they are hardened, systemd accepts them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jobledger_gateway.serving import DRAIN_SECONDS
from jobledger_gateway.settings import Settings as GatewaySettings
from jobledger_server.settings import Settings
from tests.support.manifests import (
    DEPLOY,
    OF_GATEWAY,
    SETTINGS,
    env_file,
)

SYSTEMD = DEPLOY / "systemd"
UNITS = ("jobledger.service", "jobledger-gateway.service")


def lines_of(name: str) -> list[str]:
    return (SYSTEMD / name).read_text("utf-8").splitlines()


def value_of(unit: str, key: str) -> str:
    (found,) = [line.partition("=")[2] for line in lines_of(unit) if line.startswith(f"{key}=")]
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_when_it_serves_and_is_always_started_again(unit: str) -> None:
    # However often it has ended, for instance while the database is down.
    assert {"Type=notify", "Restart=always", "StartLimitIntervalSec=0"} <= {*lines_of(unit)}


@pytest.mark.parametrize("unit", UNITS)
def test_a_reload_reads_files_again(unit: str) -> None:
    assert value_of(unit, "ExecReload") == "/bin/kill -HUP $MAINPID"


def test_the_units_settings_exist_and_give_it_time() -> None:
    file = SYSTEMD / "jobledger.env"
    assert env_file(file).keys() <= SETTINGS
    assert set(re.findall(r"JOBLEDGER_\w+", file.read_text("utf-8"))) <= SETTINGS
    assert int(value_of(UNITS[0], "TimeoutStopSec")) > Settings().grace
    # It may wait for its database before it serves.
    assert int(value_of(UNITS[0], "TimeoutStartSec")) > Settings().database_wait


def test_the_gateways_units_settings_exist_and_give_it_time() -> None:
    text = (SYSTEMD / "jobledger-gateway.env").read_text("utf-8")
    assert set(re.findall(r"JOBLEDGER_\w+", text)) <= OF_GATEWAY
    assert int(value_of(UNITS[1], "TimeoutStopSec")) > DRAIN_SECONDS
    assert int(value_of(UNITS[1], "LimitNOFILE")) > 2 * GatewaySettings().max_streams


def test_the_units_are_hardened_alike() -> None:
    server, gateway = [
        lines[lines.index("CapabilityBoundingSet=") :] for lines in map(lines_of, UNITS)
    ]
    assert server == gateway


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit_if_installed(name: str, tmp_path: Path) -> None:
    """And finds little that a broken server could do."""
    program = shutil.which("systemd-analyze")
    text, installed = (SYSTEMD / name).read_text("utf-8"), re.compile(r"/opt/jobledger/bin/[a-z-]+")
    assert len(installed.findall(text)) == 1
    # What `verify` checks has to exist.
    unit = tmp_path / name
    unit.write_text(installed.sub("/bin/true", text))
    for command in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        if program is not None:
            run = subprocess.run(
                [program, *command, str(unit)], capture_output=True, text=True, check=False
            )
            assert run.returncode == 0, run.stdout + run.stderr
