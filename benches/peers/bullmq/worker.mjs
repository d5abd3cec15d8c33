// Delivers webhooks with BullMQ. A job is one delivery: the body of an event, and the webhook that gets it.
import { createHmac } from 'node:crypto';
import { Worker } from 'bullmq';
import { Pool } from 'undici';

const { REDIS_URL, QUEUE, RECEIVER, SECRET } = process.env;
const concurrency = 50 * Number(process.env.WEBHOOKS);

// All endpoints are on one host, so one pool of kept connections serves every job that runs at the same time.
const receiver = new Pool(`http://${RECEIVER}`, {
  connections: concurrency,
  headersTimeout: 10_000,
  bodyTimeout: 10_000,
});

const hmac = (text, encoding) => createHmac('sha256', SECRET).update(text).digest(encoding);

async function deliver(job) {
  const { webhook, body } = job.data;
  const timestamp = Math.floor(Date.now() / 1000);
  const response = await receiver.request({
    method: 'POST',
    path: `/${webhook}`,
    headers: {
      'content-type': 'application/json',
      'x-optio-event': 'task.completed',
      // The id of the job stays the same when it is retried, so the receiver can recognize a repetition.
      'x-optio-delivery': job.id,
      'x-optio-attempt': String(job.attemptsMade + 1),
      'x-optio-signature': `sha256=${hmac(body, 'hex')}`,
      'webhook-id': job.id,
      'webhook-timestamp': String(timestamp),
      'webhook-signature': `v1,${hmac(`${job.id}.${timestamp}.${body}`, 'base64')}`,
    },
    body,
  });
  // A connection can be used again only after the answer was read to its end.
  await response.body.dump();
  if (response.statusCode < 200 || response.statusCode > 299) {
    // BullMQ retries a job that throws, with the attempts and the backoff that its producer chose.
    throw new Error(`the endpoint answered ${response.statusCode}`);
  }
}

const worker = new Worker(QUEUE, deliver, { connection: { url: REDIS_URL }, concurrency });
worker.on('failed', (job, error) => console.error(`delivery ${job?.id} failed: ${error.message}`));
// Without a listener, an error of the connection to Redis would end the process.
worker.on('error', (error) => console.error(error));
