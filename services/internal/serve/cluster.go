package serve

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"watchword.dev/services/config"
	"watchword.dev/services/internal/durable"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/keyring"
)

func natsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "nats", Short: "Prepare a NATS cluster of your own for the ledger"}
	var dir, listen, store string
	var servers []string
	var withOperator bool
	conf := &cobra.Command{
		Use: "config", Short: "Write a nats-server configuration per server, and the credentials", Args: cobra.NoArgs,
		Long: `Write one nats-server configuration for each --server into a directory, and one
nkey seed for each role beside them (mode 0600). The accounts and permissions in
them are the same table that the embedded server uses. Who enrolls is not in them:
the servers ask a node that has the seeds of auth, issuer and sealer.

With --operator the configurations also know the operator, who may create the
streams and nothing else. Start the servers so, run "watchword init" once, then
write the configurations again without --operator and reload the servers.`,
		Example: "  watchword nats config --dir cluster --server n1=10.0.0.1 --server n2=10.0.0.2 --server n3=10.0.0.3 --operator",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeClusterConfigs(cmd, dir, listen, store, servers, withOperator)
		},
	}
	f := conf.Flags()
	f.StringVar(&dir, "dir", "cluster", "directory for the configurations and seeds")
	f.StringVar(&listen, "client-port", "4222", "port for clients; routes use the port 2000 above it")
	f.StringVar(&store, "store-dir", "/var/lib/nats", "JetStream's directory on the servers")
	f.StringArrayVar(&servers, "server", nil, "a server as NAME=ADDRESS (repeatable; three make the ledger survive the loss of one)")
	f.BoolVar(&withOperator, "operator", false, "let the operator in, for `watchword init`")
	cmd.AddCommand(conf)
	return cmd
}

func writeClusterConfigs(cmd *cobra.Command, dir, clientPort, store string, servers []string, withOperator bool) error {
	if len(servers) == 0 {
		return errors.New("name the servers: --server NAME=ADDRESS")
	}
	port, err := strconv.ParseUint(clientPort, 10, 16)
	if err != nil || port == 0 || port > 63535 {
		return fmt.Errorf("--client-port %q is not a port below 63536", clientPort)
	}
	roles := embed.Seeds()
	if withOperator {
		roles = append(roles, embed.Operator)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	pairs, err := embed.EnsureSeeds(dir, roles...)
	if err != nil {
		return err
	}
	keys, err := embed.PublicKeys(pairs)
	if err != nil {
		return err
	}
	names, addresses, err := splitServers(servers)
	if err != nil {
		return err
	}
	for i, name := range names {
		c := embed.ClusterConfig{
			ServerName: name, Listen: fmt.Sprintf("%s:%d", addresses[i], port), StoreDir: store, Keys: keys,
		}
		if len(names) > 1 {
			c.ClusterName, c.ClusterListen = "watchword", fmt.Sprintf("%s:%d", addresses[i], port+2000)
			for _, a := range addresses {
				c.Routes = append(c.Routes, fmt.Sprintf("nats://%s:%d", a, port+2000))
			}
		}
		text, err := c.Text()
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name+".conf")
		if err := durable.WritePrivate(path, []byte(text)); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), path)
	}
	return nil
}

func splitServers(servers []string) (names, addresses []string, err error) {
	for _, s := range servers {
		name, address, ok := cutNonEmpty(s)
		if !ok || filepath.Base(name) != name {
			return nil, nil, fmt.Errorf("--server %q is not NAME=ADDRESS", s)
		}
		names, addresses = append(names, name), append(addresses, address)
	}
	return names, addresses, nil
}

func cutNonEmpty(s string) (name, address string, ok bool) {
	for i := range len(s) {
		if s[i] == '=' {
			return s[:i], s[i+1:], i > 0 && i < len(s)-1
		}
	}
	return "", "", false
}

func initCommand() *cobra.Command {
	var replicas int
	var operatorSeed string
	cmd := &cobra.Command{
		Use: "init", Short: "Create the ledger on a NATS cluster of your own, once", Args: cobra.NoArgs,
		Long: `Create the streams of a new installation on an external NATS cluster, and the
plan of the first start in the data directory. It is needed once, and only with
--nats-url: with the embedded server the first "serve" does it.

Afterwards start "serve --nats-url ..." with the role authority on this data
directory: it completes the first start. Copy master.key to the data directories
of the other nodes.`,
		Example: "  watchword init --nats-url nats://10.0.0.1:4222 --operator-seed cluster/operator.seed --replicas 3 --data ./data",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := load(cmd.Flags())
			if err != nil {
				return err
			}
			return initialise(cmd, cfg, operatorSeed, replicas)
		},
	}
	config.Bind(cmd.Flags(), new(config.Serve))
	cmd.Flags().StringVar(&operatorSeed, "operator-seed", "", "seed file of the operator")
	cmd.Flags().IntVar(&replicas, "replicas", 3, "copies of the ledger: 1, 3 or 5")
	return cmd
}

func initialise(cmd *cobra.Command, cfg *config.Serve, operatorSeed string, replicas int) error {
	switch {
	case cfg.NATSURL == "":
		return errors.New("init is for a cluster of your own: give --nats-url (the embedded server needs no init)")
	case operatorSeed == "":
		return errors.New("give the operator's seed: --operator-seed FILE")
	case cfg.EventsMax == 0:
		return errors.New("give --events-max-bytes, below what the servers' disks hold: a full ledger must refuse cleanly")
	}
	ctx := cmd.Context()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(cfg.Path(adminFile)); err == nil {
		return fmt.Errorf("%s is there: this data directory belongs to an installation", cfg.Path(adminFile))
	}
	opts, err := embed.Options(embed.Operator, operatorSeed, nil)
	if err != nil {
		return err
	}
	nc, err := nats.Connect(cfg.NATSURL, opts...)
	if err != nil {
		return fmt.Errorf("connect to NATS as operator: %w", err)
	}
	defer nc.Close()
	p, err := planned(cfg)
	if err != nil {
		return err
	}
	if err := embed.Create(ctx, nc, embed.Streams{Replicas: replicas, EventsMaxBytes: int64(cfg.EventsMax)}); err != nil {
		return err
	}
	if p == nil {
		if _, err := newPlan(cfg); err != nil {
			return err
		}
	}
	if cfg.Master == "" {
		if _, err := keyring.EnsureMaster(cfg.Path(masterFile)); err != nil {
			return err
		}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "The ledger is ready, with %d replicas. Complete the first start:\n  watchword serve --nats-url %s --data %s --roles all\n",
		replicas, cfg.NATSURL, cfg.Data)
	return nil
}
