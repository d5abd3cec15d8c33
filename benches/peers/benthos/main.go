// Delivers webhooks with Benthos, the engine of Redpanda Connect, and franz-go, the Kafka client that Redpanda Connect uses.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Signs the body in both ways. The delivery's id depends on the event and the webhook, so it is the same on every attempt.
const perWebhook = `
      - processors:
          - mapping: |
              let id = (content().string() + "/%[2]d").hash("md5").encode("hex")
              let timestamp = now().ts_unix().string()
              meta delivery = $id
              meta timestamp = $timestamp
              meta signature = content().hash("hmac_sha256", env("SECRET")).encode("hex")
              meta standard = ($id + "." + $timestamp + "." + content().string()).hash("hmac_sha256", env("SECRET")).encode("base64")
        http_client:
          url: http://%[1]s/%[2]d
          verb: POST
          timeout: 10s
          retries: 8
          max_in_flight: 50
          headers:
            content-type: application/json
            x-optio-event: task.completed
            x-optio-delivery: ${! @delivery }
            x-optio-attempt: "1"
            x-optio-signature: sha256=${! @signature }
            webhook-id: ${! @delivery }
            webhook-timestamp: ${! @timestamp }
            webhook-signature: v1,${! @standard }
`

func main() {
	webhooks, err := strconv.Atoi(os.Getenv("WEBHOOKS"))
	check(err)
	var outputs strings.Builder
	for webhook := range webhooks {
		fmt.Fprintf(&outputs, perWebhook, os.Getenv("RECEIVER"), webhook)
	}
	check(service.RegisterBatchInput("events", service.NewConfigSpec(), newEvents))
	builder := service.NewStreamBuilder()
	check(builder.SetYAML("input:\n  events: {}\noutput:\n  broker:\n    pattern: fan_out\n    outputs:" + outputs.String() +
		"logger:\n  level: WARN\n"))
	stream, err := builder.Build()
	check(err)
	check(stream.Run(context.Background()))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// events reads the topic as a member of a consumer group. The offset of a batch is marked when all of its messages are
// delivered, and the client commits marked offsets every few seconds. The input of Redpanda Connect also keeps batches
// that are delivered out of order from committing those before them, which this one doesn't.
type events struct {
	client *kgo.Client
}

func newEvents(*service.ParsedConfig, *service.Resources) (service.BatchInput, error) {
	return service.AutoRetryNacksBatched(&events{}), nil
}

func (e *events) Connect(context.Context) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA_BROKERS"), ",")...),
		kgo.ConsumerGroup(os.Getenv("GROUP")),
		kgo.ConsumeTopics(os.Getenv("TOPIC")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.AutoCommitMarks(),
	)
	e.client = client
	return err
}

func (e *events) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	fetches := e.client.PollRecords(ctx, 100)
	if err := fetches.Err(); err != nil {
		return nil, nil, err
	}
	var batch service.MessageBatch
	records := fetches.Records()
	for _, record := range records {
		batch = append(batch, service.NewMessage(record.Value))
	}
	delivered := func(_ context.Context, err error) error {
		if err == nil {
			e.client.MarkCommitRecords(records...)
		}
		return nil
	}
	return batch, delivered, nil
}

func (e *events) Close(context.Context) error {
	e.client.Close()
	return nil
}
