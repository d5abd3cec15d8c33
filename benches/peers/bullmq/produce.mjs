// Adds the deliveries of COUNT events to the queue, as fast as possible: node produce.mjs COUNT
import { randomUUID } from 'node:crypto';
import { Queue } from 'bullmq';

const { REDIS_URL, QUEUE } = process.env;
const webhooks = Number(process.env.WEBHOOKS);
const count = Number(process.argv[2]);

// One call of addBulk is one transaction, which should not hold up Redis for long.
const EVENTS_IN_A_CALL = Math.ceil(500 / webhooks);

// The title is the time in Unix microseconds, from which the receiver computes the latency.
function transition() {
  const task = randomUUID();
  const now = Date.now();
  return JSON.stringify({
    type: 'task:state_changed',
    id: randomUUID(),
    taskId: task,
    fromState: 'pr_opened',
    toState: 'completed',
    timestamp: new Date(now).toISOString(),
    task: {
      id: task,
      title: String(Math.round((performance.timeOrigin + performance.now()) * 1000)),
      state: 'completed',
      taskType: 'coding',
      repoUrl: 'https://github.com/acme/backend',
      prUrl: 'https://github.com/acme/backend/pull/142',
      prNumber: 142,
      agentType: 'claude-code',
      costUsd: '0.84',
      errorMessage: null,
      createdAt: new Date(now - 754_000).toISOString(),
      completedAt: new Date(now).toISOString(),
    },
  });
}

const queue = new Queue(QUEUE, {
  connection: { url: REDIS_URL },
  defaultJobOptions: { attempts: 8, backoff: { type: 'exponential', delay: 1000 }, removeOnComplete: true },
});

for (let left = count; left > 0; left -= EVENTS_IN_A_CALL) {
  const jobs = [];
  for (let event = 0; event < Math.min(left, EVENTS_IN_A_CALL); event++) {
    const body = transition();
    for (let webhook = 0; webhook < webhooks; webhook++) {
      jobs.push({ name: 'task.completed', data: { webhook, body }, opts: { jobId: randomUUID() } });
    }
  }
  await queue.addBulk(jobs);
}
await queue.close();
