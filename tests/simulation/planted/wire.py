"""Wrong answers: what stands before the servers gives them, as in the robustness suite."""

from collections.abc import Mapping

from tests.robustness import mutations
from tests.robustness.front import Mutation

BUGS: Mapping[str, type[Mutation]] = {
    name: kind
    for name, kind in vars(mutations).items()
    if isinstance(kind, type)
    and issubclass(kind, Mutation)
    and kind is not Mutation
    and not name.startswith("_")
}
