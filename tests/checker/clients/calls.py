"""The calls that a load must make: every one of the contract.

The list follows the protos: a new call makes runs fail until their load makes it.
"""

import importlib
import pkgutil
from collections import Counter

import jobledger.v1

SERVICES = [
    service
    for module in pkgutil.iter_modules(jobledger.v1.__path__, "jobledger.v1.")
    if module.name.endswith("_service_pb2")
    for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values()
]

CALLS = frozenset(method.name for service in SERVICES for method in service.methods)


def not_made(answered: Counter[str]) -> list[str]:
    """Return the calls that a load did not make, or that were never answered."""
    return sorted(call for call in CALLS if not answered[call])
