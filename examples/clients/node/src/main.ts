// A Jobledger client to copy from: an owner of jobs, a worker, and an operator. Prints one JSON
// object a line. The commands, their options and what they print: tests/polyglot/README.md.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { JsonObject } from "@bufbuild/protobuf";

import { connect } from "./connect.js";
import { isServiceError, readError } from "./failure.js";
import { limit } from "./limit.js";
import { create, get, list } from "./owner.js";
import { print } from "./print.js";
import { output, watch } from "./watch.js";
import { complete, work } from "./worker.js";

const OUTCOMES = ["completed", "partial", "failed", "retried"] as const;

const COMMANDS = { create, get, list, watch, output, work, complete, limit };

export type Options = ReturnType<typeof parse>;

function parse(args: string[]) {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    args,
    options: {
      server: text,
      user: text,
      job: text,
      type: text,
      "request-id": text,
      "stall-timeout": text,
      "max-attempts": text,
      priority: text,
      "fairness-key": text,
      "concurrency-key": text,
      "unique-key": text,
      "unique-policy": text,
      parameters: text,
      label: { type: "string", multiple: true },
      "page-size": text,
      "after-version": text,
      "after-offset": text,
      worker: text,
      outcome: text,
      message: text,
      output: { type: "string", multiple: true },
      result: text,
      "asset-size": text,
      attempt: text,
      name: text,
      "max-running": text,
    },
  });
  if (values.server === undefined) {
    throw new TypeError("--server is required");
  }
  const outcome = OUTCOMES.find((each) => each === (values.outcome ?? "completed"));
  if (outcome === undefined) {
    throw new TypeError(`--outcome is one of ${OUTCOMES.join(", ")}`);
  }
  return {
    outcome,
    server: values.server,
    user: values.user ?? "",
    job: values.job ?? "",
    type: values.type ?? "",
    worker: values.worker ?? "",
    message: values.message ?? "half done",
    output: values.output ?? [],
    requestId: values["request-id"],
    stallTimeout: BigInt(values["stall-timeout"] ?? 0),
    maxAttempts: Number(values["max-attempts"] ?? 0),
    priority: optionalNumber(values.priority),
    fairnessKey: values["fairness-key"],
    concurrencyKey: values["concurrency-key"],
    uniqueKey: values["unique-key"],
    returnExisting: values["unique-policy"] === "return-existing",
    labels: Object.fromEntries((values.label ?? []).map(divided)),
    parameters: jsonFile(values.parameters),
    result: jsonFile(values.result),
    pageSize: Number(values["page-size"] ?? 0),
    attempt: optionalNumber(values.attempt),
    name: values.name ?? "",
    maxRunning: optionalNumber(values["max-running"]),
    afterVersion: BigInt(values["after-version"] ?? 0),
    afterOffset: BigInt(values["after-offset"] ?? 0),
    assetSize: BigInt(values["asset-size"] ?? 0),
  };
}

function optionalNumber(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Number(text);
}

function divided(label: string): [string, string] {
  const at = label.indexOf("=");
  if (at < 0) {
    throw new TypeError(`--label ${label}: no = in it`);
  }
  return [label.slice(0, at), label.slice(at + 1)];
}

function jsonFile(path: string | undefined): JsonObject | undefined {
  return path === undefined ? undefined : JSON.parse(readFileSync(path, "utf8"));
}

async function main([name, ...rest]: string[]): Promise<number> {
  let command, options;
  try {
    command = COMMANDS[name as keyof typeof COMMANDS];
    if (command === undefined) {
      throw new TypeError("usage: create|get|list|watch|output|work|complete|limit --server HOST:PORT …");
    }
    options = parse(rest);
  } catch (error) {
    console.error((error as Error).message);
    return 2;
  }
  const client = connect(options.server);
  try {
    await command(client, options);
    return 0;
  } catch (error) {
    if (!isServiceError(error)) {
      throw error;
    }
    print(readError(error));
    return 1;
  } finally {
    client.close();
  }
}

process.exitCode = await main(process.argv.slice(2));
