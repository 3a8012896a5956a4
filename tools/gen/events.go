package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"

	"watchword.dev/events"
	"watchword.dev/services/config"
	"watchword.dev/tools/internal/workspace"
)

// renderSettings is the manual of `watchword serve`.
func renderSettings() (string, error) { return config.Table(new(config.Serve)), nil }

// renderEvents is the catalogue of events, with what the type of each says of
// itself in the source.
func renderEvents() (string, error) {
	docs, err := eventDocs()
	if err != nil {
		return "", err
	}
	var rows [][]string
	for _, name := range events.Standard.Names() {
		doc, ok := docs[name]
		if !ok {
			return "", fmt.Errorf("no type with documentation is named %s", name)
		}
		rows = append(rows, []string{"`" + events.TypePrefix + name + "`", "`" + events.SubjectOf(name) + "`", doc})
	}
	return markdown([]string{"type", "subject", "what it says"}, rows), nil
}

// eventDocs reads the documentation of every type with a method EventName.
func eventDocs() (map[string]string, error) {
	root, err := workspace.Root(context.Background(), ".")
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "events", "data.go"), nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	types, names := map[string]string{}, map[string]string{} // type → doc, event → type
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.GenDecl:
			if d.Tok == token.TYPE && len(d.Specs) == 1 {
				types[d.Specs[0].(*ast.TypeSpec).Name.Name] = firstSentence(d.Doc.Text())
			}
		case *ast.FuncDecl:
			if d.Name.Name == "EventName" {
				value := d.Body.List[0].(*ast.ReturnStmt).Results[0].(*ast.BasicLit).Value
				name, err := strconv.Unquote(value)
				if err != nil {
					return nil, err
				}
				names[name] = d.Recv.List[0].Type.(*ast.Ident).Name
			}
		}
	}
	docs := map[string]string{}
	for name, typ := range names {
		docs[name] = strings.TrimPrefix(types[typ], typ+" ")
	}
	return docs, nil
}

// firstSentence is the first sentence of a doc comment, on one line.
func firstSentence(doc string) string {
	doc = strings.Join(strings.Fields(doc), " ")
	if i := strings.Index(doc, ". "); i >= 0 {
		doc = doc[:i+1]
	}
	return doc
}
