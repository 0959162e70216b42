// Command jobs is a Jobledger client to copy from: an owner of jobs, a worker, and an operator.
//
//	jobs create|get|list|watch|output|work|complete|limit --server HOST:PORT …
//
// It prints one JSON object a line. The commands, their options and what they print:
// tests/polyglot/README.md.
package main

//go:generate sh generate.sh

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

var commands = map[string]func(context.Context, *client, *options) error{
	"create":   create,
	"get":      get,
	"list":     list,
	"watch":    watch,
	"output":   output,
	"work":     work,
	"complete": complete,
	"limit":    limit,
}

func main() {
	options, command := parse(os.Args[1:])
	client, err := connect(options.server)
	if err != nil {
		wrong("--server:", err)
	}
	defer client.Close()
	err = command(context.Background(), client, options)
	if _, isStatus := status.FromError(err); !isStatus {
		wrong(err)
	}
	if err != nil {
		printError(err)
		os.Exit(1)
	}
}

type options struct {
	server, user, job, kind, requestID, worker, outcome, message string
	fairnessKey, concurrencyKey, uniqueKey, uniquePolicy, name   string
	priority, maxRunning                                         *int32
	parameters, result                                           *structpb.Struct
	labels                                                       map[string]string
	output                                                       []string
	pageSize, attempt, stallTimeout, maxAttempts                 int
	afterVersion, afterOffset, assetSize                         int64
}

func parse(arguments []string) (*options, func(context.Context, *client, *options) error) {
	if len(arguments) == 0 || commands[arguments[0]] == nil {
		wrong("usage: jobs create|get|list|watch|output|work|complete|limit --server HOST:PORT …")
	}
	o := &options{labels: map[string]string{}}
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError) // Exits with 2.
	flags.StringVar(&o.server, "server", "", "`HOST:PORT` of the service")
	flags.StringVar(&o.user, "user", "", "the owner of the jobs")
	flags.StringVar(&o.job, "job", "", "which job")
	flags.StringVar(&o.kind, "type", "", "the type of the job")
	flags.StringVar(&o.requestID, "request-id", "", "makes create safe to repeat (default: random)")
	flags.IntVar(&o.stallTimeout, "stall-timeout", 0, "`seconds` that an attempt may go without news")
	flags.IntVar(&o.maxAttempts, "max-attempts", 0, "how often the job is tried (default: three times)")
	flags.Func("priority", "0 to 9, higher goes first (default: 5)", numberInto(&o.priority))
	flags.StringVar(&o.fairnessKey, "fairness-key", "", "the tenant (default: the owner)")
	flags.StringVar(&o.concurrencyKey, "concurrency-key", "", "what the job uses that has a limit")
	flags.StringVar(&o.uniqueKey, "unique-key", "", "only one such job that has not ended")
	flags.StringVar(&o.uniquePolicy, "unique-policy", "reject", "reject or return-existing")
	flags.StringVar(&o.worker, "worker", "", "the worker's name for itself")
	flags.StringVar(&o.outcome, "outcome", "completed", "completed, partial, failed or retried")
	flags.StringVar(&o.message, "message", "half done", "what the worker says")
	flags.IntVar(&o.pageSize, "page-size", 0, "jobs a page")
	flags.IntVar(&o.attempt, "attempt", 0, "the caller's attempt (default: any)")
	flags.Int64Var(&o.afterVersion, "after-version", 0, "the last version seen")
	flags.Int64Var(&o.afterOffset, "after-offset", 0, "`bytes` of output seen")
	flags.Func("output", "`text` that the worker appends", func(text string) error {
		o.output = append(o.output, text)
		return nil
	})
	flags.Int64Var(&o.assetSize, "asset-size", 0, "`bytes` of what the worker made")
	flags.StringVar(&o.name, "name", "", "a concurrency key, or the part before its colon")
	flags.Func("max-running", "the limit (default: none)", numberInto(&o.maxRunning))
	flags.Func("parameters", "`file` with the input", structInto(&o.parameters))
	flags.Func("result", "`file` with the outcome", structInto(&o.result))
	flags.Func("label", "`key=value`", func(text string) error {
		key, value, found := strings.Cut(text, "=")
		if !found {
			return fmt.Errorf("no = in it")
		}
		o.labels[key] = value
		return nil
	})
	_ = flags.Parse(arguments[1:])
	if o.server == "" || flags.NArg() > 0 {
		wrong("--server is required, and nothing but options follows the command")
	}
	return o, commands[arguments[0]]
}

func numberInto(target **int32) func(string) error {
	return func(text string) error {
		number, err := strconv.ParseInt(text, 10, 32)
		*target = proto.Int32(int32(number))
		return err
	}
}

func structInto(target **structpb.Struct) func(string) error {
	return func(file string) error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		*target = &structpb.Struct{}
		return protojson.Unmarshal(text, *target)
	}
}

func wrong(words ...any) {
	fmt.Fprintln(os.Stderr, words...)
	os.Exit(2)
}
