package serve

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"watchword.dev/services/config"
	"watchword.dev/services/internal/cli"
)

// Commands returns the verbs that run a server or work on its files.
func Commands(app *cli.App) []*cobra.Command {
	return []*cobra.Command{serveCommand(), rebuildCommand(app), fsckCommand(app), initCommand(), natsCommand(), configCommand(), versionCommand()}
}

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the service, with everything embedded unless told otherwise", Args: cobra.NoArgs,
		Long: `Run the service. Without flags all roles run in this process over an embedded
NATS server, with their data in ./data.

The first start in an empty directory makes an operator with a Global API Key,
an account and an enforcer, prints their credentials once, and writes them to
data/admin.json.`,
		Example: `  watchword serve
  watchword serve --listen 127.0.0.1:0 --data /var/lib/watchword
  watchword serve --nats-url nats://10.0.0.1:4222 --nats-seed-dir seeds --roles management,introspection`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := load(cmd.Flags())
			if err != nil {
				return err
			}
			return Run(cmd.Context(), cfg, logger(cfg, cmd.ErrOrStderr()), cmd.ErrOrStderr())
		},
	}
	config.Bind(cmd.Flags(), new(config.Serve))
	return cmd
}

// load reads and checks the configuration.
func load(fs *pflag.FlagSet) (*config.Serve, map[string]config.Origin, error) {
	cfg := new(config.Serve)
	origins, err := config.Load(fs, os.Environ(), cfg)
	if err != nil {
		return nil, nil, err
	}
	return cfg, origins, cfg.Validate()
}

func logger(cfg *config.Serve, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration of serve"}
	show := &cobra.Command{
		Use: "show", Short: "Show every setting with where it comes from; secrets are left out", Args: cobra.NoArgs,
		Long: "Show the configuration that `serve` would use with the same flags, environment and file, as YAML that it would read.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, origins, err := load(cmd.Flags())
			if cfg == nil {
				return err
			}
			return errors.Join(config.Show(cmd.OutOrStdout(), cfg, origins), err)
		},
	}
	config.Bind(show.Flags(), new(config.Serve))
	check := &cobra.Command{
		Use: "check", Short: "Say what is wrong with the configuration, or nothing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, _, err := load(cmd.Flags())
			return err
		},
	}
	config.Bind(check.Flags(), new(config.Serve))
	cmd.AddCommand(show, check)
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version of the binary", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			version, goVersion := buildVersion()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "watchword %s %s\n", version, goVersion)
			return err
		}}
}

// bindData adds the one flag of the verbs that work on a data directory.
func bindData(fs *pflag.FlagSet, into *string) {
	fs.StringVar(into, "data", envOr("WATCHWORD_DATA", "./data"), "data directory of the server (env WATCHWORD_DATA)")
}

func envOr(name, otherwise string) string {
	if v, ok := os.LookupEnv(name); ok {
		return v
	}
	return otherwise
}
