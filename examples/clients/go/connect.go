package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "example.com/jobs/jobledger/v1"
)

// gRPC must not retry streams: only the program that opened one knows where to resume. Nor
// claims: one whose answer was lost may have claimed a job.
const serviceConfig = `{"methodConfig": [
	{
		"name": [
			{"service": "jobledger.v1.JobService"}, {"service": "jobledger.v1.QueueService"},
			{"service": "jobledger.v1.WorkerService"}
		],
		"retryPolicy": {
			"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "3s",
			"backoffMultiplier": 3, "retryableStatusCodes": ["UNAVAILABLE"]
		}
	},
	{
		"name": [
			{"service": "jobledger.v1.JobService", "method": "WatchJob"},
			{"service": "jobledger.v1.JobService", "method": "WatchJobs"},
			{"service": "jobledger.v1.JobService", "method": "WatchOutput"},
			{"service": "jobledger.v1.WorkerService", "method": "Work"},
			{"service": "jobledger.v1.WorkerService", "method": "ClaimJobs"}
		]
	}
]}`

type client struct {
	*grpc.ClientConn
	jobs    pb.JobServiceClient
	queues  pb.QueueServiceClient
	workers pb.WorkerServiceClient
}

func connect(target string) (*client, error) {
	connection, err := grpc.NewClient(target,
		// WithTransportCredentials(credentials.NewTLS(nil)) where the service has TLS.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		// What does not fit is not retried; the default is less than the largest parameters.
		grpc.WithDefaultCallOptions(grpc.MaxRetryRPCBufferSize(2<<20)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: 2 * time.Second,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
	)
	if err != nil {
		return nil, err
	}
	return &client{
		connection, pb.NewJobServiceClient(connection), pb.NewQueueServiceClient(connection),
		pb.NewWorkerServiceClient(connection),
	}, nil
}

const deadline = 10 * time.Second

// unary makes one call, with a deadline.
func unary[Request, Response any](
	ctx context.Context,
	call func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	return call(ctx, request)
}
