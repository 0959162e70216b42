#!/usr/bin/env node
// A worker in JavaScript, with nothing but Node: counts the words of a text.
//
//   jobledger worker exec wordcount -- node examples/workers/wordcount.mjs
//   jobledger create wordcount --user ada --parameters '{"text": "to be or not to be"}'
//
// The job comes on stdin; each line on stdout is progress, an asset or the
// result; the exit code says how it went. docs/guides/worker-programs.md is the protocol.

import { readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const job = JSON.parse(readFileSync(0, "utf8"));
const text = job.parameters.text;
if (typeof text !== "string") {
  console.error("parameters.text: a string is needed");
  process.exit(2); // FAILED / EXIT_2, with that line as the message
}

const words = text.toLowerCase().match(/\p{L}+/gu) ?? [];
const counts = {};
for (const [index, word] of words.entries()) {
  counts[word] = (counts[word] ?? 0) + 1;
  say({ progress: Math.floor(((index + 1) * 100) / words.length), message: word });
}

const file = join(tmpdir(), `wordcount-${job.id}.json`);
const table = JSON.stringify(counts);
writeFileSync(file, table);
say({
  asset: {
    asset_type: "application/json",
    storage_path: file,
    file_size: Buffer.byteLength(table),
  },
});
say({ words: words.length, different: Object.keys(counts).length });
