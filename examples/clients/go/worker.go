package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	pb "example.com/jobs/jobledger/v1"
)

const heartbeat = 20 * time.Second // A third of the lease, which is a minute unless set.

// work does one job, as soon as there is one, over the stream that carries all of a worker's
// work: jobs to it, updates of them from it, and a result for each update.
func work(ctx context.Context, c *client, o *options) error {
	stream, err := c.workers.Work(ctx)
	if err != nil {
		return err
	}
	requests := make(chan *pb.WorkRequest, 2)
	requests <- &pb.WorkRequest{
		Hello: &pb.WorkHello{WorkerId: o.worker, JobTypes: []string{o.kind}},
		Slots: proto.Int32(1),
	}
	go func() { // Where Send fails, Recv says why.
		for err == nil {
			request := &pb.WorkRequest{} // It renews the leases; without any no more jobs come.
			select {
			case request = <-requests:
			case <-time.After(heartbeat):
			}
			err = stream.Send(request)
		}
	}()
	unanswered := slices.Concat(
		[]string{"progressed"}, slices.Repeat([]string{"appended"}, len(o.output)),
		[]string{"linked", "ended"},
	)
	for len(unanswered) > 0 {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, job := range answer.GetJobs() {
			print(event{"event": "claimed", "job": message(job)})
			requests <- do(job, o)
		}
		for _, result := range answer.GetResults() { // One for each update, in their order.
			print(event{"event": unanswered[0], "result": message(result)})
			unanswered = unanswered[1:]
		}
		// A signal in the answer would say that the job is cancelled or lost: stop, and
		// release a cancelled one.
	}
	return nil
}

// do does a job and reports on it. Each update carries the attempt: should the lease expire
// and the job pass to another worker, it is refused instead of heard.
func do(job *pb.Job, o *options) *pb.WorkRequest {
	id, attempt := job.GetId(), job.GetAttempt()
	progress := &pb.ProgressUpdate{Progress: proto.Int32(50), ProgressMessage: &o.message}
	made := &pb.AssetUpdate{RequestId: fmt.Sprintf("attempt-%d", attempt), Asset: &pb.NewAsset{
		AssetType: "application/octet-stream", FileSize: o.assetSize,
		StoragePath: fmt.Sprintf("results/%s/%d", id, attempt),
	}}
	finish := &pb.FinishUpdate{Status: pb.JobStatus_JOB_STATUS_COMPLETED, Result: o.result}
	switch retry := o.outcome == "retried" && attempt == 1; {
	case o.outcome == "partial":
		finish.Status = pb.JobStatus_JOB_STATUS_PARTIAL
		finish.Error = &pb.JobError{Reason: "SOME_MISSING", Message: o.message}
	case o.outcome == "failed", retry:
		finish.Status = pb.JobStatus_JOB_STATUS_FAILED
		finish.Error = &pb.JobError{Reason: "NOT_DONE", Message: o.message}
		// With attempts left the job waits for the next one, instead of being FAILED.
		finish.Retryable = retry
	}
	updates := []*pb.JobUpdate{{Update: &pb.JobUpdate_Progress{Progress: progress}}}
	for i, text := range o.output {
		// Numbered, it can be sent again over another stream, and is appended once.
		piece := &pb.OutputUpdate{Number: int64(i + 1), Data: []byte(text)}
		updates = append(updates, &pb.JobUpdate{Update: &pb.JobUpdate_Output{Output: piece}})
	}
	updates = append(updates,
		&pb.JobUpdate{Update: &pb.JobUpdate_Asset{Asset: made}},
		&pb.JobUpdate{Update: &pb.JobUpdate_Finish{Finish: finish}})
	for _, update := range updates {
		update.JobId, update.Attempt = id, attempt
	}
	// What is ready goes in one message. No slots: no more jobs.
	return &pb.WorkRequest{Slots: proto.Int32(0), Updates: updates}
}

func complete(ctx context.Context, c *client, o *options) error {
	request := &pb.MarkCompletedRequest{JobId: o.job, Finish: &pb.FinishUpdate{Result: o.result}}
	if o.attempt != 0 {
		request.Attempt = proto.Int32(int32(o.attempt))
	} else {
		request.AnyAttempt = true
	}
	answer, err := unary(ctx, c.workers.MarkCompleted, request)
	if err == nil {
		print(event{"event": "ended", "job": message(answer.GetJob())})
	}
	return err
}
