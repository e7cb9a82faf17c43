// Command govah shows whether this device's connection is blocked, altered,
// throttled or intercepted, and why it says so.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"govah/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
