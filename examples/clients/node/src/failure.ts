import * as grpc from "@grpc/grpc-js";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from "./generated/google/rpc/error_details_pb.js";
import { StatusSchema } from "./generated/google/rpc/status_pb.js";

/** What the service says about a call that it refused. */
export interface Failure {
  event: "error";
  code: string;
  message: string;
  reason: string;
  metadata: Record<string, string>;
  field_violations: { field: string; description: string }[];
  precondition_violations: { type: string; subject: string; description: string }[];
  retry_delay_ms: number | null;
}

export function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

/** Reads the google.rpc.Status in the trailer grpc-status-details-bin. */
export function readError(error: grpc.ServiceError): Failure {
  const failure: Failure = {
    event: "error",
    code: grpc.status[error.code],
    message: error.details,
    reason: "",
    metadata: {},
    field_violations: [],
    precondition_violations: [],
    retry_delay_ms: null,
  };
  const [trailer] = error.metadata.get("grpc-status-details-bin");
  const details = trailer ? fromBinary(StatusSchema, trailer as Buffer).details : [];
  for (const detail of details) {
    const info = anyUnpack(detail, ErrorInfoSchema);
    if (info?.domain === "jobledger") {
      failure.reason = info.reason;
      failure.metadata = info.metadata;
    }
    for (const { field, description } of anyUnpack(detail, BadRequestSchema)?.fieldViolations ?? []) {
      failure.field_violations.push({ field, description });
    }
    for (const violation of anyUnpack(detail, PreconditionFailureSchema)?.violations ?? []) {
      const { type, subject, description } = violation;
      failure.precondition_violations.push({ type, subject, description });
    }
    const retry = anyUnpack(detail, RetryInfoSchema);
    if (retry) {
      const { seconds, nanos } = retry.retryDelay ?? { seconds: 0n, nanos: 0 };
      failure.retry_delay_ms = Number(seconds) * 1000 + Math.trunc(nanos / 1e6);
    }
  }
  return failure;
}
