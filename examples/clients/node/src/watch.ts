import { setTimeout } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";

import { streaming } from "./connect.js";
import { isServiceError, readError } from "./failure.js";
import { JobSchema, JobStatus, JobTransitionSchema } from "./generated/jobledger/v1/job_pb.js";
import { JobService, WatchOutputResponseSchema } from "./generated/jobledger/v1/job_service_pb.js";
import type { Options } from "./main.js";
import { json, print } from "./print.js";

/** Follows a job to its end. */
export async function watch(client: grpc.Client, options: Options): Promise<void> {
  let seen = options.afterVersion;
  const open = () =>
    streaming(client, JobService.method.watchJob, {
      jobId: options.job,
      userId: options.user,
      afterVersion: seen,
    });
  await follow(open, ({ content, transitions }) => {
    if (content.case !== "job") {
      return false; // A heartbeat.
    }
    const job = content.value;
    const ended = ENDED.has(job.status);
    if (ended || job.version > seen) {
      seen = job.version;
      print({
        event: "changed",
        job: json(JobSchema, job),
        transitions: transitions.map((each) => json(JobTransitionSchema, each)),
      });
    }
    return ended;
  });
}

/** Follows what a job writes, until nothing can come any more. */
export async function output(client: grpc.Client, options: Options): Promise<void> {
  let seen = options.afterOffset;
  const open = () =>
    streaming(client, JobService.method.watchOutput, {
      jobId: options.job,
      userId: options.user,
      from: { case: "afterOffset", value: seen },
    });
  await follow(open, (answer) => {
    // A message without news is a heartbeat, or the first one of a stream.
    if (answer.closed || answer.nextOffset > seen) {
      seen = answer.nextOffset;
      print({ event: "output", output: json(WatchOutputResponseSchema, answer) });
    }
    return answer.closed;
  });
}

/**
 * Reads as many streams as it takes. `open` opens one that goes on after what was taken; `take`
 * returns whether a message was the last one.
 */
async function follow<Answer>(
  open: () => AsyncIterable<Answer>,
  take: (answer: Answer) => boolean,
): Promise<void> {
  for (let failures = 0; ; failures++) {
    let delayMs = 0;
    try {
      let first = true;
      for await (const answer of open()) {
        if (take(answer)) {
          return;
        }
        // Not after the message that greets each stream: a server that breaks right after
        // it would be called ten times a second.
        if (!first) {
          failures = 0;
        }
        first = false;
      }
      // OK before the last message: never the server's, a proxy's perhaps.
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
