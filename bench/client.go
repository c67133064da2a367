package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// patience bounds every wait for a single answer outside of the measurements.
const patience = 10 * time.Second

var client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// reply is an answer as it came.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// call sends one request, body as JSON unless it is nil.
func call(ctx context.Context, method, url string, header map[string]string, body any) (reply, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return reply{}, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return reply{}, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	got, err := client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	return reply{got.StatusCode, got.Header, text}, err
}

// attempt sends one purchase of one unit and answers the reply and its code:
// "held" where it was accepted, else the problem's.
func attempt(ctx context.Context, addr, path, token, key string) (reply, string, error) {
	r, err := call(ctx, http.MethodPost, "http://"+addr+path,
		map[string]string{"Authorization": "Bearer " + token, "Idempotency-Key": key},
		map[string]any{"sku": "bench-sku", "quantity": 1})
	if err != nil {
		return r, "", err
	}
	var answer struct{ State, Code string }
	if err := json.Unmarshal(r.body, &answer); err != nil {
		return r, "", fmt.Errorf("status %d: %w: %s", r.status, err, r.body)
	}
	if r.status == http.StatusAccepted {
		return r, answer.State, nil
	}
	return r, answer.Code, nil
}

// answersAgain waits until a resumed server takes connections and answers.
func answersAgain(ctx context.Context, addr string) error {
	_, err := call(ctx, http.MethodGet, "http://"+addr+"/v1/time", nil, nil)
	return err
}

// redisDo sends one command and answers the text of a simple, bulk or integer reply.
func redisDo(addr string, args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	command := fmt.Sprintf("*%d\r\n", len(args))
	for _, a := range args {
		command += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(conn, command); err != nil {
		return "", err
	}
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = line[:len(line)-2]
	switch line[0] {
	case '-':
		return "", fmt.Errorf("redis: %s: %s", args[0], line[1:])
	case '$':
		line, err = in.ReadString('\n')
		if err != nil {
			return "", err
		}
		return line[:len(line)-2], nil
	}
	return line[1:], nil
}
