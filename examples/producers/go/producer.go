// Writes one task transition to task-events.
//
//	KAFKA_BROKERS=127.0.0.1:9092 KAFKA_TOPIC=task-events go run . TASK_ID FROM_STATE TO_STATE
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type task struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Title    string `json:"title"`
	TaskType string `json:"taskType"`
}

type transition struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	TaskID    string `json:"taskId"`
	FromState string `json:"fromState"`
	ToState   string `json:"toState"`
	Timestamp string `json:"timestamp"`
	Task      task   `json:"task"`
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: producer TASK_ID FROM_STATE TO_STATE")
	}
	id, from, to := os.Args[1], os.Args[2], os.Args[3]
	topic := os.Getenv("KAFKA_TOPIC")
	if topic == "" {
		topic = "task-events"
	}
	// By default the client waits for all replicas, and its retries write a record only once.
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA_BROKERS"), ",")...))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	message, err := json.Marshal(transition{
		Type: "task:state_changed",
		// Store this id with the transition. Whoever writes the transition again writes the same id.
		ID: rand.Text(), TaskID: id, FromState: from, ToState: to,
		Timestamp: time.Now().UTC().Format(time.RFC3339Nano),
		Task:      task{ID: id, State: to, Title: "Fix login redirect after checkout", TaskType: "coding"},
	})
	if err != nil {
		log.Fatal(err)
	}
	// The key is the task, so that its transitions stay in order.
	record := &kgo.Record{Topic: topic, Key: []byte(id), Value: message}
	if err := client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("task %s is written\n", id)
}
