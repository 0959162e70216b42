import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";

import { streaming, unary } from "./connect.js";
import { isServiceError, readError } from "./failure.js";
import { JobSchema, JobStatus, JobTransitionSchema } from "./generated/jobledger/v1/job_pb.js";
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

/** Follows a job to its end, over as many streams as that takes. */
export async function watch(client: grpc.Client, options: Options): Promise<void> {
  let seen = options.afterVersion;
  for (let failures = 0; ; failures++) {
    let delayMs = 0;
    try {
      const stream = streaming(client, JobService.method.watchJob, {
        jobId: options.job,
        userId: options.user,
        afterVersion: seen,
      });
      for await (const { content, transitions } of stream) {
        if (content.case !== "job") {
          failures = 0;
          continue; // A heartbeat.
        }
        const job = content.value;
        const ended = ENDED.has(job.status);
        const news = job.version > seen;
        if (news || ended) {
          seen = job.version;
          print({
            event: "changed",
            job: json(JobSchema, job),
            transitions: transitions.map((each) => json(JobTransitionSchema, each)),
          });
        }
        if (ended) {
          return;
        }
        // Not after the snapshot that greets each stream: a server that breaks right
        // after it would be called ten times a second.
        if (news) {
          failures = 0;
        }
      }
      // OK before the job has ended: never the server's, a proxy's perhaps.
    } catch (error) {
      if (!isServiceError(error) || !isTransient(error)) {
        throw error;
      }
      delayMs = readError(error).retry_delay_ms ?? 0;
    }
    // Full jitter, on top of what the server asks for: after a restart all watchers come
    // back, but not at once.
    await setTimeout(delayMs + Math.random() * Math.min(100 * 2 ** failures, 5_000));
  }
}

const ENDED = new Set([JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED]);

/** Whether another stream may succeed. */
function isTransient(error: grpc.ServiceError): boolean {
  switch (error.code) {
    case grpc.status.UNAVAILABLE:
    case grpc.status.RESOURCE_EXHAUSTED:
    case grpc.status.CANCELLED:
    case grpc.status.DEADLINE_EXCEEDED:
      return true;
    case grpc.status.INTERNAL:
    case grpc.status.UNKNOWN: // A stream reset on the way, unless the server says why.
      return readError(error).reason === "";
    default:
      return false;
  }
}
