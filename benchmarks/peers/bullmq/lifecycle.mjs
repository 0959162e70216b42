// The lifecycle on BullMQ: `node lifecycle.mjs worker|owners URL LIFECYCLE`, the last as JSON.
import { createInterface } from 'node:readline';
import { randomUUID } from 'node:crypto';
import { createPostgresBackend, Queue, QueueEvents, setDefaultBackendFactory, Worker } from 'bullmq';

const [role, url, lifecycle] = process.argv.slice(2);
const { inFlight, percents, parameters } = JSON.parse(lifecycle);
const { protocol, hostname: host, port } = new URL(url);
const isPostgres = protocol === 'postgresql:';
// A pool as large as the concurrency, as BullMQ's guide to PostgreSQL says.
const connection = isPostgres
  ? { connectionString: url, max: inFlight, migrate: true }
  : { host, port: Number(port) };
if (isPostgres) setDefaultBackendFactory(createPostgresBackend);
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
  // From the first event on. By default it misses those before its first read, which may come after
  // it is ready.
  const events = new QueueEvents('render', { connection, lastEventId: '0' });
  await events.waitUntilReady();
  const observed = new Map();
  events.on('progress', ({ jobId, data }) => observed.get(jobId)?.seen.add(data.percent));
  const end = (jobId, { completed }) => {
    const life = observed.get(jobId);
    if (observed.delete(jobId)) life.resolve([completed, now(), life.seen.size]);
  };
  events.on('completed', ({ jobId, returnvalue }) => end(jobId, returnvalue));
  events.on('failed', ({ failedReason }) => fail(failedReason));
  const live = async () => {
    const jobId = randomUUID();
    const life = new Promise((resolve) => observed.set(jobId, { seen: new Set(), resolve }));
    await queue.add('render', parameters, { jobId });
    // Events get lost on PostgreSQL: one that commits after a later one is never read.
    const asking = setInterval(async () => {
      const { finishedOn, returnvalue } = await queue.getJob(jobId);
      if (finishedOn) end(jobId, returnvalue);
    }, 1000);
    return life.finally(() => clearInterval(asking));
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
