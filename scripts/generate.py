"""Generates `generated/` from `protos/`, or generates into another folder to compare.

Run it with the interpreter of the codegen environment (`make generate`). Its grpcio-tools has
the lowest version that pyproject.toml allows, so the generated code runs on all allowed
versions.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
WELL_KNOWN_TYPES = Path(protoc.__file__).parent / "_proto"


def generate(output: Path) -> None:
    """Write the messages, stubs and their types for every proto below `protos/`."""
    output.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={WELL_KNOWN_TYPES}",
            f"--python_out={output}",
            f"--grpc_python_out={output}",
            f"--mypy_out=quiet:{output}",
            f"--mypy_grpc_out=quiet:{output}",
            *sources,
        ]
    )
    if status != 0:
        sys.exit(status)
    # `client/jobledger/v1` is a link to this folder.
    (output / "jobledger/v1/__init__.py").write_text("")


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "generated")
