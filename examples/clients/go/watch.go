package main

import (
	"context"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "example.com/jobs/jobledger/v1"
)

// watch follows a job to its end.
func watch(ctx context.Context, c *client, o *options) error {
	seen := o.afterVersion
	open := func() (grpc.ServerStreamingClient[pb.WatchJobResponse], error) {
		return c.jobs.WatchJob(ctx, &pb.WatchJobRequest{
			JobId: o.job, UserId: o.user, AfterVersion: seen,
		})
	}
	return follow(open, func(answer *pb.WatchJobResponse) bool {
		job, ended := answer.GetJob(), hasEnded(answer.GetJob())
		if ended || (!answer.GetHeartbeat() && job.GetVersion() > seen) {
			seen = job.GetVersion()
			print(event{
				"event": "changed", "job": message(job),
				"transitions": messages(answer.GetTransitions()),
			})
		}
		return ended
	})
}

// output follows what a job writes, until nothing can come any more.
func output(ctx context.Context, c *client, o *options) error {
	seen := o.afterOffset
	open := func() (grpc.ServerStreamingClient[pb.WatchOutputResponse], error) {
		return c.jobs.WatchOutput(ctx, &pb.WatchOutputRequest{
			JobId: o.job, UserId: o.user,
			From: &pb.WatchOutputRequest_AfterOffset{AfterOffset: seen},
		})
	}
	return follow(open, func(answer *pb.WatchOutputResponse) bool {
		// A message without news is a heartbeat, or the first one of a stream.
		if answer.GetClosed() || answer.GetNextOffset() > seen {
			seen = answer.GetNextOffset()
			print(event{"event": "output", "output": message(answer)})
		}
		return answer.GetClosed()
	})
}

// follow reads as many streams as it takes. open opens one that goes on after what was taken;
// take returns whether a message was the last one.
func follow[Response any](
	open func() (grpc.ServerStreamingClient[Response], error), take func(*Response) bool,
) error {
	for failures := 0; ; failures++ {
		stream, err := open()
		for first := true; err == nil; first = false {
			var answer *Response
			if answer, err = stream.Recv(); err != nil {
				break
			}
			if take(answer) {
				return nil
			}
			// Not after the message that greets each stream: a server that breaks
			// right after it would be called ten times a second.
			if !first {
				failures = 0
			}
		}
		if !isTransient(err) {
			return err
		}
		// Full jitter, on top of what the server asks for: after a restart all
		// watchers come back, but not at once.
		limit := min(100*time.Millisecond<<min(failures, 10), 5*time.Second)
		time.Sleep(retryDelay(err) + rand.N(limit))
	}
}

func hasEnded(job *pb.Job) bool {
	switch job.GetStatus() {
	case pb.JobStatus_JOB_STATUS_COMPLETED, pb.JobStatus_JOB_STATUS_PARTIAL,
		pb.JobStatus_JOB_STATUS_FAILED:
		return true
	}
	return false
}

// isTransient returns whether another stream may succeed.
func isTransient(err error) bool {
	if err == io.EOF { // OK before the last message: never the server's, a proxy's perhaps.
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.Canceled, codes.DeadlineExceeded:
		return true
	case codes.Internal, codes.Unknown: // A stream reset on the way, unless the server says why.
		return readError(err).Reason == ""
	}
	return false
}

func retryDelay(err error) time.Duration {
	if delay := readError(err).RetryDelayMS; delay != nil {
		return time.Duration(*delay) * time.Millisecond
	}
	return 0
}
