package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/test/servers"
)

// The server under measurement has one core to itself, the generator the other.
const (
	serverCore = 0
	loadCore   = 1
)

// subject is one thing measured: processes that share serverCore, and where
// they answer. Outside of its turn it is paused, so that it costs the others
// nothing.
type subject struct {
	name    string
	addr    string
	servers []*servers.Server
}

func (s *subject) pause() {
	for _, p := range s.servers {
		p.Pause()
	}
}

func (s *subject) resume() {
	for _, p := range s.servers {
		p.Resume()
	}
}

// load is one kind of traffic.
type load struct {
	path        string
	mode        string // repeat or fresh, see wrk.lua
	run         string // makes keys differ between runs
	connections int
	duration    time.Duration
	refused     bool // every answer is to be a refusal; else every one a success
}

// sample is what one run of the load showed.
type sample struct {
	Rate  float64 // answers of the wanted kind, per second
	Other float64 // share of answers of the other kind, 0..1
	CPU   float64 // microseconds of all the subject's processes per answer
	Busy  float64 // how much of its core the subject used, 0..1
	Gen   float64 // how much of its core the generator used, 0..1
	P50   float64 // milliseconds
	P99   float64 // milliseconds
	Bytes float64 // of a reply, headers included
	Good  int     // answers of the wanted kind
}

// generator runs wrk.
type generator struct {
	wrk, taskset string
	script       string // file of wrk.lua
	tokens       string // file of bearer tokens
}

// report is the line that wrk.lua prints.
type report struct {
	Requests     int `json:"requests"`
	Micros       int `json:"micros"`
	Bytes        int `json:"bytes"`
	StatusErrors int `json:"status_errors"`
	SocketErrors int `json:"socket_errors"`
	P50          int `json:"p50_us"`
	P99          int `json:"p99_us"`
}

// run loads a subject once, alone on its core.
func (g *generator) run(ctx context.Context, s *subject, l load) (sample, error) {
	s.resume()
	defer s.pause()
	if err := answersAgain(ctx, s.addr); err != nil {
		return sample{}, fmt.Errorf("%s: %w", s.name, err)
	}
	cmd := exec.CommandContext(ctx, g.taskset, "-c", strconv.Itoa(loadCore), g.wrk, "-t1",
		"-c"+strconv.Itoa(l.connections), "-d"+strconv.Itoa(int(l.duration.Seconds()))+"s", "--timeout", "10s",
		"-s", g.script, "http://"+s.addr+l.path, "--", g.tokens, l.mode, l.run)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	before, err := cpuOf(s.servers)
	if err != nil {
		return sample{}, err
	}
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("wrk on %s: %w: %s%s", s.name, err, &complaints, &out)
	}
	after, err := cpuOf(s.servers)
	if err != nil {
		return sample{}, err
	}
	r, err := parseReport(out.Bytes())
	if err != nil {
		return sample{}, fmt.Errorf("wrk on %s: %w: %s%s", s.name, err, &complaints, &out)
	}
	if r.SocketErrors > 0 {
		return sample{}, fmt.Errorf("wrk on %s: %d connections failed or timed out", s.name, r.SocketErrors)
	}
	return r.sample(l.refused, after-before, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()), nil
}

// parseReport finds the line of wrk.lua in what wrk printed.
func parseReport(out []byte) (report, error) {
	var r report
	for line := range bytes.Lines(out) {
		if line[0] == '{' {
			if err := json.Unmarshal(line, &r); err != nil {
				return r, err
			}
			if r.Requests == 0 {
				return r, errors.New("no request was answered")
			}
			return r, nil
		}
	}
	return r, errors.New("printed no report")
}

func (r report) sample(refused bool, server, generator time.Duration) sample {
	good := r.Requests - r.StatusErrors
	if refused {
		good = r.StatusErrors
	}
	wall := float64(r.Micros)
	return sample{
		Rate:  float64(good) / wall * 1e6,
		Other: 1 - float64(good)/float64(r.Requests),
		CPU:   float64(server.Microseconds()) / float64(r.Requests),
		Busy:  float64(server.Microseconds()) / wall,
		Gen:   float64(generator.Microseconds()) / wall,
		P50:   float64(r.P50) / 1e3,
		P99:   float64(r.P99) / 1e3,
		Bytes: float64(r.Bytes) / float64(r.Requests),
		Good:  good,
	}
}

// tick is the unit of CPU time in /proc: USER_HZ, which is 100 on every Linux.
const tick = 10 * time.Millisecond

// cpuOf adds up the CPU time of the servers and their children, which share
// their process groups.
func cpuOf(list []*servers.Server) (total time.Duration, err error) {
	var groups []int
	for _, s := range list {
		groups = append(groups, s.PID())
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		group, ticks, err := parseStat(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		if slices.Contains(groups, group) {
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}

// parseStat reads process group and user + system ticks of a /proc/…/stat. The
// name in parentheses may hold anything, so fields are counted after it.
func parseStat(text string) (group, ticks int, err error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, 0, fmt.Errorf("unexpected %q", text)
	}
	group, e1 := strconv.Atoi(fields[2])
	user, e2 := strconv.Atoi(fields[11])
	system, e3 := strconv.Atoi(fields[12])
	return group, user + system, errors.Join(e1, e2, e3)
}
