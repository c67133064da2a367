package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"sluice/test/overlay"
)

func quote(s string) string { return strconv.Quote(s) }

// edits are all changes of a server that can be killed at its points, and has
// the planted bug if one is given.
func edits(bug *plant) []overlay.Edit {
	all := slices.Clone(sizes)
	imported := map[string]bool{}
	for _, p := range places {
		all = append(all, p.edit())
		if !imported[p.file] {
			imported[p.file] = true
			all = append(all, overlay.Edit{Name: "import", File: p.file, Anchor: "\nimport (\n", Where: overlay.Before,
				Text: "\nimport \"sluice/test/kill/point\"\n"})
		}
	}
	if bug != nil {
		all = append(all, bug.edits...)
	}
	return all
}

// build compiles that server from the module at root into dir.
func build(ctx context.Context, root, dir string, bug *plant) (binary string, err error) {
	file, err := overlay.Write(root, dir, edits(bug))
	if err != nil {
		return "", fmt.Errorf("the table of points does not fit the code any more:\n%w", err)
	}
	if binary, err = filepath.Abs(filepath.Join(dir, "sluice")); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", file, "-buildvcs=false", "-o", binary, "./cmd/sluice")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return binary, nil
}
