import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.RecordContext;
import io.confluent.parallelconsumer.vertx.VertxParallelEoSStreamProcessor;
import io.vertx.core.Future;
import io.vertx.core.Vertx;
import io.vertx.core.buffer.Buffer;
import io.vertx.ext.web.client.HttpResponse;
import io.vertx.ext.web.client.WebClient;
import io.vertx.ext.web.client.WebClientOptions;
import io.vertx.ext.web.client.predicate.ResponsePredicate;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.stream.IntStream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Delivers webhooks with Confluent's Parallel Consumer. Its engine for Vert.x needs no thread for each request. */
public final class Worker {
    private static final int EVENTS_IN_FLIGHT = 50;
    private static final long TIMEOUT_MS = 10_000;

    private final int webhooks = Integer.parseInt(System.getenv("WEBHOOKS"));
    private final SecretKeySpec key =
        new SecretKeySpec(System.getenv("SECRET").getBytes(StandardCharsets.UTF_8), "HmacSHA256");
    private final Vertx vertx = Vertx.vertx();
    private final WebClient client;

    private Worker() {
        URI receiver = URI.create("http://" + System.getenv("RECEIVER"));
        client = WebClient.create(vertx, new WebClientOptions()
            .setDefaultHost(receiver.getHost())
            .setDefaultPort(receiver.getPort())
            // All endpoints are on one host. With fewer connections, requests would wait for one another.
            .setMaxPoolSize(EVENTS_IN_FLIGHT * webhooks));
    }

    public static void main(String[] arguments) {
        new Worker().run();
    }

    private void run() {
        // The key of a record is its task, so transitions of one task stay in order, and different tasks don't wait
        // for each other. It is read as text, since arrays of bytes don't compare by their content.
        var consumer = new KafkaConsumer<>(
            Map.of(
                "bootstrap.servers", System.getenv("KAFKA_BROKERS"),
                "group.id", System.getenv("GROUP"),
                "auto.offset.reset", "earliest",
                // The Parallel Consumer commits.
                "enable.auto.commit", "false"),
            new StringDeserializer(),
            new ByteArrayDeserializer());
        var options = ParallelConsumerOptions.<String, byte[]>builder()
            .consumer(consumer)
            .ordering(ProcessingOrder.KEY)
            .maxConcurrency(EVENTS_IN_FLIGHT)
            .retryDelayProvider(Worker::backoff)
            .build();
        var processor = new VertxParallelEoSStreamProcessor<String, byte[]>(vertx, client, options);
        // Commits what was delivered, so that the next worker doesn't repeat it.
        Runtime.getRuntime().addShutdownHook(new Thread(processor::close));
        processor.subscribe(List.of(System.getenv("TOPIC")));
        processor.vertxFuture(context -> deliver(context.getSingleRecord()));
    }

    /** A second, which doubles with each failed attempt up to about a minute. */
    private static Duration backoff(RecordContext<String, byte[]> event) {
        return Duration.ofSeconds(1L << Math.min(event.getNumberOfFailedAttempts() - 1, 6));
    }

    /**
     * Sends an event to all webhooks. If one fails, the Parallel Consumer retries the event for all of them, so this
     * waits for the others too: a retry never overlaps with the attempt before it.
     */
    private Future<?> deliver(RecordContext<String, byte[]> event) {
        return Future.join(IntStream.range(0, webhooks).mapToObj(webhook -> post(event, webhook)).toList());
    }

    private Future<HttpResponse<Buffer>> post(RecordContext<String, byte[]> event, int webhook) {
        byte[] body = event.value();
        String id = deliveryId(event, webhook);
        String timestamp = Long.toString(Instant.now().getEpochSecond());
        byte[] signedPrefix = (id + "." + timestamp + ".").getBytes(StandardCharsets.US_ASCII);
        return client.post("/" + webhook)
            .timeout(TIMEOUT_MS)
            .expect(ResponsePredicate.SC_SUCCESS)
            .putHeader("content-type", "application/json")
            .putHeader("x-optio-event", "task.completed")
            .putHeader("x-optio-delivery", id)
            .putHeader("x-optio-attempt", Integer.toString(event.getNumberOfFailedAttempts() + 1))
            .putHeader("x-optio-signature", "sha256=" + HexFormat.of().formatHex(hmac(body)))
            .putHeader("webhook-id", id)
            .putHeader("webhook-timestamp", timestamp)
            .putHeader("webhook-signature", "v1," + Base64.getEncoder().encodeToString(hmac(signedPrefix, body)))
            .sendBuffer(Buffer.buffer(body));
    }

    /** The same on every attempt, also after a restart, so that the receiver can recognize a repetition. */
    private static String deliveryId(RecordContext<String, byte[]> event, int webhook) {
        String name = event.topic() + "/" + event.partition() + "/" + event.offset() + "/" + webhook;
        return UUID.nameUUIDFromBytes(name.getBytes(StandardCharsets.UTF_8)).toString();
    }

    private byte[] hmac(byte[]... parts) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(key);
            for (byte[] part : parts) {
                mac.update(part);
            }
            return mac.doFinal();
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException("every Java platform has HmacSHA256", impossible);
        }
    }
}
