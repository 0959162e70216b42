"""Writes the templates of the Helm chart, `deploy/helm`, from the manifests in `deploy/kubernetes`.

A template is a file of manifests, with values in place of what a user may change, and a condition
around it. Chart.yaml and values.yaml are written by hand. tests/packaging/deploy/test_chart.py
holds that the chart and Kustomize give the same.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

DEPLOY: Final = Path(__file__).parents[1] / "deploy"
MANIFESTS: Final = DEPLOY / "kubernetes"
TEMPLATES: Final = DEPLOY / "helm/templates"

CONDITIONS: Final = {
    "base": "",
    "postgresql": 'eq .Values.database "postgresql"',
    "sqlite": 'eq .Values.database "sqlite"',
    "gateway": ".Values.gateway.enabled",
    "ingress": "and .Values.gateway.enabled .Values.gateway.ingress.enabled",
    "gateway-api": "and .Values.gateway.enabled .Values.gateway.route.enabled",
    "monitoring": ".Values.monitoring.enabled",
    "autoscaling": ".Values.keda.enabled",
}
"""When the objects of each folder are in a release. A mesh is for Kustomize alone."""

MADE: Final = "{{- /* Made by `make generate` from deploy/kubernetes/%s. */}}\n"

RESOURCES: Final = r"(?<=\n          resources:)\n(?: {12}.*\n)+"

REPLACED: Final[Mapping[str, Mapping[str, str]]] = {
    # By the file that has it, or the end of its path: a pattern, and what stands in its place.
    ".yaml": {
        r"(?<=image: )jobledger\n": (
            '"{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"\n'
        ),
        r"(?<=metadata.name: )monitoring": "{{ .Values.namespaces.monitoring }}",
        r"(?<=metadata.name: )ingress-nginx": "{{ .Values.namespaces.ingress }}",
        r"(?<=metadata.name: )envoy-gateway-system": "{{ .Values.namespaces.gateway }}",
        r"(?<=metadata.name: )keda\n": "{{ .Values.namespaces.keda }}\n",
    },
    # Changed settings restart the servers: Kustomize changes the ConfigMap's name instead.
    "postgresql/deployment.yaml": {
        r"(?<=\n  replicas: )3": "{{ .Values.replicas }}",
        r"(?<=\n    metadata:\n)": (
            "      annotations:\n"
            "        checksum/settings: {{ toYaml .Values.settings | sha256sum }}\n"
        ),
        RESOURCES: " {{- toYaml .Values.resources | nindent 12 }}\n",
    },
    "sqlite/stateful-set.yaml": {
        r"(?<=\n    metadata:\n)": (
            "      annotations:\n"
            "        checksum/settings: {{ toYaml .Values.settings | sha256sum }}\n"
        ),
        RESOURCES: " {{- toYaml .Values.resources | nindent 12 }}\n",
        r"(?<=storage: )10Gi": "{{ .Values.storage }}",
    },
    # Helm applies all at once, and a Job cannot be changed: each release has a Job of its own.
    "postgresql/migrate.yaml": {
        r"^(#.*\n)+": (
            "# A server refuses to start on a database that is not migrated, and is started again\n"
            "# until it is.\n"
        ),
        r"(?<=\n  name: )jobledger-migrate": "jobledger-migrate-{{ .Release.Revision }}",
    },
    "gateway/deployment.yaml": {
        r"(?<=\n  replicas: )2": "{{ .Values.gateway.replicas }}",
        r"( {12})- --proxy=(?:.*\n {12}- --proxy=)+.*\n": (
            r"\1{{- range .Values.gateway.proxies }}"
            "\n"
            r"\1- --proxy={{ . }}"
            "\n"
            r"\1{{- end }}"
            "\n"
            r"\1{{- range .Values.gateway.args }}"
            "\n"
            r"\1- {{ . | quote }}"
            "\n"
            r"\1{{- end }}"
            "\n"
        ),
        RESOURCES: " {{- toYaml .Values.gateway.resources | nindent 12 }}\n",
    },
    "ingress/ingress.yaml": {
        r"jobledger\.example": "{{ .Values.gateway.host }}",
        r"(?<=ClassName: )nginx": "{{ .Values.gateway.ingress.className }}",
    },
    "gateway-api/http-route.yaml": {
        r"jobledger\.example": "{{ .Values.gateway.host }}",
        r"(?<=parentRefs:)\n(?: {4}.*\n)+": (
            " {{- toYaml .Values.gateway.route.parentRefs | nindent 4 }}\n"
        ),
    },
    "autoscaling/scaled-object.yaml": {
        r"^(#.*\n)+(?=apiVersion)": "{{- range .Values.keda.workers }}\n---\n",
        r"render-worker": "{{ .deployment }}",
        r"(?<=minReplicaCount: )0": "{{ .minReplicas | default 0 }}",
        r"(?<=maxReplicaCount: )20": "{{ .maxReplicas }}",
        r"jobledger\.default\.svc": "jobledger.{{ $.Release.Namespace }}.svc",
        r"(?<=jobTypes: )render": '{{ join "," .jobTypes | quote }}',
        r'(?<=jobsPerWorker: )"1"': "{{ .jobsPerWorker | default 1 | quote }}",
        r"\n---\n(?=#)": "\n{{- end }}\n---\n",
    },
}


def main() -> None:
    """Write the templates, and remove those that no manifest makes."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else TEMPLATES
    made = templates()
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.name not in made:
            file.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, "utf-8")


def templates() -> dict[str, str]:
    """Return the text of each template, by its file's name."""
    made = {"settings.yaml": _settings()}
    used: set[tuple[str, str]] = set()
    for folder, condition in CONDITIONS.items():
        for file in sorted((MANIFESTS / folder).glob("*.yaml")):
            if file.name == "kustomization.yaml":
                continue
            path = f"{folder}/{file.name}"
            text = file.read_text("utf-8")
            for of, pattern, instead in _replaced(path):
                text, count = re.subn(pattern, instead, text)
                used |= {(of, pattern)} if count else set()
            if condition:
                text = f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"
            made[f"{folder}-{file.name}"] = MADE % path + text
    unused = {(of, pattern) for of, each in REPLACED.items() for pattern in each} - used
    if unused:
        raise ValueError(f"no manifest has what is to be replaced: {sorted(unused)}")
    return made


def _replaced(path: str) -> Iterator[tuple[str, str, str]]:
    for of, replaced in REPLACED.items():
        if path.endswith(of):
            for pattern, instead in replaced.items():
                yield of, pattern, instead


def _settings() -> str:
    """Return the ConfigMap that Kustomize generates, whose variables a user may add to."""
    lines = (MANIFESTS / "base/settings.env").read_text("utf-8").splitlines()
    pairs = " ".join(f'"{name}" "{value}"' for name, value in (x.split("=", 1) for x in lines))
    return (
        MADE % "base/settings.env"
        + f"""apiVersion: v1
kind: ConfigMap
metadata:
  name: jobledger
data:
  {{{{- range $name, $value := merge (deepCopy .Values.settings) (dict {pairs}) }}}}
  {{{{ $name }}}}: {{{{ $value | quote }}}}
  {{{{- end }}}}
"""
    )


if __name__ == "__main__":
    main()
