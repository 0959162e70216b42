"""The manifests in deploy/: what they refer to exists, and they keep what hardens a server."""

import os
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from jobledger_gateway.command import gateway
from jobledger_gateway.serving import DRAIN_SECONDS
from jobledger_server.cli.options import DATABASE_SETTINGS
from jobledger_server.rpc.keda.externalscaler_pb2 import ScaledObjectRef
from jobledger_server.rpc.scaling.scaler_service import Scale, scale
from jobledger_server.runtime.files import is_open_to_others
from jobledger_server.settings import Settings, all_settings
from tests.support.manifests import (
    KUBERNETES,
    OVERLAYS,
    SETTINGS,
    environment,
    objects,
    of_kind,
    pods,
    port_of,
)
from tests.support.pages import ROOT

PODS = ("10.244.1.7", "172.20.0.7", "192.168.3.7", "fd00::7")
"""Addresses that pods may have."""

FILES = {s.variable for s in (*DATABASE_SETTINGS, *all_settings()) if s.kind == "file"}


def monitored(service: Any) -> set[str]:
    """Return the ports of a service that Prometheus scrapes."""
    labels = service["metadata"]["labels"].items()
    monitors = [
        each["spec"]
        for each in objects(KUBERNETES / "monitoring")
        if each["spec"]["selector"]["matchLabels"].items() <= labels
    ]
    found = {each["port"] for monitor in monitors for each in monitor["endpoints"]}
    assert found <= {each["name"] for each in service["spec"]["ports"]}
    return found


@pytest.mark.parametrize("name", OVERLAYS)
class TestOverlay:
    """One of the ways to run it on Kubernetes."""

    def test_selectors_find_their_pods(self, name: str) -> None:
        folder = KUBERNETES / name
        templates = list(pods(folder))
        labels = [template["metadata"]["labels"] for template in templates]

        def found(selector: dict[str, str]) -> int:
            return sum(selector.items() <= each.items() for each in labels)

        assert found(of_kind(folder, "Service")[0]["spec"]["selector"]) == 1
        for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            for each in of_kind(folder, kind):
                assert found(each["spec"]["selector"]["matchLabels"]) == 1
        for each in of_kind(folder, "NetworkPolicy"):
            assert found(each["spec"]["podSelector"]["matchLabels"]) == len(templates)

    def test_ports_are_those_that_the_server_listens_on(self, name: str) -> None:
        folder = KUBERNETES / name
        server = next(pods(folder))["spec"]["containers"][0]
        variables = environment(folder, server)
        ports = {each["name"]: each["containerPort"] for each in server["ports"]}
        assert ports == {
            "grpc": port_of(variables["JOBLEDGER_LISTEN"]),
            "health": port_of(variables["JOBLEDGER_HEALTH"]),
            "metrics": port_of(variables["JOBLEDGER_METRICS"]),
        }
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert server[probe]["grpc"] == {"port": ports["health"]}
        # For probes of the pod's own node alone: in no Service, and opened by no policy.
        del ports["health"]
        (service,) = of_kind(folder, "Service")
        assert {each["targetPort"]: each["port"] for each in service["spec"]["ports"]} == ports
        policies = of_kind(folder, "NetworkPolicy")
        opened = {
            port["port"]
            for policy in policies
            for rule in policy["spec"].get("ingress", ())
            for port in rule["ports"]
        }
        assert opened == ports.keys()
        assert monitored(service) == {"metrics"}

    def test_mounts_have_their_volumes_and_files_are_mounted(self, name: str) -> None:
        folder = KUBERNETES / name
        for each in objects(folder):
            template = each.get("spec", {}).get("template")
            if template is None:
                continue
            spec = template["spec"]
            claimed = each["spec"].get("volumeClaimTemplates", ())
            volumes = {volume["name"] for volume in spec.get("volumes", ())}
            volumes |= {claim["metadata"]["name"] for claim in claimed}
            for container in spec["containers"]:
                mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
                assert mounts.keys() == volumes
                for variable, value in environment(folder, container).items():
                    if variable in FILES:
                        assert str(Path(value).parent) in mounts.values()

    def test_a_server_warns_of_none_of_its_files(self, name: str) -> None:
        """Its user can read them, and nobody else but root."""
        for template in pods(KUBERNETES / name):
            context = template["spec"]["securityContext"]
            for volume in template["spec"]["volumes"]:
                if "secret" not in volume:
                    continue
                mode, root = volume["secret"]["defaultMode"], 0
                # Kubernetes gives the files of a Secret to root and to this group.
                ids = (root, context["fsGroup"])
                found = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, *ids, 0, 0, 0, 0))
                assert found.st_mode & stat.S_IRGRP
                assert found.st_gid == context["runAsGroup"]
                assert not is_open_to_others(found, context["runAsUser"])

    def test_every_variable_is_a_setting(self, name: str) -> None:
        folder = KUBERNETES / name
        for template in pods(folder):
            for container in template["spec"]["containers"]:
                assert environment(folder, container).keys() <= SETTINGS

    def test_pods_may_do_as_little_as_possible(self, name: str) -> None:
        folder = KUBERNETES / name
        accounts = {each["metadata"]["name"] for each in of_kind(folder, "ServiceAccount")}
        for template in pods(folder):
            spec = template["spec"]
            assert spec["serviceAccountName"] in accounts
            assert spec["automountServiceAccountToken"] is False
            assert spec["securityContext"]["runAsNonRoot"] is True
            # The user of the Dockerfile.
            user = f"USER {spec['securityContext']['runAsUser']}:"
            assert user in (ROOT / "Dockerfile").read_text("utf-8")
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in spec["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert container["resources"]["limits"]["memory"]

    def test_a_server_has_the_time_to_wait_for_its_database(self, name: str) -> None:
        probe = next(pods(KUBERNETES / name))["spec"]["containers"][0]["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] > Settings().database_wait

    def test_a_server_has_the_time_to_drain(self, name: str) -> None:
        spec = next(pods(KUBERNETES / name))["spec"]
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] > pause + Settings().grace


def test_the_gateway_reaches_the_servers_and_does_as_little_as_possible() -> None:
    folder = KUBERNETES / "gateway"
    (template,) = pods(folder)
    (container,) = template["spec"]["containers"]
    # Raises for an option that there is not, or with another kind of value.
    given = gateway.make_context("jobledger-gateway", [*container["args"]]).params
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert given["listen"] == ("0.0.0.0", ports["http"])
    assert given["metrics"] == f"0.0.0.0:{ports['metrics']}"
    (service,) = of_kind(folder, "Service")
    assert {each["targetPort"] for each in service["spec"]["ports"]} == ports.keys()
    assert monitored(service) == {"metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert given["ca_file"] == "/tls/ca.crt"
    # Else all users behind an Ingress would be one client, with one client's streams.
    assert all(any(ip_address(pod) in network for network in given["proxies"]) for pod in PODS)
    labels = template["metadata"]["labels"]
    for each in (*of_kind(folder, "Service"), *of_kind(folder, "Deployment")):
        selector = each["spec"]["selector"]
        assert selector.get("matchLabels", selector).items() <= labels.items()
    (service,) = of_kind(KUBERNETES / "base", "Service")
    (served,) = [each["port"] for each in service["spec"]["ports"] if each["name"] == "grpc"]
    assert given["target"] == f"{service['metadata']['name']}:{served}"
    (policy,) = of_kind(folder, "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    admitted = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    assert admitted == ["http", "metrics"]
    assert policy["spec"]["egress"][0]["ports"] == [{"port": served}]
    (servers,) = of_kind(KUBERNETES / "base", "NetworkPolicy")
    admitted = servers["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert admitted.items() <= labels.items()
    (server,) = pods(KUBERNETES / "sqlite")
    assert template["spec"]["securityContext"].items() <= server["spec"]["securityContext"].items()
    for key in ("automountServiceAccountToken", "serviceAccountName"):
        assert template["spec"][key] == server["spec"][key]
    own = container["securityContext"]
    assert own == server["spec"]["containers"][0]["securityContext"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert template["spec"]["terminationGracePeriodSeconds"] > pause + DRAIN_SECONDS


@pytest.mark.parametrize("name", ["base", "gateway"])
def test_names_are_resolved_by_the_cluster_and_by_caches_on_its_nodes(name: str) -> None:
    (policy,) = of_kind(KUBERNETES / name, "NetworkPolicy")
    (rule,) = [r for r in policy["spec"]["egress"] if {p["port"] for p in r["ports"]} == {53}]
    system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    # The address that NodeLocal DNSCache has by default, on the node's own network.
    assert rule["to"] == [{"namespaceSelector": system}, {"ipBlock": {"cidr": "169.254.20.10/32"}}]
    assert {p["protocol"] for p in rule["ports"]} == {"UDP", "TCP"}


def test_an_ingress_and_a_route_lead_to_the_gateway() -> None:
    (service,) = of_kind(KUBERNETES / "gateway", "Service")
    name = service["metadata"]["name"]
    port = service["spec"]["ports"][0]
    (budget,) = of_kind(KUBERNETES / "gateway", "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    (ingress,) = of_kind(KUBERNETES / "ingress", "Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"] == {"service": {"name": name, "port": {"name": port["name"]}}}
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    (route,) = of_kind(KUBERNETES / "gateway-api", "HTTPRoute")
    (to,) = route["spec"]["rules"]
    assert to["backendRefs"] == [{"name": name, "port": port["port"]}]
    assert to["timeouts"] == {"request": "0s"}
    (policy,) = of_kind(KUBERNETES / "gateway-api", "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"]


def test_keda_calls_the_servers_with_metadata_that_they_read() -> None:
    folder = KUBERNETES / "autoscaling"
    (scaled,) = of_kind(folder, "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    ref = ScaledObjectRef(scalerMetadata=trigger["metadata"])
    assert scale(ref) == Scale(("render",), 1.0)
    # What the server does not read is KEDA's own.
    assert trigger["metadata"].keys() - {"jobTypes", "jobsPerWorker"} == {"scalerAddress"}
    for overlay in OVERLAYS:
        (service,) = of_kind(KUBERNETES / overlay, "Service")
        host, _, port = trigger["metadata"]["scalerAddress"].partition(":")
        assert host.split(".")[0] == service["metadata"]["name"]
        assert int(port) in {each["port"] for each in service["spec"]["ports"]}
        (policy,) = of_kind(folder, "NetworkPolicy")
        selected = policy["spec"]["podSelector"]["matchLabels"]
        for template in pods(KUBERNETES / overlay):
            assert selected.items() <= template["metadata"]["labels"].items()
    (authentication,) = of_kind(folder, "TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]


def test_the_sqlite_manifest_has_one_replica_and_a_volume_for_its_user_alone() -> None:
    (stateful_set,) = of_kind(KUBERNETES / "sqlite", "StatefulSet")
    assert stateful_set["spec"]["replicas"] == 1
    # By default Kubernetes makes each file readable and writable by the group, at each start.
    context = stateful_set["spec"]["template"]["spec"]["securityContext"]
    assert context["fsGroupChangePolicy"] == "OnRootMismatch"
