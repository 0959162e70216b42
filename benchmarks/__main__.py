"""The benchmarks' one program: `python -m benchmarks run|compare|profile|peers`."""

import sys

from benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())
