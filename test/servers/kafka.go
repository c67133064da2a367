package servers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	kafkaVersion = "4.1.1" // of kafka/pom.xml
	kafkaConf    = "server.properties"
	kafkaWithin  = 40 * time.Second // until a cluster is whole: each broker is a Java process
)

// kafkaFrame is the configuration but for a broker's place and the test's own
// lines, of which the last one of a name counts. Each broker is a controller
// too. Topics are made by those who need them, a group does not wait for more
// members before its first round, and a dead broker is noticed in 6 s.
const kafkaFrame = `process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
listeners=PLAINTEXT://%[3]s,CONTROLLER://%[4]s
advertised.listeners=PLAINTEXT://%[3]s
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=%[5]s
offsets.topic.num.partitions=4
offsets.topic.replication.factor=%[6]d
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=%[6]d
transaction.state.log.min.isr=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=6000
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
num.network.threads=1
num.io.threads=4
log.cleaner.dedupe.buffer.size=2097152
%[7]s
`

// KafkaCluster is one Kafka broker or several, each of them a controller too.
type KafkaCluster struct {
	Brokers []*Server
}

// Kafka starts n (1 or 3) brokers in KRaft mode and waits until they know each
// other. It needs Java and what the install script has fetched. A Config line
// is one of server.properties. A broker is a Java process of some 300 MB that
// takes seconds to start: few tests should have one of their own.
func Kafka(t TB, n int, opts ...Option) *KafkaCluster {
	t.Helper()
	java, jars := Find(t, "java"), kafkaJars(t)
	o := gather(opts)
	voters, controllers := make([]string, n), make([]string, n)
	for i := range n {
		addr, err := freeAddr()
		if err != nil {
			t.Fatalf("servers: %v", err)
		}
		controllers[i], voters[i] = addr, fmt.Sprintf("%d@%s", i+1, addr)
	}
	id := kafkaID()
	c := &KafkaCluster{}
	for i := range n {
		c.Brokers = append(c.Brokers, Start(t, Program{
			Name: "kafka",
			Path: java,
			Keep: []string{kafkaConf},
			Args: func(addr, dir string) ([]string, error) {
				text := fmt.Sprintf(kafkaFrame, i+1, strings.Join(voters, ","), addr, controllers[i],
					filepath.Join(dir, "data"), n, strings.Join(o.config, "\n"))
				file := filepath.Join(dir, kafkaConf)
				return append(javaArgs(jars), "kafka.Kafka", file), os.WriteFile(file, []byte(text), 0o600)
			},
			Prepare: func(dir string) error { return kafkaFormat(java, jars, id, dir) },
			// That it runs. It cannot serve before the others do: see Await.
			Ready: func(ctx context.Context, _ string) error {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", controllers[i])
				if err != nil {
					return err
				}
				return conn.Close()
			},
		}, opts...))
	}
	// Before they are asked to stop one by one: the last ones would wait for the
	// others, to hand over to them.
	t.Cleanup(func() {
		for _, b := range c.Brokers {
			b.Kill()
		}
	})
	if err := c.Await(); err != nil {
		t.Fatalf("servers: %v", err)
	}
	return c
}

// javaArgs keep a broker small and its start short: nothing here runs for long
// enough to be worth the better compiler.
func javaArgs(jars string) []string {
	return []string{"-Xmx256m", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dlog4j2.level=WARN", "-cp", filepath.Join(jars, "*")}
}

// kafkaJars is the directory that the install script fills.
func kafkaJars(t TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "sluice", "kafka-"+kafkaVersion)
	if _, err := os.Stat(filepath.Join(dir, "kafka_2.13-"+kafkaVersion+".jar")); err != nil {
		Missing(t, "kafka "+kafkaVersion)
	}
	return dir
}

// kafkaID is a cluster's id: 16 random bytes in the alphabet of URLs. One that
// begins with a dash would be taken for a flag.
func kafkaID() string {
	var raw [16]byte
	rand.Read(raw[:]) //nolint:errcheck // never fails
	raw[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

func kafkaFormat(java, jars, id, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "data", "meta.properties")); err == nil {
		return nil
	}
	cmd := exec.Command(java, append(javaArgs(jars), "kafka.tools.StorageTool", "format", "-t", id,
		"-c", filepath.Join(dir, kafkaConf))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format: %w: %s", err, out)
	}
	return nil
}

// Addrs are the addresses of all brokers.
func (c *KafkaCluster) Addrs() (list []string) {
	for _, b := range c.Brokers {
		list = append(list, b.Addr)
	}
	return list
}

// Await waits until every broker that is neither paused nor ended serves, and
// knows all the others of them.
func (c *KafkaCluster) Await() error {
	ctx, cancel := context.WithTimeout(context.Background(), kafkaWithin)
	defer cancel()
	up := 0
	for _, b := range c.Brokers {
		if !b.mute() {
			up++
		}
	}
	for _, b := range c.Brokers {
		if b.mute() {
			continue
		}
		if err := poll(ctx, b.Exited(), func(ctx context.Context) error { return kafkaKnows(ctx, b.Addr, up) }); err != nil {
			return fmt.Errorf("kafka at %s: %w; it said:\n%s", b.Addr, err, b.Log())
		}
	}
	return nil
}

// kafkaKnows answers nil if a broker knows of at least n that serve.
func kafkaKnows(ctx context.Context, addr string, n int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.DialTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{} // of none
	reply, err := client.SeedBrokers()[0].Request(ctx, request)
	if err != nil {
		return err
	}
	if brokers := reply.(*kmsg.MetadataResponse).Brokers; len(brokers) < n {
		return fmt.Errorf("it knows %d brokers of %d", len(brokers), n)
	}
	return nil
}

// Leader is the broker that leads a partition by the account of those that
// run.
func (c *KafkaCluster) Leader(topic string, partition int32) (*Server, error) {
	var errs []error
	for _, b := range c.Brokers {
		if b.mute() {
			continue
		}
		leader, err := c.leader(b, topic, partition)
		if err == nil {
			return leader, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (c *KafkaCluster) leader(asked *Server, topic string, partition int32) (*Server, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(asked.Addr))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	wanted := kmsg.NewMetadataRequestTopic()
	wanted.Topic = &topic
	request.Topics = append(request.Topics, wanted)
	reply, err := client.SeedBrokers()[0].Request(ctx, request)
	if err != nil {
		return nil, err
	}
	for _, t := range reply.(*kmsg.MetadataResponse).Topics {
		for _, p := range t.Partitions {
			if p.Partition == partition && p.Leader >= 1 && int(p.Leader) <= len(c.Brokers) {
				return c.Brokers[p.Leader-1], nil
			}
		}
	}
	return nil, fmt.Errorf("%s knows no leader of %s/%d", asked.Addr, topic, partition)
}
