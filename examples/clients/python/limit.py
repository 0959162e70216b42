"""For operators: how many jobs are held at once."""

from argparse import Namespace

from connect import DEADLINE, Client
from printing import as_json, emit

from jobledger.v1.queue_service_pb2 import SetConcurrencyLimitRequest


def set_limit(client: Client, options: Namespace) -> None:
    """Set the limit of a concurrency key, over all servers, or remove it."""
    request = SetConcurrencyLimitRequest(name=options.name, max_running=options.max_running)
    answer = client.queues.SetConcurrencyLimit(request, timeout=DEADLINE)
    emit("limited", limit=as_json(answer.limit))
