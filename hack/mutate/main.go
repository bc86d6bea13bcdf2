// Command mutate breaks the operator by hand, one line at a time, and says which of the tests notice.
//
//	go run ./hack/mutate            all of the list
//	go run ./hack/mutate -only 3    the third of it
//	go run ./hack/mutate -from 3    the third and all after it
//
// Each mutation is applied to a copy of the checkout. The fast tests run first, then the simulation. It fails when fewer
// than 95 % are caught, counting those that cannot be tried as not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

// mutation is one line of the code that is broken.
type mutation struct {
	// file is where, from and to are what is replaced: from occurs once.
	file, from, to string
	// breaks says what that does.
	breaks string
}

// leastCaught is the part of the mutations that must be caught, in percent.
const leastCaught = 95

func main() {
	only := flag.Int("only", 0, "the number of the mutation to try; 0 tries all")
	from := flag.Int("from", 1, "the number of the first mutation to try")
	seeds := flag.Int("sim.runs", 150, "how many upgrades to simulate for each")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, *from, *seeds); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1) //nolint:gocritic // What is deferred only ends the watch for signals.
	}
}

func run(ctx context.Context, only, from, seeds int) error {
	copied, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return fmt.Errorf("make a directory for the copy: %w", err)
	}
	defer func() { _ = os.RemoveAll(copied) }() // It is a copy.
	if out, err := exec.CommandContext(ctx, "cp", "-r", "go.mod", "go.sum", "pkg", "cmd", "hack", copied).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the checkout: %w: %s", err, out)
	}
	// The contract tests read the recordings.
	if err := os.MkdirAll(filepath.Join(copied, "e2e", "replay"), 0o750); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-r", "e2e/replay/testdata", filepath.Join(copied, "e2e", "replay")).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the recordings: %w: %s", err, out)
	}
	tried, caught := 0, 0
	for i, m := range mutations() {
		if i+1 < from || only != 0 && only != i+1 {
			continue
		}
		tried++
		by, err := try(ctx, copied, m, seeds)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Printf("%2d CANNOT BE TRIED        %s: %v\n", i+1, m.breaks, err)
			continue
		}
		if by != "" {
			caught++
			fmt.Printf("%2d caught by %-12s %s\n", i+1, by, m.breaks)
			continue
		}
		fmt.Printf("%2d SURVIVED               %s (%s)\n", i+1, m.breaks, m.file)
	}
	fmt.Printf("%d of %d caught\n", caught, tried)
	if tried > 0 && caught*100 < tried*leastCaught {
		return fmt.Errorf("fewer than %d %% are caught", leastCaught)
	}
	return nil
}

// try applies a mutation and says which tests caught it; empty when none did.
func try(ctx context.Context, dir string, m mutation, seeds int) (string, error) {
	path := filepath.Join(dir, m.file)
	original, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if count := strings.Count(string(original), m.from); count != 1 {
		return "", fmt.Errorf("the line is %d times in %s", count, m.file)
	}
	broken := strings.Replace(string(original), m.from, m.to, 1)
	if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
		return "", err
	}
	defer func() { _ = os.WriteFile(path, original, 0o600) }() // The next run would say so.
	if err := goRun(ctx, dir, "build", "./pkg/..."); err != nil {
		return "", fmt.Errorf("it does not compile: %w", err)
	}
	simulation := fmt.Sprintf("-sim.runs=%d", seeds)
	for _, tests := range []struct {
		name string
		args []string
	}{
		{"tables", []string{"test", "./pkg/evacuate", "./pkg/upgrade/machine", "./pkg/resources", "./pkg/informers", "./pkg/emqx", "./pkg/upgrade"}},
		{"simulation", []string{"test", "-failfast", "./pkg/upgrade/simulation", simulation}},
	} {
		if err := goRun(ctx, dir, tests.args...); err != nil {
			return tests.name, ctx.Err()
		}
	}
	return "", ctx.Err()
}

func goRun(ctx context.Context, dir string, args ...string) error {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	out, err := command.CombinedOutput()
	if err != nil {
		return errors.New(string(out[max(0, len(out)-2000):]))
	}
	return nil
}
