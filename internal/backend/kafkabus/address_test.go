package kafkabus

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"sluice/internal/lib/outbox"
)

// Brokers that ask for a name and are known by a certificate are spoken to, and
// only so.
func TestSecurity(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	certified.Close()
	trusted := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw}), 0o600))
	t.Setenv("SSL_CERT_FILE", trusted) // read once a process: no other test here needs another
	plain, named := "shop:p%40ss%3Aw%2Frd@", kfake.Superuser("SCRAM-SHA-512", "shop", "p@ss:w/rd")
	_, open := fake(t)
	_, guarded := fake(t, kfake.EnableSASL(), named)
	_, sealed := fake(t, kfake.EnableSASL(), named, kfake.TLS(certified.TLS))
	f := func(address, user, query string, want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		b, err := Open(ctx, "kafka://"+user+strings.TrimPrefix(address, "kafka://")+query, Options{})
		if err == nil {
			b.Close()
		}
		if (err == nil) != want || err != nil && strings.Contains(err.Error(), "p@ss") {
			t.Errorf("%s%s%s: %v", user, address, query, err)
		}
	}
	f(open, "", "", true)
	f(guarded, plain, "", true)
	f(guarded, "", "", false)
	f(guarded, "shop:wrong@", "", false)
	f(sealed, plain, "?tls=true", true)
	f(sealed, plain, "", false)
	f(guarded, plain, "?tls=true", false)
}

// Brokers that are not there are waited for, by those who want to.
func TestAway(t *testing.T) {
	if _, err := Open(t.Context(), "kafka://127.0.0.1:1", Options{}); !errors.Is(err, outbox.ErrAway) {
		t.Error(err)
	}
	_, address := fake(t, kfake.NumBrokers(1))
	if _, err := Open(t.Context(), address, Options{}); !errors.Is(err, ErrUnsafe) || errors.Is(err, outbox.ErrAway) {
		t.Error(err)
	}
}

// No error quotes what may be a password, and each says what is wrong.
func TestAddresses(t *testing.T) {
	f := func(address string, want ...string) {
		t.Helper()
		got, err := Brokers(address)
		if want == nil && (!errors.Is(err, ErrAddress) || strings.Contains(err.Error(), "sec")) || want != nil && err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", address, got, err)
		}
	}
	f("kafka://a:1", "a:1")
	f("kafka://a:1,b:2/?topic=x&partitions=3&replicas=1&tls=true", "a:1", "b:2")
	f("kafka://u:secret%40@a:1,b:2", "a:1", "b:2")
	for _, bad := range []string{
		"redis://a:1", "kafka://", "kafka://a", "kafka://a:1?replicas=2", "kafka://a:1?tls=maybe", "kafka://a:1?who=x", "kafka://a:1?topic=%zz",
		"kafka://u:sec/ret@a:1", "kafka://u:sec?ret@a:1", "kafka://u:secret@a", "kafka://u:secret%zz@a:1", "kafka://u@a:1", "kafka://u:sec@ret:secret@a?x=1",
	} {
		f(bad)
	}
}
