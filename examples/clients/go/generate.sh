#!/bin/sh
# Writes jobledgerv1/ from the protos; `go generate` runs it. The plugins are of the
# versions in go.mod; protoc has to be on the PATH. M names the Go package of a proto
# that does not name one itself.
set -eu
protos=../../../protos
package=example.com/jobs/jobledgerv1

go build -o build/ google.golang.org/protobuf/cmd/protoc-gen-go \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc
cd "$protos"
set -- jobledger/v1/*.proto
cd - >/dev/null
packages=
for proto; do
	packages="$packages,M$proto=$package"
done
protoc --proto_path="$protos" \
	--plugin=build/protoc-gen-go --go_out=. --go_opt="module=example.com/jobs$packages" \
	--plugin=build/protoc-gen-go-grpc --go-grpc_out=. \
	--go-grpc_opt="module=example.com/jobs$packages" \
	"$@"
