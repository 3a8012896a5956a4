package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"
)

// curlMain is as much of curl as the README and `token create` print, for
// machines that have none. What it does not know it refuses.
func curlMain() {
	if err := curl(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(2)
	}
}

func curl(args []string) error {
	method, url, body := "", "", ""
	header := http.Header{}
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if !strings.HasPrefix(a, "-") {
			url = a
			continue
		}
		if a == "-s" {
			continue
		}
		if len(args) == 0 {
			return fmt.Errorf("%s needs a value", a)
		}
		v := args[0]
		args = args[1:]
		switch a {
		case "-H":
			k, v, _ := strings.Cut(v, ":")
			header.Add(k, strings.TrimSpace(v))
		case "-d":
			body = v
		case "-X":
			method = v
		default:
			return fmt.Errorf("unknown flag %s", a)
		}
	}
	if method == "" {
		if method = http.MethodGet; body != "" {
			method = http.MethodPost
		}
	}
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	if r.Header = header; body != "" && header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

// natsMain is as much of the nats command line as the README shows: a plain
// NATS client that knows nothing of Watchword.
func natsMain() {
	if err := subscribe(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

func subscribe(args []string) error {
	fs := flag.NewFlagSet("nats", flag.ContinueOnError)
	server := fs.String("server", nats.DefaultURL, "")
	seed := fs.String("nkey", "", "")
	inbox := fs.String("inbox-prefix", "_INBOX", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 2 || fs.Arg(0) != "subscribe" {
		return errors.New("only subscribe SUBJECT is known")
	}
	sign, err := nats.NkeyOptionFromSeed(*seed)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	nc, err := nats.Connect(*server, sign, nats.CustomInboxPrefix(*inbox), nats.PermissionErrOnSubscribe(true))
	if err != nil {
		return err
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync(fs.Arg(1))
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	if err := nc.LastError(); err != nil {
		return err // the server refuses the subscription before it answers the flush
	}
	fmt.Printf("Subscribing on %s\n", fs.Arg(1))
	for n := 1; ; n++ {
		msg, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("[#%d] Received on %q\n%s\n\n", n, msg.Subject, msg.Data)
	}
}
