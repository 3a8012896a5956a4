// Command watchword is the service, its clients and its tools in one binary.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"watchword.dev/services/internal/cli"
	"watchword.dev/services/internal/serve"
)

func main() {
	// The first interrupt ends what runs in an orderly way; a second one
	// ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := root().ExecuteContext(ctx)
	stop()
	os.Exit(cli.Report(os.Stderr, err))
}

func root() *cobra.Command {
	app := cli.New()
	cmd := &cobra.Command{
		Use:   "watchword",
		Short: "Scoped API tokens whose every change is an immutable event",
		Long: `Watchword issues scoped API tokens, verifies them anywhere in microseconds, and
keeps every change as an event that nobody can alter.

Begin with "watchword serve"; in another terminal, from the same directory,
"watchword token create --help".`,
		SilenceUsage: true, SilenceErrors: true,
	}
	app.Flags(cmd)
	cmd.AddCommand(app.Commands()...)
	cmd.AddCommand(serve.Commands(app)...)
	cli.Strict(cmd)
	return cmd
}
