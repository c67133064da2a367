package fleet

import (
	"fmt"
	"strings"

	"sluice/test/servers"
)

// Shard is one of the databases over which orders are spread.
type Shard struct {
	SQL  *servers.Database     // the one that was started as primary
	Pair *servers.DatabasePair // nil without a replica
}

// Primary is the server that takes writes at present.
func (s Shard) Primary() *servers.Database {
	if s.Pair != nil {
		return s.Pair.Primary
	}
	return s.SQL
}

// engines starts what the processes stand on.
func (f *Fleet) engines(t servers.TB) {
	t.Helper()
	options := fmt.Sprintf("buckets=%d", f.o.Buckets)
	if f.o.Cluster {
		f.Cluster = servers.Cluster(t)
		f.Stock = "redis://" + strings.Join(f.Cluster.Addrs(), ",") + "?cluster=true&" + options
	} else {
		f.Redis = servers.Redis(t)
		f.Stock = "redis://" + f.Redis.Addr + "?" + options
	}
	var urls []string
	for range f.o.Shards {
		var s Shard
		if f.o.Replica {
			s.Pair = servers.MariaDBPair(t)
			s.SQL = s.Pair.Primary
		} else {
			s.SQL = servers.MariaDB(t)
		}
		url := s.SQL.URL(servers.SQLDatabase)
		if f.o.Reads {
			url += "?replica=" + s.Pair.Replica.Addr
		}
		f.Shards, urls = append(f.Shards, s), append(urls, url)
	}
	f.SQL, f.Pair, f.Store = f.Shards[0].SQL, f.Shards[0].Pair, strings.Join(urls, ",")
	f.etcd(t)
	f.kafka(t)
}

func (f *Fleet) etcd(t servers.TB) {
	t.Helper()
	switch f.o.Etcd {
	case 0:
		return
	case 1:
		f.Etcd = &servers.EtcdCluster{Members: []*servers.Server{servers.Etcd(t)}}
	default:
		f.Etcd = servers.EtcdOfThree(t)
	}
	f.Lease = "etcd://" + strings.Join(f.Etcd.Addrs(), ",") + "/sluice"
}

func (f *Fleet) kafka(t servers.TB) {
	t.Helper()
	if f.o.Kafka == 0 {
		return
	}
	f.Kafka = servers.Kafka(t, f.o.Kafka)
	f.Bus = fmt.Sprintf("kafka://%s?replicas=%d", strings.Join(f.Kafka.Addrs(), ","), f.o.Kafka)
}
