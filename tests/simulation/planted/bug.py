"""A bug: a small change of one module of the product, made when that is imported."""

import shutil
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

OTHERS = "jobledger", "jobledger_gateway"
"""The packages beside the server."""


class Bug(NamedTuple):
    """A bug.

    Attributes:
        what: What is wrong then.
        module: Where: below `jobledger_server`, or the whole name of a module of the client or the
            gateway.
        before: A part of its source; it is there once.
        after: What replaces it.
        sqlite: Only servers on SQLite have it.
        gap: Why no seed finds it, if none does.
    """

    what: str
    module: str
    before: str
    after: str
    sqlite: bool = False
    gap: str = ""

    @property
    def name(self) -> str:
        package = self.module.partition(".")[0]
        return self.module if package in OTHERS else f"jobledger_server.{self.module}"

    def source(self) -> str:
        """Return the module's source with the bug.

        Raises:
            ValueError: The product has changed: what is to be replaced is not there.
        """
        # Not by the spec of the module: that imports its package, which may import the module.
        root, *rest = self.name.split(".")
        spec = find_spec(root)
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).parent.joinpath(*rest)
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        source = path.read_text()
        if source.count(self.before) != 1:
            raise ValueError(f"{self.name} does not have once: {self.before}")
        return source.replace(self.before, self.after)

    def write(self, folder: Path) -> None:
        """Write the package of the module with the bug into a folder, for $PYTHONPATH."""
        source = self.source()
        root = find_spec(self.name.partition(".")[0])
        assert root is not None
        assert root.origin is not None
        package = Path(root.origin).parent
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("*.pyc"))
        module = folder.joinpath(*self.name.split(".")).with_suffix(".py")
        module.write_text(source)

    def plant(self) -> None:
        """Have this process import the module with the bug. It must not have been imported."""
        assert self.name not in sys.modules, f"{self.name} has been imported without the bug"
        sys.meta_path.insert(0, _Finder(self.name, self.source()))


class _Finder(MetaPathFinder):
    def __init__(self, name: str, source: str) -> None:
        self._name = name
        self._source = source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target)
        if fullname == self._name and spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin, self._source)
            return spec
        return None


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec")
