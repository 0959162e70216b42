import * as grpc from "@grpc/grpc-js";
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";

// gRPC must not retry streams: only the program that opened one knows where to resume. Nor
// claims: one whose answer was lost may have claimed a job.
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [
        { service: "jobledger.v1.JobService" },
        { service: "jobledger.v1.QueueService" },
        { service: "jobledger.v1.WorkerService" },
      ],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "3s",
        backoffMultiplier: 3,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
    {
      name: [
        { service: "jobledger.v1.JobService", method: "WatchJob" },
        { service: "jobledger.v1.JobService", method: "WatchJobs" },
        { service: "jobledger.v1.JobService", method: "WatchOutput" },
        { service: "jobledger.v1.WorkerService", method: "Work" },
        { service: "jobledger.v1.WorkerService", method: "ClaimJobs" },
      ],
    },
  ],
};

export function connect(target: string): grpc.Client {
  // grpc.credentials.createSsl() where the service has TLS.
  return new grpc.Client(target, grpc.credentials.createInsecure(), {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
  });
}

const DEADLINE_MS = 10_000;

/** Makes one call, with a deadline; rejects with a grpc.ServiceError. */
export function unary<I extends DescMessage, O extends DescMessage>(
  client: grpc.Client,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
): Promise<MessageShape<O>> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path(method),
      serialize(method.input),
      deserialize(method.output),
      create(method.input, request),
      new grpc.Metadata(),
      { deadline: Date.now() + DEADLINE_MS },
      (error, answer) => (error ? reject(error) : resolve(answer!)),
    );
  });
}

/** Opens a stream, without a deadline; iterating it throws a grpc.ServiceError. */
export function streaming<I extends DescMessage, O extends DescMessage>(
  client: grpc.Client,
  method: DescMethodServerStreaming<I, O>,
  request: MessageInitShape<I>,
): AsyncIterable<MessageShape<O>> {
  return client.makeServerStreamRequest(
    path(method),
    serialize(method.input),
    deserialize(method.output),
    create(method.input, request),
  );
}

/** Opens a stream in both directions; iterating it throws a grpc.ServiceError. */
export function duplex<I extends DescMessage, O extends DescMessage>(
  client: grpc.Client,
  method: DescMethodBiDiStreaming<I, O>,
): grpc.ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
  return client.makeBidiStreamRequest(
    path(method),
    serialize(method.input),
    deserialize(method.output),
  );
}

function path(method: { parent: { typeName: string }; name: string }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function serialize<M extends DescMessage>(type: M) {
  return (message: MessageShape<M>) => Buffer.from(toBinary(type, message));
}

function deserialize<M extends DescMessage>(type: M) {
  return (bytes: Buffer) => fromBinary(type, bytes);
}
