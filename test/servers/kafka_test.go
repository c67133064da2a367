package servers

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A broker that is killed and started again has what it had acknowledged.
func TestKafka(t *testing.T) {
	c := Kafka(t, 1, Config("auto.create.topics.enable=true"), Config("default.replication.factor=1"))
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.AllowAutoTopicCreation(), kgo.MetadataMinAge(100*time.Millisecond), kgo.ConsumeTopics("words"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "words", Value: []byte("kept")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	leader, err := c.Leader("words", 0)
	if err != nil || leader != c.Brokers[0] {
		t.Fatalf("leader %v, %v", leader, err)
	}
	c.Brokers[0].Kill()
	if err := c.Brokers[0].Restart(); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) == 0 && t.Context().Err() == nil {
		client.PollFetches(t.Context()).EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	if got[0] != "kept" {
		t.Errorf("read %q", got)
	}
}
