"""A Jobledger client to copy from: an owner of jobs, a worker, and an operator.

python main.py create|get|list|watch|output|work|complete|limit --server HOST:PORT ...

It prints one JSON object a line. The commands, their options and what they print:
tests/polyglot/README.md.
"""

import argparse
import json
import sys
from pathlib import Path

import grpc
from connect import connect
from failure import read_error
from google.protobuf.struct_pb2 import Struct
from limit import set_limit
from owner import create, get, list_jobs
from watch import output, watch
from worker import complete, work


def main() -> int:
    options = parser().parse_args()  # Exits with 2.
    try:
        with connect(options.server) as client:
            options.command(client, options)
    except grpc.RpcError as error:
        print(json.dumps(read_error(error)), flush=True)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--server", required=True, metavar="HOST:PORT")
    owner = argparse.ArgumentParser(add_help=False, parents=[every])
    owner.add_argument("--user", required=True)
    job = argparse.ArgumentParser(add_help=False)
    job.add_argument("--job", required=True)
    result = argparse.ArgumentParser(add_help=False)
    result.add_argument("--result", type=read_struct, metavar="FILE")

    top = argparse.ArgumentParser(description=__doc__)
    commands = top.add_subparsers(required=True)

    command = commands.add_parser("create", parents=[owner])
    command.set_defaults(command=create)
    command.add_argument("--type", required=True)
    command.add_argument("--request-id")
    command.add_argument("--stall-timeout", type=int, metavar="SECONDS")
    command.add_argument("--max-attempts", type=int)
    command.add_argument("--priority", type=int, metavar="0-9")
    command.add_argument("--fairness-key")
    command.add_argument("--concurrency-key")
    command.add_argument("--unique-key")
    command.add_argument("--unique-policy", choices=["reject", "return-existing"])
    command.add_argument("--parameters", type=read_struct, metavar="FILE")
    command.add_argument("--label", type=divide, action="append", default=[], metavar="KEY=VALUE")

    command = commands.add_parser("get", parents=[owner, job])
    command.set_defaults(command=get)

    command = commands.add_parser("list", parents=[owner])
    command.set_defaults(command=list_jobs)
    command.add_argument("--page-size", type=int, default=0)

    command = commands.add_parser("watch", parents=[owner, job])
    command.set_defaults(command=watch)
    command.add_argument("--after-version", type=int, default=0)

    command = commands.add_parser("output", parents=[owner, job])
    command.set_defaults(command=output)
    command.add_argument("--after-offset", type=int, default=0, metavar="BYTES")

    command = commands.add_parser("work", parents=[every, result])
    command.set_defaults(command=work)
    command.add_argument("--worker", required=True)
    command.add_argument("--type", required=True)
    command.add_argument("--wait", type=int, default=10, metavar="SECONDS")
    command.add_argument(
        "--outcome", choices=["completed", "partial", "failed", "retried"], default="completed"
    )
    command.add_argument("--message", default="half done")
    command.add_argument("--output", action="append", default=[], metavar="TEXT")
    command.add_argument("--asset-size", type=int, default=0, metavar="BYTES")

    command = commands.add_parser("complete", parents=[every, job, result])
    command.set_defaults(command=complete)
    command.add_argument("--attempt", type=int)

    command = commands.add_parser("limit", parents=[every])
    command.set_defaults(command=set_limit)
    command.add_argument("--name", required=True)
    command.add_argument("--max-running", type=int)
    return top


def read_struct(path: str) -> Struct:
    struct = Struct()
    struct.update(json.loads(Path(path).read_text("utf-8")))
    return struct


def divide(label: str) -> tuple[str, str]:
    key, found, value = label.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("no = in it")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
