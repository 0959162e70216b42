import type * as grpc from "@grpc/grpc-js";

import { DEADLINE_MS, unary } from "./connect.js";
import { AssetSchema } from "./generated/jobledger/v1/asset_pb.js";
import { JobSchema } from "./generated/jobledger/v1/job_pb.js";
import { WorkerService } from "./generated/jobledger/v1/worker_service_pb.js";
import type { Options } from "./main.js";
import { json, print } from "./print.js";

/**
 * Does one job, if there is one. Each call carries the attempt: should the lease expire and
 * the job pass to another worker, this one is refused instead of heard.
 */
export async function work(client: grpc.Client, options: Options): Promise<void> {
  const claim = await unary(
    client,
    WorkerService.method.claimJobs,
    {
      workerId: options.worker,
      jobTypes: [options.type],
      maxJobs: 1,
      leaseDuration: { seconds: 60n },
      wait: { seconds: BigInt(options.wait) },
    },
    options.wait * 1000 + DEADLINE_MS,
  );
  const [job] = claim.jobs;
  if (job === undefined) {
    print({ event: "idle" });
    return;
  }
  print({ event: "claimed", job: json(JobSchema, job) });
  const held = { jobId: job.id, attempt: job.attempt };

  // Work that takes longer than the lease reports within it; a report without progress is a
  // sign of life. Where cancelRequested is true, tidy up and fail.
  const progress = await unary(client, WorkerService.method.updateProgress, {
    ...held,
    progress: 50,
    progressMessage: options.message,
  });
  print({
    event: "progressed",
    job: json(JobSchema, progress.job),
    applied: progress.applied,
    cancel_requested: progress.cancelRequested,
  });

  const linked = await unary(client, WorkerService.method.createAsset, {
    ...held,
    assetType: "application/octet-stream",
    storagePath: `results/${job.id}`,
    fileSize: options.assetSize,
    requestId: `attempt-${job.attempt}`,
  });
  print({ event: "linked", asset: json(AssetSchema, linked.asset) });

  const ended = await end(client, options, held);
  print({ event: "ended", job: json(JobSchema, ended.job) });
}

type Held = { jobId: string; attempt: number };

function end(client: grpc.Client, { outcome, result, message }: Options, held: Held) {
  const { markCompleted, markPartial, markFailed } = WorkerService.method;
  switch (outcome) {
    case "completed":
      return unary(client, markCompleted, { ...held, result });
    case "partial": {
      const error = { reason: "SOME_MISSING", message };
      return unary(client, markPartial, { ...held, result, error });
    }
    case "failed": {
      const error = { reason: "NOT_DONE", message };
      return unary(client, markFailed, { ...held, result, error });
    }
  }
}

export async function complete(client: grpc.Client, options: Options): Promise<void> {
  const answer = await unary(client, WorkerService.method.markCompleted, {
    jobId: options.job,
    attempt: options.attempt,
    result: options.result,
  });
  print({ event: "ended", job: json(JobSchema, answer.job) });
}
