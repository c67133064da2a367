package main

import (
	"bytes"
	"strconv"
)

// parseReply finds the status of an HTTP/1.1 reply and how many bytes it has,
// head included; 0 bytes while its head or its body is not all there. It is for
// replies that tell their length, as the server's do.
func parseReply(b []byte) (status, length int) {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 || len(b) < len("HTTP/1.1 200") {
		return 0, 0
	}
	status, err := strconv.Atoi(string(b[9:12]))
	if err != nil {
		return 0, 0
	}
	size := 0
	const field = "\r\nContent-Length: "
	if at := bytes.Index(b[:head], []byte(field)); at >= 0 {
		rest := b[at+len(field) : head]
		if end := bytes.IndexByte(rest, '\r'); end >= 0 {
			rest = rest[:end]
		}
		if size, err = strconv.Atoi(string(rest)); err != nil {
			return 0, 0
		}
	}
	if length = head + 4 + size; length > len(b) {
		return 0, 0
	}
	return status, length
}
