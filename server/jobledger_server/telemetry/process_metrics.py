"""What Prometheus expects of every process: CPU, memory and open files.

prometheus_client has such a collector. It needs /proc/stat, which is hidden from a service with
`ProcSubset=pid` of systemd, and then has no metrics at all. This one needs /proc/self alone.
"""

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PROC = Path("/proc/self")
_START_TIME = 19
"""The field of /proc/self/stat after the program's name: ticks from the machine's start."""


class ProcessMetrics(Collector):
    """The metrics of this process, by prometheus_client's names. On Linux; elsewhere CPU alone."""

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            time.process_time(),
        )
        if sys.platform == "linux":
            yield from _of_linux()


def _of_linux() -> Iterator[Metric]:
    pages = (_PROC / "statm").read_text("ascii").split()
    size = os.sysconf("SC_PAGE_SIZE")
    # A program's name may have spaces and parentheses.
    fields = (_PROC / "stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    started = int(fields[_START_TIME]) / os.sysconf("SC_CLK_TCK")
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    for name, documentation, value in (
        ("virtual_memory_bytes", "Virtual memory size in bytes.", int(pages[0]) * size),
        ("resident_memory_bytes", "Resident memory size in bytes.", int(pages[1]) * size),
        (
            "start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            time.time() - age,
        ),
        ("open_fds", "Number of open file descriptors.", len([*(_PROC / "fd").iterdir()])),
        (
            "max_fds",
            "Maximum number of open file descriptors.",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        ),
    ):
        yield GaugeMetricFamily(f"process_{name}", documentation, value)
