// Command operations asks a Jobledger server about its jobs with Google's own Go client for
// long-running operations, and prints a JSON line for each answer:
//
//	operations SERVER USER VERB [ARGUMENT]
//
// The jobledgerv1 package is generated from protos/ when the program is built.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"cloud.google.com/go/longrunning"
	autogen "cloud.google.com/go/longrunning/autogen"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/googleapis/gax-go/v2"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	jobledgerv1 "jobledger.test/longrunning/jobledger/v1"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: operations SERVER USER VERB ARGUMENT")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-jobledger-user", os.Args[2])
	if err := run(ctx, os.Args[1], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, verb, argument string) error {
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	client, err := autogen.NewOperationsClient(ctx, option.WithGRPCConn(conn))
	if err != nil {
		return err
	}
	defer client.Close()
	switch verb {
	case "poll":
		return follow(ctx, client, argument, (*longrunning.Operation).Poll)
	case "wait":
		return follow(ctx, client, argument, (*longrunning.Operation).Wait)
	case "wait-operation":
		op, err := client.WaitOperation(ctx, &longrunningpb.WaitOperationRequest{
			Name: argument, Timeout: durationpb.New(30 * time.Second),
		})
		if err != nil {
			return report("answered", nil, nil, err)
		}
		return report("answered", longrunning.InternalNewOperation(client, op), nil, nil)
	case "cancel":
		return act(ctx, client, argument, (*longrunning.Operation).Cancel)
	case "delete":
		return act(ctx, client, argument, (*longrunning.Operation).Delete)
	case "list":
		return list(ctx, client, argument)
	}
	return fmt.Errorf("no verb %q", verb)
}

// follow prints the operation as it is found, and again after Poll or Wait.
func follow(
	ctx context.Context, client *autogen.OperationsClient, name string,
	ask func(*longrunning.Operation, context.Context, protoadapt.MessageV1, ...gax.CallOption) error,
) error {
	found, err := client.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: name})
	if err != nil {
		return report("found", nil, nil, err)
	}
	op := longrunning.InternalNewOperation(client, found)
	if err := report("found", op, nil, nil); err != nil {
		return err
	}
	var job jobledgerv1.Job
	err = ask(op, ctx, &job)
	return report("followed", op, &job, err)
}

func act(
	ctx context.Context, client *autogen.OperationsClient, name string,
	do func(*longrunning.Operation, context.Context, ...gax.CallOption) error,
) error {
	op := longrunning.InternalNewOperation(client, &longrunningpb.Operation{Name: name})
	return report("acted", op, nil, do(op, ctx))
}

func list(ctx context.Context, client *autogen.OperationsClient, filter string) error {
	operations := client.ListOperations(
		ctx, &longrunningpb.ListOperationsRequest{Name: "jobs", Filter: filter, PageSize: 2},
	)
	for {
		op, err := operations.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return report("listed", nil, nil, err)
		}
		err = report("listed", longrunning.InternalNewOperation(client, op), nil, nil)
		if err != nil {
			return err
		}
	}
}

// report prints what is known of an operation, its response and the error of a call on it.
func report(event string, op *longrunning.Operation, response proto.Message, failure error) error {
	line := map[string]any{"event": event}
	if fault, ok := apierror.FromError(failure); ok {
		line["error"] = map[string]any{
			"code":     fault.GRPCStatus().Code().String(),
			"message":  fault.GRPCStatus().Message(),
			"reason":   fault.Reason(),
			"domain":   fault.Domain(),
			"metadata": fault.Metadata(),
		}
	} else if failure != nil {
		return failure
	} else if response != nil && op.Done() {
		line["response"] = asJSON(response)
	}
	var job jobledgerv1.Job
	if op != nil && op.Metadata(&job) == nil {
		line["name"], line["done"], line["metadata"] = op.Name(), op.Done(), asJSON(&job)
	}
	return json.NewEncoder(os.Stdout).Encode(line)
}

func asJSON(message proto.Message) json.RawMessage {
	text, err := protojson.Marshal(message)
	if err != nil {
		panic(err)
	}
	return text
}
