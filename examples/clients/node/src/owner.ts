import { randomUUID } from "node:crypto";
import type * as grpc from "@grpc/grpc-js";

import { unary } from "./connect.js";
import { JobSchema } from "./generated/jobledger/v1/job_pb.js";
import { JobService, UniquePolicy } from "./generated/jobledger/v1/job_service_pb.js";
import type { Options } from "./main.js";
import { json, print } from "./print.js";

export async function create(client: grpc.Client, options: Options): Promise<void> {
  const answer = await unary(client, JobService.method.createJob, {
    userId: options.user,
    jobType: options.type,
    parameters: options.parameters,
    labels: options.labels,
    // The retries of one call share it; a caller that may itself be run again keeps it
    // with its own data.
    requestId: options.requestId ?? randomUUID(),
    // The pause before each retry has defaults: a second, then twice as long each time.
    retryPolicy: options.maxAttempts ? { maxAttempts: options.maxAttempts } : undefined,
    stallTimeout: options.stallTimeout ? { seconds: options.stallTimeout } : undefined,
    // Who goes next, and how many at once: docs/guides/priorities.md and limits.md.
    priority: options.priority,
    fairnessKey: options.fairnessKey,
    concurrencyKey: options.concurrencyKey,
    uniqueKey: options.uniqueKey,
    uniquePolicy: options.returnExisting ? UniquePolicy.RETURN_EXISTING : undefined,
  });
  print({ event: "created", job: json(JobSchema, answer.job) });
}

export async function get(client: grpc.Client, options: Options): Promise<void> {
  const answer = await unary(client, JobService.method.getJob, {
    jobId: options.job,
    userId: options.user,
  });
  print({ event: "job", job: json(JobSchema, answer.job) });
}

export async function list(client: grpc.Client, options: Options): Promise<void> {
  let pageToken = "";
  do {
    const page = await unary(client, JobService.method.listJobs, {
      userId: options.user,
      pageSize: options.pageSize,
      pageToken,
    });
    print({ event: "page", jobs: page.jobs.map((job) => json(JobSchema, job)) });
    // More pages may follow a short one: only the token shows it.
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
}
