#!/bin/sh
# Copies the Python program to build/previous/ and gives it the stubs of an older contract.
set -eu
python3 -m venv build/venv
build/venv/bin/pip install -q -r requirements.txt
protos=../../../tests/packaging/compat/before-watch-jobs.binpb
rm -rf build/previous
mkdir -p build/previous
cp ./*.py build/previous/
build/venv/bin/python -m grpc_tools.protoc --descriptor_set_in="$protos" \
	--python_out=build/previous --grpc_python_out=build/previous \
	jobledger/v1/asset.proto jobledger/v1/job.proto jobledger/v1/error_reason.proto \
	jobledger/v1/job_service.proto jobledger/v1/worker_service.proto
