#!/bin/sh
# Writes jobledger/v1/ from the protos; `go generate` runs it. The plugins are of the
# versions in go.mod; protoc has to be on the PATH.
set -eu
protos=../../../protos

go build -o build/ google.golang.org/protobuf/cmd/protoc-gen-go \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc
protoc --proto_path="$protos" \
	--plugin=build/protoc-gen-go --go_out=. --go_opt=paths=source_relative \
	--plugin=build/protoc-gen-go-grpc --go-grpc_out=. --go-grpc_opt=paths=source_relative \
	"$protos"/jobledger/v1/*.proto
