package main

import (
	"fmt"

	"watchword.dev/events/fault"
)

// renderErrors is the table of public errors. Each row has an anchor, which
// an answer's documentation_url names.
func renderErrors() (string, error) {
	var rows [][]string
	for _, e := range fault.All() {
		text := e.Text
		for _, l := range e.Chain {
			text += fmt.Sprintf(" (chain: %d %s)", l.Number, l.Text)
		}
		retry := ""
		if e.RetryAfter > 0 {
			retry = fmt.Sprintf(" Retry after %v.", e.RetryAfter)
		}
		rows = append(rows, []string{
			fmt.Sprintf(`<a id="%s"></a>%s`, e.Anchor(), "`"+string(e.Code)+"`"),
			fmt.Sprint(e.Status), fmt.Sprint(e.Number), text, e.When + retry,
		})
	}
	return markdown([]string{"code", "HTTP", "number", "text", "when"}, rows), nil
}
