#!/bin/sh
# Writes src/generated/ from the protos; `npm run build` runs it. protoc has to be on the
# PATH.
set -eu
mkdir -p src/generated
protoc --proto_path=../../../protos --proto_path=../googleapis \
	--plugin=node_modules/.bin/protoc-gen-es \
	--es_out=src/generated --es_opt=target=ts,import_extension=js \
	../../../protos/jobledger/v1/*.proto \
	google/rpc/status.proto google/rpc/error_details.proto
