"""How a server's process collects garbage."""

import gc


def keep_collections_short() -> None:
    """Collect often and little, so that no collection holds the event loop for long.

    gRPC leaves a few objects in a cycle at every call. Some thousand are collected in 2 ms, some
    hundred thousand in 400 ms, in which nobody is served. What exists now lives as long as the
    process, so that no collection has to visit it (docs/decisions/0045).
    """
    gc.freeze()
    gc.set_threshold(2_000, 20, 1_000)
