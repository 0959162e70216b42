import * as grpc from "@grpc/grpc-js";

import { unary } from "./connect.js";
import { ConcurrencyLimitSchema, QueueService } from "./generated/jobledger/v1/queue_service_pb.js";
import type { Options } from "./main.js";
import { json, print } from "./print.js";

/** Sets how many jobs with a concurrency key are held at once, over all servers. For operators. */
export async function limit(client: grpc.Client, options: Options): Promise<void> {
  const answer = await unary(client, QueueService.method.setConcurrencyLimit, {
    name: options.name,
    maxRunning: options.maxRunning, // undefined removes the limit
  });
  print({ event: "limited", limit: json(ConcurrencyLimitSchema, answer.limit) });
}
