"""Generates `generated/` from the protos, or generates into another folder to compare.

Run it with the interpreter of the codegen environment (`make generate`). Its grpcio-tools has
the lowest version that client/pyproject.toml allows, so the generated code runs on all allowed
versions.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
KEDA = ROOT / "third_party/keda"
WELL_KNOWN_TYPES = Path(protoc.__file__).parent / "_proto"


def generate(output: Path) -> None:
    """Write the messages, stubs and their types for every proto of ours, and KEDA's messages."""
    _generate(PROTOS, output, "--grpc_python_out", "--mypy_grpc_out=quiet")
    # `v1` and `internal` of client/jobledger are links to these folders: type checkers and
    # import-linter do not see all of a package that is spread over two.
    for package in ("v1", "internal", "internal/v1alpha1"):
        (output / "jobledger" / package / "__init__.py").write_text("")
    # `server/jobledger_server/rpc/keda` is a link to this one.
    _generate(KEDA, output / "keda")
    (output / "keda/__init__.py").write_text('"""KEDA\'s messages, generated."""\n')


def _generate(folder: Path, output: Path, *stubs: str) -> None:
    output.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={folder}",
            f"--proto_path={WELL_KNOWN_TYPES}",
            f"--python_out={output}",
            f"--mypy_out=quiet:{output}",
            *(f"{stub}{':' if '=' in stub else '='}{output}" for stub in stubs),
            *sources,
        ]
    )
    if status != 0:
        sys.exit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "generated")
