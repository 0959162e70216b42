// The lifecycle on BullMQ: `node lifecycle.mjs worker|owners PORT LIFECYCLE`, the last as JSON.
import { createInterface } from 'node:readline';
import { randomUUID } from 'node:crypto';
import { Queue, QueueEvents, Worker } from 'bullmq';

const [role, port, lifecycle] = process.argv.slice(2);
const { inFlight, percents, parameters } = JSON.parse(lifecycle);
const connection = { host: '127.0.0.1', port: Number(port) };
const now = () => Number(process.hrtime.bigint()) / 1e9;

function work() {
  const handler = async (job) => {
    for (const percent of percents) {
      await job.updateProgress({ percent, message: `step ${percent}` });
    }
    const url = `https://assets.example/${job.id}.png`;
    await job.updateData({ ...job.data, assets: [{ type: 'image/png', url, size: 1234567 }] });
    return { images: 1, completed: now() };
  };
  const worker = new Worker('render', handler, { connection, concurrency: inFlight });
  worker.on('error', fail);
  worker.on('failed', (_job, error) => fail(error));
}

async function own() {
  const queue = new Queue('render', { connection });
  const events = new QueueEvents('render', { connection });
  await events.waitUntilReady();
  const observed = new Map();
  events.on('progress', ({ jobId, data }) => observed.get(jobId).seen.add(data.percent));
  events.on('completed', ({ jobId, returnvalue }) => {
    const { seen, resolve } = observed.get(jobId);
    observed.delete(jobId);
    resolve([returnvalue.completed, now(), seen.size]);
  });
  events.on('failed', ({ failedReason }) => fail(failedReason));
  const live = async () => {
    const jobId = randomUUID();
    const life = new Promise((resolve) => observed.set(jobId, { seen: new Set(), resolve }));
    await queue.add('render', parameters, { jobId });
    return life;
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const lives = [];
    let left = JSON.parse(line).jobs;
    const owner = async () => {
      while (left-- > 0) lives.push(await live());
    };
    await Promise.all(Array.from({ length: inFlight }, owner));
    console.log(JSON.stringify({ lives }));
  }
  process.exit();
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

await { worker: work, owners: own }[role]();
