// Writes one task transition to task-events. In Optio, call `write` where `transitionTask` has changed the state of a
// task: in the same place that publishes `task:state_changed` to the browser.
//
//   npm ci --ignore-scripts && npm run build
//   KAFKA_BROKERS=127.0.0.1:9092 KAFKA_TOPIC=task-events node build/producer.js TASK_ID FROM_STATE TO_STATE

import { randomUUID } from "node:crypto";
import { Kafka, logLevel } from "kafkajs";

const topic = process.env.KAFKA_TOPIC ?? "task-events";
const kafka = new Kafka({ brokers: (process.env.KAFKA_BROKERS ?? "127.0.0.1:9092").split(","), logLevel: logLevel.ERROR });
// A retry of the client writes the record only once.
const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });

type Task = { id: string; title: string; state: string; taskType: string; repoUrl?: string; prUrl?: string };

type Transition = {
  type: "task:state_changed";
  id: string;
  taskId: string;
  fromState: string;
  toState: string;
  timestamp: string;
  task: Task;
};

export function transition(task: Task, fromState: string): Transition {
  return {
    type: "task:state_changed",
    // Store this id with the transition. Whoever writes the transition again writes the same id.
    id: randomUUID(),
    taskId: task.id,
    fromState,
    toState: task.state,
    timestamp: new Date().toISOString(),
    task,
  };
}

export async function write(message: Transition): Promise<void> {
  // The key is the task, so that its transitions stay in order. acks -1: all replicas have the record.
  await producer.send({ topic, acks: -1, messages: [{ key: message.taskId, value: JSON.stringify(message) }] });
}

const [id, fromState, state] = process.argv.slice(2);
await producer.connect();
try {
  await write(transition({ id, title: "Fix login redirect after checkout", state, taskType: "coding" }, fromState));
  console.log(`task ${id} is written`);
} finally {
  await producer.disconnect();
}
