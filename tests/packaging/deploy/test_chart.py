"""The Helm chart: it is made from the manifests, and gives what Kustomize gives."""

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.chart import TEMPLATES, templates
from tests.support.manifests import DEPLOY, KUBERNETES, documents
from tests.support.pages import ROOT

CHART = DEPLOY / "helm"
PROGRAMS = ROOT / ".venv/manifests/bin"
SCHEMAS = ROOT / ".venv/manifests/lib"
OLDEST, NEWEST = "1.30.0", "1.37.0"
"""The Kubernetes that the manifests need at least, and the newest one that there are schemas of."""

CUSTOM = "HTTPRoute,ScaledObject,ServiceMonitor,TriggerAuthentication"
"""What Kubernetes itself does not know."""

WORKERS = [{"deployment": "render-worker", "jobTypes": ["render"], "maxReplicas": 20}]
EVERYTHING: dict[str, Any] = {
    "gateway": {"enabled": True, "ingress": {"enabled": True}, "route": {"enabled": True}},
    "monitoring": {"enabled": True},
    "keda": {"enabled": True, "workers": WORKERS},
}
COMPONENTS = ("gateway", "ingress", "gateway-api", "monitoring", "autoscaling")
RELEASES = [
    pytest.param("postgresql", (), {}, id="postgresql"),
    pytest.param("sqlite", (), {"database": "sqlite"}, id="sqlite"),
    pytest.param("postgresql", COMPONENTS, EVERYTHING, id="everything"),
]

Objects = dict[tuple[str, str], Any]


def test_the_templates_are_what_the_manifests_make() -> None:
    kept = {file.name: file.read_text("utf-8") for file in TEMPLATES.iterdir()}
    assert kept == templates(), "run `make generate` and commit deploy/helm"


def test_the_chart_has_the_version_of_the_project() -> None:
    (chart,) = documents(CHART / "Chart.yaml")
    assert chart["version"] == (ROOT / "release/VERSION").read_text("utf-8").strip()
    assert chart["appVersion"] == chart["version"]
    assert chart["kubeVersion"] == f">={OLDEST}-0"
    assert "Kubernetes 1.30 or newer" in (ROOT / "docs/operate/deploy.md").read_text("utf-8")
    for kustomization in KUBERNETES.glob("*/kustomization.yaml"):
        (made,) = documents(kustomization)
        for image in made.get("images", ()):
            assert image["newTag"] == chart["version"]


def run(program: str, *arguments: object, given: str = "") -> str:
    command = [str(PROGRAMS / program), *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(folder: Path, values: dict[str, Any]) -> str:
    """Return what Helm makes of the chart."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return run("helm", "template", "jobledger", CHART, "--values", file, "--kube-version", OLDEST)


def built(folder: Path, overlay: str, components: tuple[str, ...]) -> str:
    """Return what Kustomize makes of an overlay with components."""

    def path(name: str) -> str:
        return os.path.relpath(KUBERNETES / name, folder)

    made = {"resources": [path(overlay)], "components": [*map(path, components)]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))
    return run("kustomize", "build", folder)


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that returns the folder with the schemas of a version of Kubernetes.

    Those of the package refer to each other by names on the web, where kubeconform would look.
    """

    @cache
    def folder(version: str) -> Path:
        made = tmp_path_factory.mktemp(version)
        (kept,) = SCHEMAS.glob(
            f"python*/site-packages/kubernetes_validate/*/v{version}-local-strict"
        )
        for file in kept.glob("*.json"):
            text = file.read_text("utf-8").replace(
                '"/api/_definitions.json#', '"_definitions.json#'
            )
            schema = json.loads(text)
            schema.pop("$id", None)
            (made / file.name).write_text(json.dumps(schema))
        return made

    return folder


def by_name(text: str) -> Objects:
    objects = [each for each in yaml.safe_load_all(text) if each]
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


@pytest.mark.manifests
@pytest.mark.parametrize(("overlay", "components", "values"), RELEASES)
class TestRelease:
    """A choice of servers and components."""

    def test_helm_gives_what_kustomize_gives(
        self, overlay: str, components: tuple[str, ...], values: dict[str, Any], tmp_path: Path
    ) -> None:
        by_kustomize = built(tmp_path, overlay, components)
        # It names the ConfigMap by its content, and Helm's pods have an annotation instead.
        (settings,) = [name for kind, name in by_name(by_kustomize) if kind == "ConfigMap"]
        expected = by_name(by_kustomize.replace(settings, "jobledger"))
        objects = by_name(rendered(tmp_path, values))
        for (kind, _), each in objects.items():
            if kind in {"Deployment", "StatefulSet"} and each["metadata"]["name"] == "jobledger":
                annotations = each["spec"]["template"]["metadata"].pop("annotations")
                assert annotations.keys() == {"checksum/settings"}
        if overlay == "postgresql":
            # Each revision of a release has a Job of its own.
            migrate = objects["Job", "jobledger-migrate"] = objects.pop(
                ("Job", "jobledger-migrate-1")
            )
            migrate["metadata"]["name"] = "jobledger-migrate"
        assert objects == expected

    @pytest.mark.parametrize("version", [OLDEST, NEWEST])
    def test_kubernetes_knows_every_field(
        self,
        overlay: str,
        components: tuple[str, ...],
        values: dict[str, Any],
        version: str,
        schemas: Callable[[str], Path],
        tmp_path: Path,
    ) -> None:
        location = schemas(version) / "{{.ResourceKind}}{{.KindSuffix}}.json"
        for text in (built(tmp_path, overlay, components), rendered(tmp_path, values)):
            options = ("-strict", "-schema-location", location, "-skip", CUSTOM)
            run("kubeconform", *options, given=text)


@pytest.mark.manifests
def test_values_reach_the_objects(tmp_path: Path) -> None:
    values = {
        "image": {"repository": "mine.example/jobledger", "tag": "1.2.3"},
        "replicas": 5,
        "settings": {"JOBLEDGER_METRICS": "0.0.0.0:9000", "JOBLEDGER_MAX_WATCHES": 7},
        "resources": {"limits": {"memory": "2Gi"}},
        "gateway": {
            "enabled": True,
            "proxies": ["10.1.0.0/16", "fd00::/8"],
            "args": ["--webhooks"],
        },
        "keda": {"enabled": True, "workers": [*WORKERS, {**WORKERS[0], "deployment": "other"}]},
    }
    objects = by_name(rendered(tmp_path, values))
    settings = objects["ConfigMap", "jobledger"]["data"]
    assert settings["JOBLEDGER_METRICS"] == "0.0.0.0:9000"
    assert settings["JOBLEDGER_MAX_WATCHES"] == "7"
    assert settings["JOBLEDGER_ACCESS"] == "/access/access.toml"
    servers = objects["Deployment", "jobledger"]["spec"]
    assert servers["replicas"] == 5
    (server,) = servers["template"]["spec"]["containers"]
    assert server["image"] == "mine.example/jobledger:1.2.3"
    assert server["resources"]["limits"] == {"memory": "2Gi"}
    (gateway,) = objects["Deployment", "jobledger-gateway"]["spec"]["template"]["spec"][
        "containers"
    ]
    more = ["--proxy=10.1.0.0/16", "--proxy=fd00::/8", "--webhooks"]
    assert gateway["args"][-3:] == more
    assert {name for kind, name in objects if kind == "ScaledObject"} == {"render-worker", "other"}


@pytest.mark.manifests
def test_helm_finds_no_fault() -> None:
    run("helm", "lint", "--strict", CHART, "--kube-version", OLDEST)
