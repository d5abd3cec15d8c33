package peers;

import java.math.BigInteger;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.HexFormat;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.stream.IntStream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.BackOff;
import org.springframework.kafka.annotation.DltHandler;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.annotation.RetryableTopic;
import org.springframework.kafka.retrytopic.RetryTopicConfigurationSupport;
import org.springframework.kafka.retrytopic.RetryTopicHeaders;
import org.springframework.scheduling.TaskScheduler;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;
import org.springframework.stereotype.Component;

/** Delivers webhooks with Spring for Apache Kafka and its retry topics. */
@SpringBootApplication
public class Worker {
    public static void main(String[] arguments) {
        SpringApplication.run(Worker.class, arguments);
    }

    @Configuration
    static class Retries extends RetryTopicConfigurationSupport {
        /**
         * By default, a consumer seeks after each failure and fetches the rest of its records again, which takes up to
         * fetch.max.wait.ms (500 ms) for each event of a failing endpoint. This way it keeps them.
         */
        @Override
        protected void configureCustomizers(CustomizersConfigurer customizers) {
            customizers.customizeErrorHandler(handler -> handler.setSeekAfterError(false));
        }

        /** Wakes up the consumers of the retry topics when the next event is due. */
        @Bean
        TaskScheduler scheduler() {
            return new ThreadPoolTaskScheduler();
        }
    }

    @Component
    static class Webhooks {
        private static final Logger LOG = LoggerFactory.getLogger(Webhooks.class);
        private static final Duration TIMEOUT = Duration.ofSeconds(10);

        // HTTP/1.1 from the start, without an offer to upgrade. The client keeps its connections by itself.
        private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        private final String receiver;
        private final int webhooks;
        private final SecretKeySpec key;

        Webhooks(
                @Value("${RECEIVER}") String receiver,
                @Value("${WEBHOOKS}") int webhooks,
                @Value("${SECRET}") String secret) {
            this.receiver = receiver;
            this.webhooks = webhooks;
            this.key = new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256");
        }

        /**
         * Sends an event to all webhooks and waits for them. An exception moves the event to the next retry topic, from
         * where it goes to all webhooks again. Each retry topic has one consumer, since few events are retried.
         */
        @RetryableTopic(
            attempts = "8",
            backOff = @BackOff(delay = 1_000, multiplier = 2, maxDelay = 60_000),
            numPartitions = "8",
            concurrency = "1")
        @KafkaListener(topics = "${TOPIC}", concurrency = "8")
        void deliver(ConsumerRecord<String, byte[]> event) {
            UUID eventId = UUID.nameUUIDFromBytes(event.value());
            int attempt = attempt(event);
            CompletableFuture.allOf(IntStream.range(0, webhooks)
                .mapToObj(webhook -> post(event.value(), webhook, deliveryId(eventId, webhook), attempt))
                .toArray(CompletableFuture[]::new)).join();
        }

        @DltHandler
        void giveUp(ConsumerRecord<String, byte[]> event) {
            LOG.error("gave up the event of task {}; it stays in {}", event.key(), event.topic());
        }

        private CompletableFuture<Void> post(byte[] body, int webhook, String id, int attempt) {
            String timestamp = Long.toString(Instant.now().getEpochSecond());
            byte[] signedPrefix = (id + "." + timestamp + ".").getBytes(StandardCharsets.US_ASCII);
            var request = HttpRequest.newBuilder(URI.create("http://" + receiver + "/" + webhook))
                .timeout(TIMEOUT)
                .header("content-type", "application/json")
                .header("x-optio-event", "task.completed")
                .header("x-optio-delivery", id)
                .header("x-optio-attempt", Integer.toString(attempt))
                .header("x-optio-signature", "sha256=" + HexFormat.of().formatHex(hmac(body)))
                .header("webhook-id", id)
                .header("webhook-timestamp", timestamp)
                .header("webhook-signature", "v1," + Base64.getEncoder().encodeToString(hmac(signedPrefix, body)))
                .POST(BodyPublishers.ofByteArray(body))
                .build();
            return client.sendAsync(request, BodyHandlers.discarding()).thenAccept(response -> {
                if (response.statusCode() / 100 != 2) {
                    throw new IllegalStateException("webhook " + webhook + " answered " + response.statusCode());
                }
            });
        }

        /**
         * The same on every attempt, so that the receiver can recognize a repetition. It depends on the body, which
         * has an id of its own, and not on the offset, which is another one in each retry topic.
         */
        private static String deliveryId(UUID eventId, int webhook) {
            return UUID.nameUUIDFromBytes((eventId + "/" + webhook).getBytes(StandardCharsets.US_ASCII)).toString();
        }

        /** Spring counts the attempts in a header, which a record of the first topic doesn't have yet. */
        private static int attempt(ConsumerRecord<String, byte[]> event) {
            var attempts = event.headers().lastHeader(RetryTopicHeaders.DEFAULT_HEADER_ATTEMPTS);
            return attempts == null ? 1 : new BigInteger(attempts.value()).intValue();
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
}
