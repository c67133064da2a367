package kafkabus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// place is what an address says.
type place struct {
	brokers        []string
	user, password string
	tls            bool
	topic          string
	partitions     int32
	replicas       int16
	insync         int
}

const (
	minReplicas = 3
	minInsync   = 2
	openWithin  = 20 * time.Second
)

// Brokers are the brokers, as host:port, of an address that Open takes. No error
// quotes what may be a password.
func Brokers(address string) ([]string, error) {
	p, err := parse(address)
	return p.brokers, err
}

// parse reads
//
//	kafka://user:password@h1:9092,h2:9092?topic=sluice.events&partitions=12&replicas=3&tls=true
//
// User and password, percent-encoded, are for SCRAM-SHA-512 and may be left out.
// partitions and replicas are of a topic that Open has to make. replicas=1 says
// that one broker is meant, and losing what it has with its disk is accepted:
// for tests and trials.
func parse(address string) (p place, err error) {
	bad := func(why string) (place, error) {
		return place{}, fmt.Errorf("%w: %s; it reads kafka://host:9092,host:9092?topic=sluice.events", ErrAddress, why)
	}
	rest, ok := strings.CutPrefix(address, "kafka://")
	if !ok {
		return bad("it does not begin with kafka://")
	}
	p = place{topic: "sluice.events", partitions: 12, replicas: minReplicas, insync: minInsync}
	// All before the last @ may be a password: it is taken away before anything
	// else is looked at, and quoted.
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		rest = rest[at+1:]
		var errs [2]error
		p.user, errs[0] = url.PathUnescape(user)
		p.password, errs[1] = url.PathUnescape(password)
		if errors.Join(errs[:]...) != nil || p.user == "" || p.password == "" || strings.ContainsAny(user+password, "/?") {
			return bad("before the @ stand user:password, percent-encoded")
		}
	}
	hosts, query, _ := strings.Cut(rest, "?")
	p.brokers = strings.Split(strings.TrimSuffix(hosts, "/"), ",")
	for _, b := range p.brokers {
		if host, port, ok := strings.Cut(b, ":"); !ok || host == "" || port == "" || strings.Contains(b, "/") {
			return bad(fmt.Sprintf("%q is not host:port", b))
		}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return bad(err.Error())
	}
	for name, v := range values {
		n, numeric := strconv.Atoi(v[0])
		switch {
		case name == "topic" && v[0] != "":
			p.topic = v[0]
		case name == "partitions" && numeric == nil && n >= 1 && n <= 1000:
			p.partitions = int32(n)
		case name == "replicas" && numeric == nil && (n == 1 || n >= minReplicas && n <= 100):
			p.replicas = int16(n)
		case name == "tls" && (v[0] == "true" || v[0] == "false"):
			p.tls = v[0] == "true"
		default:
			return bad(fmt.Sprintf("%s=%s", name, v[0]))
		}
	}
	if p.replicas == 1 {
		p.insync = 1
	}
	return p, nil
}

// secured is how to speak to the brokers. They are who their certificates say, to
// the authorities that this machine trusts (SSL_CERT_FILE names others).
func (p place) secured() (how []kgo.Opt) {
	if p.tls {
		how = append(how, kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	if p.user != "" {
		how = append(how, kgo.SASL(scram.Auth{User: p.user, Pass: p.password}.AsSha512Mechanism()))
	}
	return how
}
