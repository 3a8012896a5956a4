// Gen writes the tables of the documentation that come from the code: each
// stands between two marker comments of a Markdown file.
//
//	<!-- gen:errors -->
//	…
//	<!-- /gen:errors -->
//
// Use:
//
//	go run ./tools/gen          writes the tables
//	go run ./tools/gen -check   changes nothing, fails if one differs
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"watchword.dev/tools/internal/workspace"
)

func main() {
	check := flag.Bool("check", false, "change nothing and fail if a table differs from the code")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	root, err := workspace.Root(context.Background(), "")
	if err == nil {
		err = run(root, tables, *check)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
