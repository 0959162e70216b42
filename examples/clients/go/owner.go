package main

import (
	"context"
	"crypto/rand"

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
