// Command mutants plants bugs, one at a time, and shows which test catches
// each. No bug stands in product code: each is a replacement of text
// (table.go) that is handed to the compiler as an overlay. A replacement that
// no longer fits its file, or a bug that no test catches, is a failure.
//
//	go run ./test/mutants           all of them, a table in Markdown
//	go run ./test/mutants -run fsync   those whose name contains the word
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"sluice/test/overlay"
)

// mutant is one planted bug.
type mutant struct {
	name     string // what a programmer might have got wrong
	file     string
	old, new string // old stands in file exactly once
	packages string // whose tests should catch it, cheapest first
	run      string // -run of go test, to keep it short; empty for all
}

// limit bounds one package's tests: a bug that makes one wait for ever is caught too.
const limit = time.Minute

func main() {
	only := flag.String("run", "", "only mutants whose name contains this")
	flag.Parse()
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		fail(err)
	}
	defer os.RemoveAll(dir)
	survived, ran := 0, 0
	fmt.Println("| planted bug | in | caught by | after |")
	fmt.Println("|---|---|---|---|")
	for _, m := range mutants {
		if !strings.Contains(m.name, *only) {
			continue
		}
		ran++
		began := time.Now()
		test, err := m.caught(dir)
		if err != nil {
			fail(fmt.Errorf("%s: %w", m.name, err))
		}
		if test == "" {
			survived++
			test = "**nothing**"
		}
		fmt.Printf("| %s | `%s` | %s | %.0f s |\n", m.name, m.file, test, time.Since(began).Seconds())
	}
	fmt.Printf("\n%d planted, %d caught, %d not.\n", ran, ran-survived, survived)
	if survived > 0 || ran == 0 {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "mutants:", err)
	os.Exit(1)
}

// edit is the bug as a change of its file.
func (m mutant) edit() overlay.Edit {
	return overlay.Edit{Name: m.name, File: m.file, Anchor: m.old, Text: m.new}
}

// caught plants the bug and answers the first test that fails, or "".
func (m mutant) caught(dir string) (string, error) {
	overlayFile, err := overlay.Write(".", dir, []overlay.Edit{m.edit()})
	if err != nil {
		return "", err
	}
	for _, pkg := range strings.Fields(m.packages) {
		test, err := m.tested(pkg, overlayFile)
		if test != "" || err != nil {
			return test, err
		}
	}
	return "", nil
}

// tested runs one package's tests with the bug in and answers the first that fails.
func (m mutant) tested(pkg, overlayFile string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	args := []string{"test", "-overlay", overlayFile, "-count=1", "-failfast", "-timeout", limit.String()}
	if m.run != "" {
		args = append(args, "-run", m.run)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, pkg)...).CombinedOutput()
	if err == nil {
		return "", nil
	}
	if strings.Contains(string(out), "[build failed]") || strings.Contains(string(out), "[setup failed]") {
		return "", fmt.Errorf("it does not compile:\n%s", out)
	}
	return firstFailure(string(out)), nil
}

var (
	failed   = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	panicked = regexp.MustCompile(`(?m)^(?:panic: |fatal error: )(.{1,60})`)
)

// firstFailure names the test that failed; of a chain of subtests the deepest.
func firstFailure(out string) string {
	best := ""
	for _, m := range failed.FindAllStringSubmatch(out, -1) {
		if best == "" || strings.HasPrefix(m[1], best+"/") {
			best = m[1]
		}
	}
	if best == "" {
		if m := panicked.FindStringSubmatch(out); m != nil {
			return "`" + strings.TrimSpace(m[1]) + "`"
		}
		return "`" + strings.TrimSpace(strings.SplitN(out, "\n", 2)[0]) + "`"
	}
	return "`" + best + "`"
}
