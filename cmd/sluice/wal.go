package main

import (
	"encoding/json"
	"fmt"
	"os"

	"sluice/internal/lib/wal"
)

type walCommand struct {
	Inspect walInspect `cmd:"" help:"List segments, batches and where the log ends; changes nothing."`
}

type walInspect struct {
	settings
	Dir  string `arg:"" optional:"" help:"Directory of the log; default the data directory's."`
	JSON bool   `name:"json" help:"Print as JSON."`
}

func (w walInspect) Run() error {
	dir := w.Dir
	if dir == "" {
		c, err := w.load(nil)
		if err != nil {
			return err
		}
		dir = c.StockPath()
	}
	report, err := wal.Inspect(wal.OS(), dir)
	if err != nil {
		return err
	}
	if w.JSON {
		return json.NewEncoder(os.Stdout).Encode(report)
	}
	fmt.Printf("log %s: records %d..%d in %d batches, %d segments of %d bytes\n", report.Dir, report.First, report.Last, report.Batches, len(report.Segments), report.Size)
	if report.HasMark {
		fmt.Printf("acknowledged up to %d\n", report.Mark)
	}
	for _, s := range report.Segments {
		fmt.Printf("  %s  records %d..%d  %d of %d bytes used\n", s.Name, s.First, s.Last, s.Used, s.Size)
	}
	if report.TornTail != nil {
		fmt.Printf("torn tail, will be cut at the next start: %+v\n", *report.TornTail)
	}
	if report.Corruption != nil {
		fmt.Println(report.Corruption)
		return errViolation
	}
	return nil
}
