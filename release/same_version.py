"""A hook of the builder: what is installed together has the same version."""

from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Makes a distribution require `jobledger` of its own version, besides its `dependencies`."""

    def update(self, metadata: dict[str, Any]) -> None:
        jobledger = f"jobledger=={metadata['version']}"
        metadata["dependencies"] = [jobledger, *self.config["dependencies"]]
