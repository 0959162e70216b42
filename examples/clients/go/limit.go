package main

import (
	"context"

	pb "example.com/jobs/jobledger/v1"
)

// limit is for operators: it sets how many jobs with a concurrency key are held at once, over all
// servers, or removes that limit.
func limit(ctx context.Context, c *client, o *options) error {
	answer, err := unary(ctx, c.queues.SetConcurrencyLimit, &pb.SetConcurrencyLimitRequest{
		Name: o.name, MaxRunning: o.maxRunning,
	})
	if err == nil {
		print(event{"event": "limited", "limit": message(answer.GetLimit())})
	}
	return err
}
