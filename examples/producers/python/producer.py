"""Writes one task transition to task-events.

    pip install confluent-kafka
    KAFKA_BROKERS=127.0.0.1:9092 KAFKA_TOPIC=task-events python producer.py TASK_ID FROM_STATE TO_STATE
"""

import json
import os
import sys
import uuid
from datetime import datetime, timezone

from confluent_kafka import Producer

producer = Producer(
    {
        "bootstrap.servers": os.environ["KAFKA_BROKERS"],
        # All replicas have the record before it counts as written, and a retry of the client writes it only once.
        "acks": "all",
        "enable.idempotence": True,
    }
)


def transition(task_id: str, from_state: str, to_state: str) -> dict:
    return {
        "type": "task:state_changed",
        # Store this id with the transition. Whoever writes the transition again writes the same id.
        "id": str(uuid.uuid4()),
        "taskId": task_id,
        "fromState": from_state,
        "toState": to_state,
        "timestamp": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
        "task": {"id": task_id, "state": to_state, "title": "Fix login redirect after checkout", "taskType": "coding"},
    }


def write(message: dict) -> None:
    failures = []
    producer.produce(
        os.environ.get("KAFKA_TOPIC", "task-events"),
        # The key is the task, so that its transitions stay in order.
        key=message["taskId"],
        value=json.dumps(message),
        on_delivery=lambda error, _: failures.append(error) if error else None,
    )
    if producer.flush(30) > 0 or failures:
        raise RuntimeError(f"the transition is not written: {failures or 'no answer'}")


if __name__ == "__main__":
    task, before, after = sys.argv[1:4]
    write(transition(task, before, after))
    print(f"task {task} is written")
