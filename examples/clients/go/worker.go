package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/jobs/jobledgerv1"
)

const lease = 60 * time.Second

// work does one job, if there is one. Each call carries the attempt: should the lease
// expire and the job pass to another worker, this one is refused instead of heard.
func work(ctx context.Context, c *client, o *options) error {
	wait := time.Duration(o.wait) * time.Second
	waiting, cancel := context.WithTimeout(ctx, wait+deadline)
	defer cancel()
	claim, err := c.workers.ClaimJobs(waiting, &pb.ClaimJobsRequest{
		WorkerId: o.worker, JobTypes: []string{o.kind}, MaxJobs: 1,
		LeaseDuration: durationpb.New(lease), Wait: durationpb.New(wait),
	})
	if err != nil {
		return err
	}
	if len(claim.GetJobs()) == 0 {
		print(event{"event": "idle"})
		return nil
	}
	job := claim.GetJobs()[0]
	print(event{"event": "claimed", "job": message(job)})

	// Work that takes longer than the lease reports within it; a report without
	// progress is a sign of life. Where cancel_requested is true, tidy up and fail.
	progress, err := unary(ctx, c.workers.UpdateProgress, &pb.UpdateProgressRequest{
		JobId: job.GetId(), Attempt: &job.Attempt,
		Progress: proto.Int32(50), ProgressMessage: &o.message,
	})
	if err != nil {
		return err
	}
	print(event{
		"event": "progressed", "job": message(progress.GetJob()),
		"applied": progress.GetApplied(), "cancel_requested": progress.GetCancelRequested(),
	})

	asset, err := unary(ctx, c.workers.CreateAsset, &pb.CreateAssetRequest{
		JobId: job.GetId(), Attempt: &job.Attempt,
		AssetType: "application/octet-stream", StoragePath: "results/" + job.GetId(),
		FileSize: o.assetSize, RequestId: fmt.Sprintf("attempt-%d", job.GetAttempt()),
	})
	if err != nil {
		return err
	}
	print(event{"event": "linked", "asset": message(asset.GetAsset())})

	ended, err := end(ctx, c, o, job)
	if err == nil {
		print(event{"event": "ended", "job": message(ended.GetJob())})
	}
	return err
}

func end(ctx context.Context, c *client, o *options, job *pb.Job) (interface{ GetJob() *pb.Job }, error) {
	switch o.outcome {
	case "completed":
		return unary(ctx, c.workers.MarkCompleted, &pb.MarkCompletedRequest{
			JobId: job.GetId(), Attempt: &job.Attempt, Result: o.result,
		})
	case "partial":
		return unary(ctx, c.workers.MarkPartial, &pb.MarkPartialRequest{
			JobId: job.GetId(), Attempt: &job.Attempt, Result: o.result,
			Error: &pb.JobError{Reason: "SOME_MISSING", Message: o.message},
		})
	default:
		return unary(ctx, c.workers.MarkFailed, &pb.MarkFailedRequest{
			JobId: job.GetId(), Attempt: &job.Attempt, Result: o.result,
			Error: &pb.JobError{Reason: "NOT_DONE", Message: o.message},
		})
	}
}

func complete(ctx context.Context, c *client, o *options) error {
	request := &pb.MarkCompletedRequest{JobId: o.job, Result: o.result}
	if o.attempt != 0 {
		request.Attempt = proto.Int32(int32(o.attempt))
	}
	answer, err := unary(ctx, c.workers.MarkCompleted, request)
	if err == nil {
		print(event{"event": "ended", "job": message(answer.GetJob())})
	}
	return err
}
