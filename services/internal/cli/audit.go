package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"watchword.dev/events"
	"watchword.dev/events/proof"
)

// maxAuditFile bounds what is read of a file: the largest are an event's line.
const maxAuditFile = events.MaxLine + 1

func (a *App) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Check the ledger without trusting the server"}
	cmd.AddCommand(a.auditVerifyCommand())
	return cmd
}

// auditVerdict is what a proof has shown.
type auditVerdict struct {
	Log      string          `json:"log"`
	Number   uint64          `json:"number"` // of the event
	Name     string          `json:"event"`
	Time     time.Time       `json:"time"` // as the event says
	Size     uint64          `json:"tree_size"`
	Root     string          `json:"root"`
	Cosigned []auditCosigner `json:"cosigned"`
}

type auditCosigner struct {
	Witness string    `json:"witness"`
	At      time.Time `json:"at"`
}

func (a *App) auditVerifyCommand() *cobra.Command {
	var event, key string
	var witnesses []string
	var quorum int
	cmd := &cobra.Command{Use: "verify PROOF --event FILE --key KEY", Short: "Check that an event stands in the ledger", Args: cobra.ExactArgs(1),
		Long: `Check a proof (a c2sp.org/tlog-proof file) that an event stands in the ledger, with
no server and no network. The event is its line, as it came from the feed or an
export. The key is the verifier key of the ledger, which the server logs when it
starts: have it from somebody else than from whom you have the proof.

What is shown: when the tree head was signed, the ledger held exactly this line at
this place, and nothing before it was changed since. With cosignatures of witnesses
also: everybody is shown the same. What is not shown: that the event is true.

The exit code is 0 when it is proved, 5 when it is not, and 1 for files that are no
proof and no event.`,
		RunE: func(_ *cobra.Command, args []string) error {
			policy, err := auditPolicy(key, witnesses, quorum)
			if err != nil {
				return err
			}
			v, err := a.auditVerify(policy, args[0], event)
			if err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(v))
			}
			v.print(a.Out)
			return nil
		}}
	cmd.Flags().StringVar(&event, "event", "", "file with the event's line (- for standard input)")
	cmd.Flags().StringVar(&key, "key", "", "verifier key of the ledger")
	cmd.Flags().StringArrayVar(&witnesses, "witness", nil, "verifier key of a witness, once for each")
	cmd.Flags().IntVar(&quorum, "quorum", 0, "how many of the witnesses must have cosigned")
	cobra.CheckErr(errors.Join(cmd.MarkFlagRequired("event"), cmd.MarkFlagRequired("key")))
	return cmd
}

func auditPolicy(key string, witnesses []string, quorum int) (proof.Policy, error) {
	p := proof.Policy{Quorum: quorum}
	var err error
	if p.Log, err = proof.ParseKey(key); err != nil {
		return p, Fail(ExitLocal, fmt.Errorf("--key: %w", err), "it looks like watchword/<installation>/audit/1+0123abcd+A…")
	}
	for _, w := range witnesses {
		k, err := proof.ParseKey(w)
		if err != nil {
			return p, Fail(ExitLocal, fmt.Errorf("--witness: %w", err))
		}
		p.Witnesses = append(p.Witnesses, k)
	}
	if err := p.Check(); err != nil {
		return p, Fail(ExitLocal, err)
	}
	return p, nil
}

// auditVerify checks the proof in one file about the event in another.
func (a *App) auditVerify(policy proof.Policy, name, event string) (*auditVerdict, error) {
	raw, err := a.auditFile(name)
	if err != nil {
		return nil, err
	}
	line, err := a.auditFile(event)
	if err != nil {
		return nil, err
	}
	p, err := proof.DecodeInclusion(raw)
	if err != nil {
		return nil, Fail(ExitLocal, fmt.Errorf("%s: %w", terminalSafe(name), err))
	}
	line = bytes.TrimSuffix(line, []byte{'\n'})
	s, err := p.Verify(policy, line)
	if errors.Is(err, proof.ErrUnproved) {
		return nil, Fail(ExitProof, errors.New(terminalSafe(err.Error())), "the event, the proof or the head was changed, or they do not belong to each other or to this key")
	}
	if err != nil {
		return nil, Fail(ExitLocal, fmt.Errorf("%s: %w", terminalSafe(name), err))
	}
	// What is proved is that these bytes are there. They are shown as an event
	// only if they are the one that belongs there.
	var r events.Record
	if err := events.Decode(line, &r); err != nil && !errors.Is(err, events.ErrUnknown) {
		return nil, Fail(ExitProof, fmt.Errorf("the line is in the tree, but it is no event: %w", err))
	} else if err == nil && r.Number != p.Index+1 {
		return nil, Fail(ExitProof, fmt.Errorf("the line is in the tree at the place of event %d, but says that it is event %d", p.Index+1, r.Number))
	}
	v := &auditVerdict{Log: s.Origin, Number: p.Index + 1, Name: r.Name, Time: r.Time, Size: s.Size, Root: s.Root.String(), Cosigned: []auditCosigner{}}
	for _, c := range s.Cosigned {
		v.Cosigned = append(v.Cosigned, auditCosigner{c.Witness.Name(), c.At})
	}
	return v, nil
}

// auditFile reads a file, or standard input for "-".
func (a *App) auditFile(name string) ([]byte, error) {
	in := a.In
	if name != "-" {
		opened, err := os.Open(name)
		if err != nil {
			return nil, Fail(ExitLocal, err)
		}
		defer opened.Close()
		in = opened
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxAuditFile+1))
	if err == nil && len(raw) > maxAuditFile {
		err = fmt.Errorf("%s: longer than %s bytes", terminalSafe(name), strconv.Itoa(maxAuditFile))
	}
	if err != nil {
		return nil, Fail(ExitLocal, err)
	}
	return raw, nil
}

func (v *auditVerdict) print(w io.Writer) {
	fmt.Fprintf(w, "proved: event %d stands in the ledger %s\n", v.Number, terminalSafe(v.Log))
	if v.Name != "" {
		fmt.Fprintf(w, "  it says: %s at %s\n", v.Name, v.Time.UTC().Format(events.TimeFormat))
	} else {
		fmt.Fprintln(w, "  it is of a type that this program does not know")
	}
	fmt.Fprintf(w, "  signed by the ledger's key: a tree of %d events with root %s\n", v.Size, v.Root)
	for _, c := range v.Cosigned {
		fmt.Fprintf(w, "  cosigned by %s at %s\n", terminalSafe(c.Witness), c.At.UTC().Format(time.RFC3339))
	}
	if len(v.Cosigned) == 0 {
		fmt.Fprintln(w, "  no witness was asked for: that others are shown the same tree is not proved")
	}
}
