package sandbox

import (
	"net/http"
	"testing"
	"time"

	"sluice/internal/payment"
)

// FuzzParse signs arbitrary bodies, so that the fuzzer gets past the
// signature: whatever Parse accepts must be within the contract's bounds.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"payment":"1-1","state":"paid","captures":[{"id":"c1","amount":{"amount":5,"currency":"CNY"}}]}`))
	f.Add([]byte(`{"payment":"1-1","state":"failed","captures":[]}`))
	f.Add([]byte(`{"payment":"1-1","state":"open","captures":null} x`))
	f.Add([]byte(``))
	client, err := NewClient("http://127.0.0.1:1", ClientOptions{Secret: secret})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		h := http.Header{}
		sign(h, secret, callbackPurpose, time.Now(), body)
		st, err := client.Parse(h.Get, body)
		if err != nil {
			return
		}
		if len(st.PaymentID) < 1 || len(st.PaymentID) > 96 || len(st.Captures) > payment.MaxCaptures {
			t.Errorf("accepted %s as %+v", body, st)
		}
		for _, c := range st.Captures {
			if c.Amount.Validate() != nil || c.Amount.Amount == 0 || len(c.ID) < 1 || len(c.ID) > 64 {
				t.Errorf("accepted capture %+v", c)
			}
		}
		h.Set(signatureHeader, "00"+h.Get(signatureHeader)[2:])
		if _, err := client.Parse(h.Get, append(body, ' ')); err == nil {
			t.Error("accepted a forged callback")
		}
	})
}
