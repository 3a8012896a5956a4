package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"watchword.dev/events/catalogue"
	"watchword.dev/services/internal/cataloguefile"
)

const catalogueRoute = "/client/v4/catalogue"

// catalogueView is the catalogue that holds, as the server shows it.
type catalogueView struct {
	Version     uint32             `json:"version"`
	PublishedOn string             `json:"published_on,omitzero"`
	Document    catalogue.Document `json:"document"`
}

// publicationView is what publishing a catalogue changes.
type publicationView struct {
	Version  uint32                 `json:"version"`
	DryRun   bool                   `json:"dry_run"`
	Changes  []cataloguefile.Change `json:"changes"`
	Affected struct {
		TokenCount    int `json:"token_count"`
		MemberCount   int `json:"member_count"`
		ResourceCount int `json:"resource_count"`
		Tokens        []struct {
			ID        string   `json:"id"`
			Name      string   `json:"name"`
			OwnerKind string   `json:"owner_kind"`
			Owner     string   `json:"owner"`
			Uses      []string `json:"uses"`
		} `json:"tokens"`
		Members []struct {
			ID      string   `json:"id"`
			Account string   `json:"account"`
			User    string   `json:"user"`
			Uses    []string `json:"uses"`
		} `json:"members"`
		Resources []struct {
			Type string `json:"type"`
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"resources"`
	} `json:"affected"`
}

func (p *publicationView) affects() bool {
	return p.Affected.TokenCount+p.Affected.MemberCount+p.Affected.ResourceCount > 0
}

func (a *App) catalogueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "catalogue", Short: "Validate, compare, publish, show and export the catalogue of permissions"}
	cmd.AddCommand(a.catalogueValidateCommand(), a.catalogueDiffCommand(), a.cataloguePublishCommand(),
		a.catalogueShowCommand(), a.catalogueExportCommand())
	return cmd
}

// catalogueFile reads a file, or standard input where its name is -. What is
// wrong with it is told with file, line and column.
func (a *App) catalogueFile(name string) (*cataloguefile.File, *catalogue.Catalogue, error) {
	in := a.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, Fail(ExitLocal, err)
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, cataloguefile.MaxBytes+1))
	if err != nil {
		return nil, nil, Fail(ExitLocal, err)
	}
	file, cat, err := cataloguefile.Load(raw, nil)
	if err != nil {
		return nil, nil, Fail(ExitLocal, fmt.Errorf("%s:%s", name, terminalSafe(err.Error())))
	}
	return file, cat, nil
}

func (a *App) catalogueValidateCommand() *cobra.Command {
	return &cobra.Command{Use: "validate FILE", Short: "Check a catalogue file, without a server", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, cat, err := a.catalogueFile(args[0])
			if err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(cat.Document()))
			}
			fmt.Fprintf(a.Out, "%s: good\n", terminalSafe(args[0]))
			a.summary(cat.Document())
			return nil
		}}
}

func (a *App) summary(d catalogue.Document) {
	fmt.Fprintf(a.Out, "  %d resource types, %d permissions, %d permission groups, %d roles, %d templates\n",
		len(d.ResourceTypes), len(d.Permissions), len(d.Groups), len(d.Roles), len(d.Templates))
}

func (a *App) catalogueDiffCommand() *cobra.Command {
	return &cobra.Command{Use: "diff FILE", Short: "Say what publishing a catalogue file would change, and for whom", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, _, err := a.catalogueFile(args[0])
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			var p publicationView
			if err := c.call(cmd.Context(), http.MethodPut, catalogueRoute+"?dry_run=true", file.Document, &p); err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(p))
			}
			a.printPublication(&p)
			return nil
		}}
}

// printPublication prints the changes, those that take something away marked
// with an exclamation mark, and whom they affect.
func (a *App) printPublication(p *publicationView) {
	if len(p.Changes) == 0 {
		fmt.Fprintf(a.Out, "nothing changes: version %d is the same\n", p.Version)
		return
	}
	for _, c := range p.Changes {
		mark := " "
		if c.Narrows {
			mark = "!"
		}
		fmt.Fprintf(a.Out, "%s %s\n", mark, terminalSafe(c.String()))
	}
	t := &p.Affected
	for _, x := range t.Tokens {
		fmt.Fprintf(a.Out, "affects the token %s %q of the %s %s: %s\n", x.ID, terminalSafe(x.Name), x.OwnerKind, x.Owner, terminalSafe(fmt.Sprint(x.Uses)))
	}
	for _, x := range t.Members {
		fmt.Fprintf(a.Out, "affects the member %s (user %s) of the account %s: %s\n", x.ID, x.User, x.Account, terminalSafe(fmt.Sprint(x.Uses)))
	}
	for _, x := range t.Resources {
		fmt.Fprintf(a.Out, "affects the resource %s.%s %q\n", terminalSafe(x.Type), terminalSafe(x.ID), terminalSafe(x.Name))
	}
	if shown := len(t.Tokens) + len(t.Members) + len(t.Resources); p.affects() {
		fmt.Fprintf(a.Out, "in all: %d tokens, %d members, %d resources", t.TokenCount, t.MemberCount, t.ResourceCount)
		if shown < t.TokenCount+t.MemberCount+t.ResourceCount {
			fmt.Fprintf(a.Out, "; only the first of them are shown")
		}
		fmt.Fprintln(a.Out)
	}
}

func (a *App) cataloguePublishCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "publish FILE", Short: "Replace the catalogue", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, _, err := a.catalogueFile(args[0])
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			asJSON, err := a.json()
			if err != nil {
				return err
			}
			var p publicationView
			if err := c.call(cmd.Context(), http.MethodPut, catalogueRoute+"?dry_run=true", file.Document, &p); err != nil {
				return err
			}
			if !asJSON {
				a.printPublication(&p)
			}
			if p.affects() && !force {
				return Fail(ExitRemote, errors.New("the catalogue takes away what is in use; nothing was published"),
					"`watchword catalogue diff` shows whom it affects", "--force publishes it all the same")
			}
			path := catalogueRoute
			if force {
				path += "?force=true"
			}
			if err := c.call(cmd.Context(), http.MethodPut, path, file.Document, &p); err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(p)
			}
			if len(p.Changes) > 0 {
				fmt.Fprintf(a.Out, "published as version %d\n", p.Version)
			}
			return nil
		}}
	cmd.Flags().BoolVar(&force, "force", false, "publish although tokens, members or resources use what is taken away")
	return cmd
}

func (a *App) present(cmd *cobra.Command) (*catalogueView, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	var v catalogueView
	return &v, c.call(cmd.Context(), http.MethodGet, catalogueRoute, nil, &v)
}

func (a *App) catalogueShowCommand() *cobra.Command {
	return &cobra.Command{Use: "show", Short: "Show the catalogue that holds", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.present(cmd)
			if err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(v))
			}
			since := "built in"
			if v.Version > 0 {
				since = "published " + v.PublishedOn
			}
			fmt.Fprintf(a.Out, "%s, version %d, %s\n", terminalSafe(v.Document.Name), v.Version, since)
			a.summary(v.Document)
			rows := make([][]string, 0, len(v.Document.Groups))
			for _, g := range v.Document.Groups {
				rows = append(rows, []string{g.ID, terminalSafe(g.Name), fmt.Sprint(g.Scopes), fmt.Sprint(g.Permissions)})
			}
			return a.table([]string{"GROUP", "NAME", "SCOPES", "PERMISSIONS"}, rows)
		}}
}

func (a *App) catalogueExportCommand() *cobra.Command {
	var builtin bool
	cmd := &cobra.Command{Use: "export", Short: "Print the catalogue that holds as a file to edit and publish", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc := catalogue.Cloudflare().Document()
			if !builtin {
				v, err := a.present(cmd)
				if err != nil {
					return err
				}
				doc = v.Document
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(doc))
			}
			text, err := cataloguefile.Write(doc)
			if err != nil {
				return Fail(ExitLocal, err)
			}
			_, err = a.Out.Write(text)
			return err
		}}
	cmd.Flags().BoolVar(&builtin, "builtin", false, "the built-in catalogue instead, without a server")
	return cmd
}
