package e2e_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
)

// await waits until what was written matches, or until done is closed.
func (o *output) await(pattern string, done <-chan struct{}) error {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return err
	}
	limit := time.After(deadline)
	for {
		text, more := o.state()
		if re.MatchString(text) {
			return nil
		}
		select {
		case <-more:
		case <-done:
			if text, _ := o.state(); re.MatchString(text) {
				return nil
			}
			return fmt.Errorf("it ended without %q:\n%s", pattern, o)
		case <-limit:
			return fmt.Errorf("no %q in time:\n%s", pattern, o)
		}
	}
}

// member finds a member by a path such as errors.0.code or result.len. Scalars come without
// quotes, others as compact JSON.
func member(text, path string) (string, error) {
	v := jsontext.Value(text)
	for step := range strings.SplitSeq(path, ".") {
		switch v.Kind() {
		case jsontext.KindBeginObject:
			var o map[string]jsontext.Value
			if err := json.Unmarshal(v, &o); err != nil {
				return "", err
			}
			var ok bool
			if v, ok = o[step]; !ok {
				return "", fmt.Errorf("there is no %s", path)
			}
		case jsontext.KindBeginArray:
			var a []jsontext.Value
			if err := json.Unmarshal(v, &a); err != nil {
				return "", err
			}
			if step == "len" {
				v = jsontext.Value(strconv.Itoa(len(a)))
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(a) {
				return "", fmt.Errorf("there is no %s", path)
			}
			v = a[i]
		default:
			return "", fmt.Errorf("there is no %s", path)
		}
	}
	if v.Kind() == jsontext.KindString {
		var s string
		err := json.Unmarshal(v, &s)
		return s, err
	}
	err := v.Compact()
	return string(v), err
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: [!] json PATH [TEXT]")
	}
	text := ts.ReadFile("stdout")
	got, err := member(text, args[0])
	switch {
	case err == nil && len(args) == 2 && got != args[1] && !neg:
		ts.Fatalf("%s is %q, want %q in %s", args[0], got, args[1], text)
	case err == nil && neg && (len(args) == 1 || got == args[1]):
		ts.Fatalf("%s is %q in %s", args[0], got, text)
	case err != nil && !neg:
		ts.Fatalf("%v in %s", err, text)
	}
}

func cmdGrab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: grab NAME PATH")
	}
	got, err := member(ts.ReadFile("stdout"), args[1])
	ts.Check(err)
	ts.Setenv(args[0], got)
}

func cmdKeep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: keep NAME [REGEXP]")
	}
	text := strings.TrimSpace(ts.ReadFile("stdout"))
	if len(args) == 2 {
		m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(text)
		if len(m) != 2 {
			ts.Fatalf("no %q in %s", args[1], text)
		}
		text = m[1]
	}
	if text == "" {
		ts.Fatalf("nothing to keep")
	}
	ts.Setenv(args[0], text)
}

// cmdNATSRead prints every line of the ledger up to its head, read by nothing
// but nats.go and the credential that the installation hands out to readers.
func cmdNATSRead(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: natsread")
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	sign, err := nats.NkeyOptionFromSeed(ts.Getenv("SEED"))
	ts.Check(err)
	nc, err := nats.Connect(ts.Getenv("NATS"), sign, nats.CustomInboxPrefix("_INBOX_reader"))
	ts.Check(err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	ts.Check(err)
	stream, err := js.Stream(ctx, "WATCHWORD_EVENTS")
	ts.Check(err)
	head := stream.CachedInfo().State.LastSeq
	cons, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	ts.Check(err)
	for seq := uint64(0); seq < head; {
		msg, err := cons.Next(jetstream.FetchMaxWait(deadline))
		ts.Check(err)
		meta, err := msg.Metadata()
		ts.Check(err)
		if seq++; meta.Sequence.Stream != seq {
			ts.Fatalf("sequence %d after %d", meta.Sequence.Stream, seq-1)
		}
		fmt.Fprintf(ts.Stdout(), "%s\n", msg.Data())
	}
}

func cmdSecret(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	for _, a := range args {
		if len(a) < 40 {
			ts.Fatalf("%q is no secret", a)
		}
		s.secrets = append(s.secrets, a)
	}
}

func cmdNoSecrets(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	if neg || len(args) > 0 || len(s.secrets) == 0 || s.server != nil {
		ts.Fatalf("usage: nosecrets, after secret and when the server has stopped")
	}
	h := newHunt(s.secrets)
	found, err := h.dir(ts.MkAbs("data"))
	ts.Check(err)
	// The hunt must find what is there: the operator's own credentials.
	if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, "admin.json:") }) {
		ts.Fatalf("the hunt is blind: it found only %q", found)
	}
	for _, f := range found {
		if !strings.HasPrefix(f, "admin.json:") {
			ts.Fatalf("a secret stands in %s", f)
		}
	}
	// The first start announces the operator's credentials to the terminal.
	for _, line := range strings.Split(s.log.String(), "\n") {
		if strings.HasPrefix(line, "  ") && !strings.Contains(line, "level=") {
			continue
		}
		if form := h.find([]byte(line)); form != "" {
			ts.Fatalf("a secret (%s) stands in the log: %s", form, line)
		}
	}
}
