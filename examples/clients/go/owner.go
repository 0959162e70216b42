package main

import (
	"context"
	"crypto/rand"
	"io"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/jobs/jobledger/v1"
)

func create(ctx context.Context, c *client, o *options) error {
	if o.requestID == "" {
		// The retries of one call share it; a caller that may itself be run again
		// keeps it with its own data.
		o.requestID = rand.Text()
	}
	request := &pb.CreateJobRequest{
		UserId: o.user, JobType: o.kind, Parameters: o.parameters, Labels: o.labels,
		RequestId: o.requestID,
		// Who goes next, and how many at once: docs/guides/priorities.md and limits.md.
		Priority: o.priority, FairnessKey: o.fairnessKey, ConcurrencyKey: o.concurrencyKey,
		UniqueKey: o.uniqueKey,
	}
	if o.uniquePolicy == "return-existing" {
		request.UniquePolicy = pb.UniquePolicy_UNIQUE_POLICY_RETURN_EXISTING
	}
	if o.stallTimeout != 0 {
		request.StallTimeout = &durationpb.Duration{Seconds: int64(o.stallTimeout)}
	}
	if o.maxAttempts != 0 {
		// The pause before each retry has defaults: a second, then twice as long each time.
		request.RetryPolicy = &pb.RetryPolicy{MaxAttempts: int32(o.maxAttempts)}
	}
	answer, err := unary(ctx, c.jobs.CreateJob, request)
	if err == nil {
		print(event{"event": "created", "job": message(answer.GetJob())})
	}
	return err
}

func get(ctx context.Context, c *client, o *options) error {
	answer, err := unary(ctx, c.jobs.GetJob, &pb.GetJobRequest{JobId: o.job, UserId: o.user})
	if err == nil {
		print(event{"event": "job", "job": message(answer.GetJob())})
	}
	return err
}

func list(ctx context.Context, c *client, o *options) error {
	request := &pb.ListJobsRequest{UserId: o.user, PageSize: int32(o.pageSize)}
	for {
		page, err := unary(ctx, c.jobs.ListJobs, request)
		if err != nil {
			return err
		}
		print(event{"event": "page", "jobs": messages(page.GetJobs())})
		// More pages may follow a short one: only the token shows it.
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return nil
		}
	}
}

// watch follows a job to its end, over as many streams as that takes.
func watch(ctx context.Context, c *client, o *options) error {
	seen := o.afterVersion
	for failures := 0; ; failures++ {
		stream, err := c.jobs.WatchJob(ctx, &pb.WatchJobRequest{
			JobId: o.job, UserId: o.user, AfterVersion: seen,
		})
		for err == nil {
			var answer *pb.WatchJobResponse
			if answer, err = stream.Recv(); err != nil {
				break
			}
			job, ended := answer.GetJob(), hasEnded(answer.GetJob())
			news := !answer.GetHeartbeat() && job.GetVersion() > seen
			if news || ended {
				seen = job.GetVersion()
				print(event{
					"event": "changed", "job": message(job),
					"transitions": messages(answer.GetTransitions()),
				})
			}
			if ended {
				return nil
			}
			// Not after the snapshot that greets each stream: a server that breaks
			// right after it would be called ten times a second.
			if news || answer.GetHeartbeat() {
				failures = 0
			}
		}
		if !isTransient(err) {
			return err
		}
		// Full jitter, on top of what the server asks for: after a restart all
		// watchers come back, but not at once.
		limit := min(100*time.Millisecond<<min(failures, 10), 5*time.Second)
		time.Sleep(retryDelay(err) + mathrand.N(limit))
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
	if err == io.EOF { // OK before the job has ended: never the server's, a proxy's perhaps.
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
