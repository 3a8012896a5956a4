package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"watchword.dev/services/internal/prefill"
)

// templateFlags say from which template a token is to be made.
type templateFlags struct {
	template string
	params   []string
	link     string
}

func (f *templateFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.template, "template", "", "make the token from this template of the catalogue")
	cmd.Flags().StringArrayVar(&f.params, "param", nil, "fill a hole of the template: NAME=ID, or NAME=* for all (repeatable)")
}

// request returns what the flags ask for, by a link or by hand; false when
// they name no template.
func (f *templateFlags) request() (prefill.Request, bool, error) {
	if f.link != "" {
		if f.template != "" || len(f.params) > 0 {
			return prefill.Request{}, false, Fail(ExitLocal, errors.New("--from-link stands alone: the link names template and parameters"))
		}
		r, err := prefill.ParseLink(f.link)
		if err != nil {
			return r, false, Fail(ExitLocal, err)
		}
		return r, true, nil
	}
	if f.template == "" {
		if len(f.params) > 0 {
			return prefill.Request{}, false, Fail(ExitLocal, errors.New("--param fills a template"), "add --template")
		}
		return prefill.Request{}, false, nil
	}
	r := prefill.Request{Template: f.template, Values: map[string][]string{}}
	for _, p := range f.params {
		name, id, ok := strings.Cut(p, "=")
		if !ok || name == "" || id == "" {
			return r, false, Fail(ExitLocal, fmt.Errorf("--param %q is not NAME=ID", p))
		}
		r.Values[name] = append(r.Values[name], id)
	}
	return r, true, nil
}

// fromTemplate puts the template that the flags name into the body of a
// creation.
func (f *tokenFlags) fromTemplate(body map[string]any) error {
	r, ok, err := f.from.request()
	if err != nil || !ok {
		return err
	}
	if body["policies"] != nil {
		return Fail(ExitLocal, errors.New("a template gives the policies: leave out --permission, --policies and the resources"))
	}
	body["template"] = r.Template
	if len(r.Values) > 0 {
		body["parameters"] = r.Values
	}
	if f.name == "" {
		f.name = r.Name
	}
	if f.name == "" {
		delete(body, "name") // the template has one
	} else {
		body["name"] = f.name
	}
	return nil
}

// previewView is what a dry run answers.
type previewView struct {
	Name     string   `json:"name"`
	Summary  []string `json:"summary"`
	Warnings []string `json:"warnings"`
	Lacking  []struct {
		Message string `json:"message"`
		Pointer string `json:"pointer,omitzero"`
	} `json:"lacking"`
}

// preview shows what a token would be able to do. It fails when the caller may
// not create it.
func (a *App) preview(ctx context.Context, c *client, f *tokenFlags, body map[string]any) error {
	var p previewView
	if err := c.call(ctx, http.MethodPost, f.base()+"?dry_run=true", body, &p); err != nil {
		return err
	}
	asJSON, err := a.json()
	if err != nil {
		return err
	}
	if asJSON {
		err = a.printJSON(p)
	} else {
		fmt.Fprintf(a.Out, "%s\n", terminalSafe(p.Name))
		for _, line := range p.Summary {
			fmt.Fprintf(a.Out, "  %s\n", terminalSafe(line))
		}
		for _, line := range p.Warnings {
			fmt.Fprintf(a.Out, "  warning: %s\n", terminalSafe(line))
		}
		for _, l := range p.Lacking {
			at := ""
			if l.Pointer != "" {
				at = " (" + l.Pointer + ")"
			}
			fmt.Fprintf(a.Out, "  lacking: %s%s\n", terminalSafe(l.Message), terminalSafe(at))
		}
	}
	if err == nil && len(p.Lacking) > 0 {
		err = Fail(ExitDenied, errors.New("you may not create this token"))
	}
	return err
}

// tokenLinkCommand prints a link. It needs the server only for its address.
func (a *App) tokenLinkCommand() *cobra.Command {
	f := &templateFlags{}
	var name string
	cmd := &cobra.Command{
		Use: "link", Short: "Print a link that asks somebody for a token of a template", Args: cobra.NoArgs,
		Long:    "Print a link that asks somebody for a token of a template. The link holds no secret and does\nnothing by itself: whoever gets it creates the token with `watchword token create --from-link URL`,\nand only if they hold what it gives.",
		Example: `  watchword token link --template edit-zone-dns --param zone=<zone id> --name "dns deployer"`,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, ok, err := f.request()
			if err != nil {
				return err
			}
			if !ok {
				return Fail(ExitLocal, errors.New("a link needs a template"), "add --template")
			}
			r.Name = name
			_, err = fmt.Fprintln(a.Out, prefill.Link(c.ctx.BaseURL, r))
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the token, up to 120 characters")
	return cmd
}
