// Writes one task transition to task-events.
//
//   KAFKA_BROKERS=127.0.0.1:9092 KAFKA_TOPIC=task-events java -cp 'kafka-clients.jar:slf4j-api.jar' Producer.java TASK_ID FROM_STATE TO_STATE
import java.time.Instant;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class Producer {
    public static void main(String[] arguments) throws Exception {
        String task = arguments[0];
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", System.getenv("KAFKA_BROKERS"),
            // All replicas have the record before it counts as written, and a retry of the client writes it only once.
            "acks", "all",
            "enable.idempotence", true);
        String topic = System.getenv().getOrDefault("KAFKA_TOPIC", "task-events");
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            // The key is the task, so that its transitions stay in order. `get` waits until the record is written.
            producer.send(new ProducerRecord<>(topic, task, transition(task, arguments[1], arguments[2]))).get();
        }
        System.out.println("task " + task + " is written");
    }

    /** A message. A real program writes it with its JSON library, which escapes the texts. */
    static String transition(String task, String from, String to) {
        return """
            {"type": "task:state_changed", "id": "%s", "taskId": "%s", "fromState": "%s", "toState": "%s",
             "timestamp": "%s", "task": {"id": "%s", "state": "%s", "title": "Fix login redirect", "taskType": "coding"}}
            """.formatted(
                // Store this id with the transition. Whoever writes the transition again writes the same id.
                UUID.randomUUID(), task, from, to, Instant.now(), task, to);
    }
}
