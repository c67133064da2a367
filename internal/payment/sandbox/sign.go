package sandbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"time"
)

// A signature is the HMAC-SHA256 of purpose, time and body, a line each. The
// purpose ("POST /v1/payments", "callback") keeps a message that was signed
// for one use from being sent for another; the time bounds its replay.
const (
	timestampHeader = "Sandbox-Timestamp" // Unix ms
	signatureHeader = "Sandbox-Signature" // hex
	callbackPurpose = "callback"
	maxAge          = 5 * time.Minute
)

func digest(secret []byte, purpose, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	_, _ = io.WriteString(mac, purpose+"\n"+timestamp+"\n")
	mac.Write(body)
	return mac.Sum(nil)
}

func sign(h http.Header, secret []byte, purpose string, now time.Time, body []byte) {
	timestamp := strconv.FormatInt(now.UnixMilli(), 10)
	h.Set(timestampHeader, timestamp)
	h.Set(signatureHeader, hex.EncodeToString(digest(secret, purpose, timestamp, body)))
}

// genuine checks a signature in constant time, and that it is at most 5 min
// away from now on either side.
func genuine(header func(string) string, secret []byte, purpose string, now time.Time, body []byte) bool {
	timestamp := header(timestampHeader)
	signature, err := hex.DecodeString(header(signatureHeader))
	if err != nil || len(timestamp) > 20 || !hmac.Equal(signature, digest(secret, purpose, timestamp, body)) {
		return false
	}
	ms, err := strconv.ParseInt(timestamp, 10, 64)
	return err == nil && now.Sub(time.UnixMilli(ms)).Abs() <= maxAge
}
