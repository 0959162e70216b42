"""The manifests in deploy/, read strictly: a key that occurs twice is an error."""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from jobledger_gateway.command import gateway
from jobledger_server.cli.options import DATABASE_SETTINGS
from jobledger_server.settings import all_settings
from tests.support.pages import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("postgresql", "sqlite")
SETTINGS = {setting.variable for setting in (*DATABASE_SETTINGS, *all_settings())}
"""The variables that the server reads."""
OF_GATEWAY = {str(each.envvar) for each in gateway.params if isinstance(each, click.Option)}
"""The variables that the gateway reads."""


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002
    ) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key occurs twice"
        return super().construct_mapping(node, deep)


def documents(file: Path) -> list[Any]:
    """Return the YAML documents of a file."""
    return list(yaml.load_all(file.read_text("utf-8"), _StrictLoader))


def kustomization(folder: Path) -> Any:
    (made,) = documents(folder / "kustomization.yaml")
    return made


def objects(folder: Path) -> Iterator[Any]:
    """Yield the objects of a kustomization, those of its bases too."""
    made = kustomization(folder)
    for name in made.get("resources", ()):
        path = (folder / name).resolve()
        if path.is_dir():
            yield from objects(path)
        else:
            yield from documents(path)
    for generated in made.get("configMapGenerator", ()):
        data = dict(
            line.split("=", 1)
            for name in generated.get("envs", ())
            for line in (folder / name).read_text("utf-8").splitlines()
        )
        yield {"kind": "ConfigMap", "metadata": {"name": generated["name"]}, "data": data}


def of_kind(folder: Path, kind: str) -> list[Any]:
    return [each for each in objects(folder) if each["kind"] == kind]


def pods(folder: Path) -> Iterator[Any]:
    """Yield the pod templates: their metadata and spec."""
    for each in objects(folder):
        template = each.get("spec", {}).get("template")
        if template is not None:
            yield template


def environment(folder: Path, container: Any) -> dict[str, str]:
    """Return the variables that a container has."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(folder, "ConfigMap")}
    variables: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        variables |= maps[source["configMapRef"]["name"]]
    return variables | {each["name"]: each["value"] for each in container.get("env", ())}


def env_file(file: Path) -> dict[str, str]:
    """Return the variables of a file of settings, without what is commented out."""
    lines = file.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])
