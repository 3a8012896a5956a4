// Package cli is the client side of the watchword binary: verbs that talk to a
// running installation over its public API, with the credentials of a context.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes of the binary.
const (
	ExitOK      = 0
	ExitLocal   = 1 // wrong usage, a file, a connection
	ExitRemote  = 2 // the server refused or failed
	ExitDenied  = 3 // a secret or a credential was not accepted
	ExitTimeout = 4 // something awaited did not come in time
	ExitProof   = 5 // a check of integrity failed
)

// Error is an error of a verb: one line, the exit code, and hints on what to
// do about it.
type Error struct {
	Code  int
	Err   error
	Hints []string
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error inside.
func (e *Error) Unwrap() error { return e.Err }

// Fail returns an Error with this exit code and hints.
func Fail(code int, err error, hints ...string) error {
	return &Error{Code: code, Err: err, Hints: hints}
}

// Report prints err for a person and returns the exit code that goes with it.
func Report(w io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(w, "watchword: %s\n", firstLower(err.Error()))
	var e *Error
	if !errors.As(err, &e) {
		return ExitLocal
	}
	for _, h := range e.Hints {
		fmt.Fprintf(w, "  hint: %s\n", h)
	}
	return e.Code
}

// firstLower lowers the first letter unless the word is an abbreviation.
func firstLower(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && (s[1] < 'A' || s[1] > 'Z') {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// App is what all verbs share.
type App struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string

	context   string
	adminFile string
	url       string
	output    string
}

// New returns an App on the process's own streams and environment.
func New() *App {
	return &App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
}

// Flags adds the flags that all client verbs share.
func (a *App) Flags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&a.context, "context", "", "context to use (default: the current one, see watchword ctx; env WATCHWORD_CONTEXT)")
	f.StringVar(&a.adminFile, "admin-file", "", "use the credentials in this admin.json (default: ./data/admin.json where no context is chosen; env WATCHWORD_ADMIN_FILE)")
	f.StringVar(&a.url, "url", "", "base URL of the server, without /client/v4 (env WATCHWORD_URL)")
	f.StringVarP(&a.output, "output", "o", "table", "output: table or json")
	// Before anything happens: a token whose secret cannot be shown afterwards
	// would be lost.
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		_, err := a.json()
		return err
	}
}

// Strict makes the commands that only hold others refuse what they do not
// know. By itself cobra shows their help then, with exit code 0.
func Strict(cmd *cobra.Command) {
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.NoArgs
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, c := range cmd.Commands() {
		Strict(c)
	}
}

// Commands returns the client verbs.
func (a *App) Commands() []*cobra.Command {
	return append(a.directoryCommands(), a.tokenCommand(), a.enforcerCommand(), a.consumerCommand(), a.permissionsCommand(),
		a.catalogueCommand(), a.routesCommand(), a.ctxCommand(), a.eventsCommand(), a.importCommand(), a.legacyCommand(), a.incidentCommand(), a.auditCommand())
}

// json says whether the output is for programs.
func (a *App) json() (bool, error) {
	switch a.output {
	case "table", "":
		return false, nil
	case "json":
		return true, nil
	}
	return false, Fail(ExitLocal, fmt.Errorf("unknown output %q", a.output), "use -o table or -o json")
}
