#!/bin/sh
# Writes jobledger/v1/ from the protos. grpcio-tools brings its own protoc.
set -eu
build/venv/bin/python -m grpc_tools.protoc --proto_path=../../../protos \
	--python_out=. --pyi_out=. --grpc_python_out=. \
	../../../protos/jobledger/v1/*.proto
