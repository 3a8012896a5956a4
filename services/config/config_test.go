package config

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"watchword.dev/services/internal/throttle"
)

// load loads a Serve from a command line, an environment and a file.
func load(t *testing.T, args, env []string, file string) (*Serve, map[string]Origin, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "watchword.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		env = append([]string{"WATCHWORD_CONFIG=" + path}, env...)
	}
	s := new(Serve)
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	Bind(fs, s)
	if err := fs.Parse(args); err != nil {
		return nil, nil, err
	}
	origins, err := Load(fs, env, s)
	return s, origins, err
}

// TestDefaults checks that an empty configuration is the one of DESIGN §9, and
// that it is valid.
func TestDefaults(t *testing.T) {
	s, origins, err := load(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := &Serve{
		Data: "./data", Roles: []string{"all"}, Listen: "127.0.0.1:8420", NATSListen: "127.0.0.1:4222",
		Brand: "ww", OperatorEmail: "operator@example.com", IndexMemory: 512 << 20, DirectoryMemory: 64 << 20,
		StaleRead: 5 * time.Minute, StaleWrite: 30 * time.Second, StaleAdmin: 10 * time.Second,
		AddressHeader: "x-forwarded-for",
		LimitRequests: throttle.Limit{Quota: 1200, Window: 5 * time.Minute}, LimitAddress: throttle.Limit{Quota: 200, Window: time.Second},
		LimitWrong: throttle.Limit{Quota: 30, Window: time.Minute}, UserTokens: 50, AccountTokens: 500,
		WaitMax: 5 * time.Second, ShutdownTimeout: 10 * time.Second, LogLevel: slog.LevelInfo, LogFormat: "text",
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v\nwant %+v", s, want)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	for key, o := range origins {
		if o != "default" {
			t.Errorf("%s comes from %s", key, o)
		}
	}
}

// TestOrder checks that a flag goes before the environment, that before the
// file and that before the default, and that given-but-empty is given.
func TestOrder(t *testing.T) {
	for _, tt := range []struct {
		name       string
		args, env  []string
		file       string
		key        string
		want, from string
	}{
		{"default", nil, nil, "", "listen", "127.0.0.1:8420", "default"},
		{"file", nil, nil, "listen: 127.0.0.1:1\n", "listen", "127.0.0.1:1", "file"},
		{"env over file", nil, []string{"WATCHWORD_LISTEN=127.0.0.1:2"}, "listen: 127.0.0.1:1\n", "listen", "127.0.0.1:2", "env"},
		{"flag over env", []string{"--listen=127.0.0.1:3"}, []string{"WATCHWORD_LISTEN=127.0.0.1:2"}, "listen: 127.0.0.1:1\n", "listen", "127.0.0.1:3", "flag"},
		{"flag like the default", []string{"--listen=127.0.0.1:8420"}, []string{"WATCHWORD_LISTEN=127.0.0.1:2"}, "", "listen", "127.0.0.1:8420", "flag"},
		{"empty flag", []string{"--nats-listen="}, []string{"WATCHWORD_NATS_LISTEN=127.0.0.1:2"}, "", "nats-listen", "", "flag"},
		{"empty env", nil, []string{"WATCHWORD_NATS_LISTEN="}, "nats-listen: 127.0.0.1:1", "nats-listen", "", "env"},
		{"empty in file", nil, nil, "nats-listen: \"\"", "nats-listen", "", "file"},
		{"null in file", nil, nil, "nats-listen:", "nats-listen", "", "file"},
		{"list in file", nil, nil, "roles: [authority, management]", "roles", "authority,management", "file"},
		{"list in env", nil, []string{"WATCHWORD_ROLES=authority, management"}, "", "roles", "authority,management", "env"},
		{"size", nil, nil, "index-memory: 2 GiB", "index-memory", "2GiB", "file"},
		{"level", nil, []string{"WATCHWORD_LOG_LEVEL=debug"}, "", "log-level", "DEBUG", "env"},
		{"duration", []string{"--stale-write", "1m"}, nil, "", "stale-write", "1m0s", "flag"},
		{"limit", nil, []string{"WATCHWORD_LIMIT_REQUESTS=10/90s"}, "limit-requests: 1/1s", "limit-requests", "10/1m30s", "env"},
		{"no limit", []string{"--limit-wrong=0"}, nil, "", "limit-wrong", "0", "flag"},
		{"count", []string{"--user-tokens-max=0"}, nil, "user-tokens-max: 7", "user-tokens-max", "0", "flag"},
		{"header", nil, nil, "client-address-header: forwarded", "client-address-header", "forwarded", "file"},
		{"comments only", nil, nil, "# nothing\n", "brand", "ww", "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, origins, err := load(t, tt.args, tt.env, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range Settings(s) {
				if f.Key == tt.key {
					if got := format(reflect.ValueOf(s).Elem().Field(f.field)); got != tt.want || origins[tt.key] != tt.from {
						t.Errorf("got %q from %s, want %q from %s", got, origins[tt.key], tt.want, tt.from)
					}
				}
			}
		})
	}
}

// TestRefused checks that what cannot be meant is an error that names the
// setting.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name      string
		args, env []string
		file      string
		want      string
	}{
		{"unknown in file", nil, nil, "data: x\nlistn: y\n", `:2: unknown setting "listn"`},
		{"config in file", nil, nil, "config: x\n", `unknown setting "config"`},
		{"twice", nil, nil, "data: x\ndata: y\n", `data`},
		{"nested", nil, nil, "data: {a: b}\n", `data: neither`},
		{"not a mapping", nil, nil, "- a\n", `not a mapping`},
		{"not YAML", nil, nil, "a: [\n", `config`},
		{"unknown flag", []string{"--listn=x"}, nil, "", `unknown flag`},
		{"secret as flag", []string{"--master-key=x"}, nil, "", `unknown flag`},
		{"duration", nil, []string{"WATCHWORD_WAIT_MAX=5"}, "", `wait-max (from env)`},
		{"size", nil, nil, "index-memory: 1e9", `index-memory (from file)`},
		{"huge size", nil, nil, "index-memory: 9999999TiB", `index-memory (from file)`},
		{"negative size", nil, nil, "index-memory: -1", `index-memory (from file)`},
		{"negative count", nil, nil, "user-tokens-max: -1", `user-tokens-max (from file)`},
		{"count of something else", []string{"--account-tokens-max=50/1m"}, nil, "", `account-tokens-max (from flag)`},
		{"limit", nil, nil, "limit-address: 200", `limit-address (from file): "200" is no limit like 1200/5m`},
		{"level", []string{"--log-level=loud"}, nil, "", `log-level (from flag)`},
		{"no file", []string{"--config=/nonexistent/watchword.yaml"}, nil, "", `no such file`},
		{"secret twice", nil, []string{"WATCHWORD_MASTER_KEY=a", "WATCHWORD_MASTER_KEY_FILE=b"}, "", `both given by the env`},
		{"no secret file", nil, []string{"WATCHWORD_MASTER_KEY_FILE=/nonexistent/key"}, "", `master-key-file (from env)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := load(t, tt.args, tt.env, tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestValidate checks that each rule of Validate bites, and names its setting.
func TestValidate(t *testing.T) {
	for _, tt := range []struct{ flag, want string }{
		{"--data=", "data:"},
		{"--roles=", "roles:"},
		{"--roles=all,king", "roles:"},
		{"--listen=", "listen:"},
		{"--listen=8420", "listen:"},
		{"--nats-listen=4222", "nats-listen:"},
		{"--metrics-listen=x", "metrics-listen:"},
		{"--base-url=example.com", "base-url:"},
		{"--base-url=ftp://example.com", "base-url:"},
		{"--trusted-proxies=192.0.2.1", "trusted-proxies:"},
		{"--client-address-header=", "client-address-header:"},
		{"--client-address-header=x-real-ip,forwarded", "client-address-header:"},
		{"--brand=w", "brand:"},
		{"--brand=Watch", "brand:"},
		{"--index-memory=0", "index-memory"},
		{"--stale-read=0s", "stale-read:"},
		{"--stale-admin=-1s", "stale-admin:"},
		{"--wait-max=25h", "wait-max:"},
		{"--log-format=xml", "log-format:"},
	} {
		s, _, err := load(t, []string{tt.flag}, nil, "")
		if err != nil {
			t.Fatal(tt.flag, err)
		}
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.flag, err)
		}
	}
	s, _, err := load(t, []string{"--nats-max-bytes=1GiB", "--events-max-bytes=2GiB"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "events-max-bytes:") {
		t.Error(err)
	}
}

// TestSecret checks the four ways to a secret, their order, and that a secret
// is never shown.
func TestSecret(t *testing.T) {
	const secret = "f00dfacef00dface"
	private := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(private, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		args, env []string
		file      string
		want      Secret
		from      string
	}{
		{"env", nil, []string{"WATCHWORD_MASTER_KEY=" + secret}, "", secret, "env"},
		{"file", nil, nil, "master-key: " + secret, secret, "file"},
		{"file by flag", []string{"--master-key-file", private}, nil, "", secret, "flag"},
		{"file by env", nil, []string{"WATCHWORD_MASTER_KEY_FILE=" + private}, "", secret, "env"},
		{"file by file", nil, nil, "master-key-file: " + private, secret, "file"},
		{"flag over env", []string{"--master-key-file", private}, []string{"WATCHWORD_MASTER_KEY=x"}, "", secret, "flag"},
		{"env over file", nil, []string{"WATCHWORD_MASTER_KEY=" + secret}, "master-key-file: /nonexistent", secret, "env"},
		{"emptied by flag", []string{"--master-key-file="}, []string{"WATCHWORD_MASTER_KEY=x"}, "", "", "flag"},
		{"none", nil, nil, "", "", "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, origins, err := load(t, tt.args, tt.env, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if s.Master != tt.want || origins["master-key"] != tt.from {
				t.Errorf("got %d bytes from %s, want %d from %s", len(s.Master), origins["master-key"], len(tt.want), tt.from)
			}
			var shown strings.Builder
			if err := Show(&shown, s, origins); err != nil {
				t.Fatal(err)
			}
			slog.New(slog.NewJSONHandler(&shown, nil)).Info("x", "config", s, "secret", s.Master)
			fmt.Fprintf(&shown, "%v %+v %#v %s %q", s, s, s, s.Master, s.Master)
			if strings.Contains(shown.String(), secret) {
				t.Errorf("shown: %s", &shown)
			}
		})
	}
	if err := os.Chmod(private, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := load(t, []string{"--master-key-file", private}, nil, ""); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a file that all can read: %v", err)
	}
}

// TestShow checks that what Show writes is read back as the same.
func TestShow(t *testing.T) {
	s, origins, err := load(t, []string{"--roles=authority,management", "--stale-read=90s"}, []string{"WATCHWORD_LISTEN=[::1]:0"}, "index-memory: 1536MiB\nlog-level: warn\n")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := Show(&b, s, origins); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"roles: \"authority,management\" # flag\n", "listen: \"[::1]:0\" # env\n", "index-memory: \"1536MiB\" # file\n", "brand: \"ww\" # default\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &b)
		}
	}
	again, _, err := load(t, nil, nil, b.String())
	if err != nil {
		t.Fatal(err)
	}
	again.Config, s.Config = "", ""
	if !reflect.DeepEqual(s, again) {
		t.Errorf("got %+v\nwant %+v", again, s)
	}
}

// TestDocumented ties flags, environment and manual together: every field is a
// setting with a name, a sentence and a default that it accepts; every setting
// has a flag and an environment variable that work, and a row in the table.
func TestDocumented(t *testing.T) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	Bind(fs, new(Serve))
	table := Table(new(Serve))
	seen := map[string]bool{}
	for _, s := range Settings(new(Serve)) {
		if s.Key == "" || s.Key != strings.ToLower(s.Key) || seen[s.Key] {
			t.Errorf("setting %q has no name of its own", s.Key)
		}
		seen[s.Key] = true
		if !strings.HasSuffix(s.Doc, ".") || len(s.Doc) < 15 {
			t.Errorf("%s: %q is no sentence", s.Key, s.Doc)
		}
		if f := fs.Lookup(s.Key); (f == nil) != s.Secret || f != nil && (f.Usage != s.Doc || f.DefValue != s.Default) {
			t.Errorf("%s: the flag differs from its setting", s.Key)
		}
		if !strings.Contains(table, "`"+s.Env()+"`") || !strings.Contains(table, s.Doc) {
			t.Errorf("%s is not in the table", s.Key)
		}
		if s.File || s.Key == configKey {
			continue
		}
		text := s.Default
		if s.Secret {
			text = "x"
		}
		_, origins, err := load(t, nil, []string{s.Env() + "=" + text}, "")
		if err != nil || origins[s.Key] != "env" {
			t.Errorf("%s: from %s, %v", s.Env(), origins[s.Key], err)
		}
	}
	if rows := strings.Count(table, "\n") - 2; rows != len(seen) {
		t.Errorf("%d rows for %d settings", rows, len(seen))
	}
	fs.VisitAll(func(f *pflag.Flag) {
		if !seen[f.Name] {
			t.Errorf("flag --%s has no setting", f.Name)
		}
	})
}
