import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type * as grpc from "@grpc/grpc-js";

import { duplex, unary } from "./connect.js";
import { JobSchema, JobStatus, type Job } from "./generated/jobledger/v1/job_pb.js";
import {
  UpdateResultSchema,
  WorkerService,
  WorkRequestSchema,
} from "./generated/jobledger/v1/worker_service_pb.js";
import type { Options } from "./main.js";
import { json, print } from "./print.js";

/** A third of the lease, which is a minute unless set. */
const HEARTBEAT_MS = 20_000;

type Request = MessageInitShape<typeof WorkRequestSchema>;

/**
 * Does one job, as soon as there is one, over the stream that carries all of a worker's work:
 * jobs to it, updates of them from it, and a result for each update.
 */
export async function work(client: grpc.Client, options: Options): Promise<void> {
  const stream = duplex(client, WorkerService.method.work);
  const send = (request: Request) => stream.write(create(WorkRequestSchema, request));
  send({ hello: { workerId: options.worker, jobTypes: [options.type] }, slots: 1 });
  // Any message renews the leases; without one no more jobs come.
  const heartbeats = setInterval(() => send({}), HEARTBEAT_MS);
  const appended = options.output.map(() => "appended");
  const unanswered = ["progressed", ...appended, "linked", "ended"];
  try {
    for await (const { jobs, results } of stream) {
      for (const job of jobs) {
        print({ event: "claimed", job: json(JobSchema, job) });
        send(finish(job, options));
        stream.end();
      }
      // One for each update, in their order.
      for (const result of results) {
        print({ event: unanswered.shift(), result: json(UpdateResultSchema, result) });
      }
      // A signal would say that the job is cancelled or lost: stop, and release a cancelled one.
    }
  } finally {
    clearInterval(heartbeats);
  }
}

/**
 * Does a job and reports on it. Each update carries the attempt: should the lease expire and
 * the job pass to another worker, it is refused instead of heard.
 */
function finish(job: Job, { message, output, outcome, result, assetSize }: Options): Request {
  const held = { jobId: job.id, attempt: job.attempt };
  const progress = { progress: 50, progressMessage: message };
  // Numbered, it can be sent again over another stream, and is appended once.
  const pieces = output.map((text, index) => ({
    number: BigInt(index + 1),
    data: Buffer.from(text),
  }));
  const asset = {
    assetType: "application/octet-stream",
    storagePath: `results/${job.id}/${job.attempt}`,
    fileSize: assetSize,
  };
  const made = { asset, requestId: `attempt-${job.attempt}` };
  const completed = { status: JobStatus.COMPLETED };
  const failed = { status: JobStatus.FAILED, error: { reason: "NOT_DONE", message } };
  const end = {
    completed,
    partial: { status: JobStatus.PARTIAL, error: { reason: "SOME_MISSING", message } },
    failed,
    // With attempts left the job waits for the next one, instead of being FAILED.
    retried: job.attempt === 1 ? { ...failed, retryable: true } : completed,
  }[outcome];
  // What is ready goes in one message. No slots: no more jobs.
  return {
    slots: 0,
    updates: [
      { ...held, update: { case: "progress", value: progress } },
      ...pieces.map((value) => ({ ...held, update: { case: "output" as const, value } })),
      { ...held, update: { case: "asset", value: made } },
      { ...held, update: { case: "finish", value: { ...end, result } } },
    ],
  };
}

export async function complete(client: grpc.Client, options: Options): Promise<void> {
  const answer = await unary(client, WorkerService.method.markCompleted, {
    jobId: options.job,
    attempt: options.attempt,
    anyAttempt: options.attempt === undefined,
    finish: { result: options.result },
  });
  print({ event: "ended", job: json(JobSchema, answer.job) });
}
