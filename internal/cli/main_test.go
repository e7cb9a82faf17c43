package cli

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"govah/lab/kernel"
)

// asGovah in the environment makes the test binary the command.
const asGovah = "GOVAH_TEST_RUN_AS_COMMAND"

func TestMain(m *testing.M) {
	kernel.Main()
	if os.Getenv(asGovah) != "" {
		command()
	}
	// The suites wait more than they compute: two at a time, which is the
	// default on two cores, would take all day.
	if filepath.Base(os.Args[0]) != "govah" { // as which a script runs it
		flag.Parse()
		flag.Set("test.parallel", "24")
	}
	testscript.Main(m, map[string]func(){"govah": command})
}

// command is what cmd/govah is.
func command() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
