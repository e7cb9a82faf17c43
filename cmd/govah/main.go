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
	// The first signal ends what is under way in good order, a second at once.
	context.AfterFunc(ctx, stop)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
