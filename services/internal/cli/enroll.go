package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"watchword.dev/events/credentials"
	"watchword.dev/events/token"
)

// enrollFlags are those of enforcers and consumers alike.
type enrollFlags struct {
	kind    string
	region  string
	file    string
	natsURL string
}

func (f *enrollFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.region, "region", "", "region in which it runs")
	cmd.Flags().StringVar(&f.file, "credentials", "", "new credentials file (default NAME.json); the seed goes beside it")
	cmd.Flags().StringVar(&f.natsURL, "nats-url", "", "NATS URL for the credentials file (default: the context's)")
}

// enrollFiles are the two files of somebody enrolled, made before the server is
// asked. A nil one is none.
type enrollFiles struct {
	credentials, seed *secretFile
	public            string
}

// open makes a key pair, writes its seed, and makes the credentials file.
func (f *enrollFlags) open(name string) (*enrollFiles, error) {
	path := f.file
	if path == "" {
		path = fileName(name) + ".json"
	}
	seedPath := strings.TrimSuffix(path, filepath.Ext(path)) + ".nkey"
	if seedPath == path {
		return nil, Fail(ExitLocal, errors.New("--credentials cannot end in .nkey: that is the seed"))
	}
	var e enrollFiles
	var err error
	if e.credentials, err = openSecretFile(path); err != nil {
		return nil, err
	}
	if e.seed, err = openSecretFile(seedPath); err != nil {
		e.credentials.discard()
		return nil, err
	}
	if err := e.makeKey(); err != nil {
		e.discard()
		return nil, Fail(ExitLocal, err)
	}
	return &e, nil
}

// makeKey makes the key pair. The seed is on disk when it returns.
func (e *enrollFiles) makeKey() error {
	key, err := nkeys.CreatePairWithRand(nkeys.PrefixByteUser, rand.Reader)
	if err != nil {
		return err
	}
	defer key.Wipe()
	if e.public, err = key.PublicKey(); err != nil {
		return err
	}
	seed, err := key.Seed()
	if err != nil {
		return err
	}
	defer clear(seed)
	return e.seed.write(string(seed))
}

// fileName turns a name into one for a file.
func fileName(name string) string {
	s := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '-'
	}, name)
	if s = strings.TrimLeft(s, ".-"); s == "" {
		return "credentials"
	}
	return s
}

// write completes the credentials file.
func (e *enrollFiles) write(c *client, f *enrollFlags, id, name, key string) error {
	if e == nil {
		return nil
	}
	parsed, err := token.ParseID(id)
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	file := credentials.File{
		ID: parsed, Kind: f.kind, Name: name, Region: f.region, BaseURL: c.ctx.BaseURL, Key: key,
		NATSURL: c.ctx.NATSURL, SeedFile: filepath.Base(e.seed.f.Name()),
	}
	if f.natsURL != "" {
		file.NATSURL = f.natsURL
	}
	text, err := file.Text()
	if err != nil {
		return err
	}
	return e.credentials.write(text)
}

// path is where the credentials file is.
func (e *enrollFiles) path() string {
	if e == nil {
		return ""
	}
	return e.credentials.f.Name()
}

// discard removes the files: nobody is enrolled.
func (e *enrollFiles) discard() {
	if e == nil {
		return
	}
	e.credentials.discard()
	e.seed.discard()
}
