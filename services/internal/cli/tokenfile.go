package cli

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"watchword.dev/events/token"
)

// A file of tokens holds secrets. So no error quotes what stands in it: they
// name lines, columns and the members that are known, and nothing else.

// tokenRow is a token of another system as a file has it.
type tokenRow struct {
	line int

	Owner       string          `json:"owner"` // e-mail address or id of a user, id of an account
	Name        string          `json:"name"`
	Secret      string          `json:"secret"`      // itself, or sha256: and its digest
	Permissions []string        `json:"permissions"` // groups, by name or id
	Resources   []string        `json:"resources"`   // keys
	Policies    []policyRow     `json:"policies"`    // instead of the two above
	Template    string          `json:"template"`    // instead of policies
	Parameters  map[string]list `json:"parameters"`
	NotBefore   string          `json:"not_before"`
	ExpiresOn   string          `json:"expires_on"`
	IP          []string        `json:"ip"` // an empty list lets nobody in
	NotIP       []string        `json:"not_ip"`
	Status      string          `json:"status"`
}

// policyRow is a policy as the API has it, but that groups may be named.
type policyRow struct {
	Effect    string         `json:"effect"` // allow when empty
	Groups    []groupRow     `json:"permission_groups"`
	Resources map[string]any `json:"resources"`
}

// groupRow is a permission group: its name or id, or an object with the id.
type groupRow string

// UnmarshalJSONFrom reads either form.
func (g *groupRow) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != jsontext.KindBeginObject {
		return json.UnmarshalDecode(dec, (*string)(g))
	}
	var o struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	if err := json.UnmarshalDecode(dec, &o); err != nil {
		return err
	}
	if *g = groupRow(o.ID); o.ID == "" {
		*g = groupRow(o.Name)
	}
	return nil
}

// list is one text or a list of them.
type list []string

// UnmarshalJSONFrom reads either form.
func (l *list) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != jsontext.KindString {
		return json.UnmarshalDecode(dec, (*[]string)(l))
	}
	*l = make(list, 1)
	return json.UnmarshalDecode(dec, &(*l)[0])
}

// eachToken reads a file of tokens in one of the formats. It gives each row to
// got, or what is wrong with it to refused, and returns why it cannot read on.
func eachToken(format string, r io.Reader, got func(*tokenRow) error, refused func(line int, why error)) error {
	take := func(row *tokenRow, line int, err error) error {
		if err == nil {
			row.line = line
			err = row.check()
		}
		if err != nil {
			refused(line, err)
			return nil
		}
		return got(row)
	}
	switch format {
	case "csv":
		return eachCSV(r, take)
	case "jsonl":
		return eachLine(r, take)
	case "yaml":
		return eachYAML(r, take)
	}
	return fmt.Errorf("unknown format %q: use csv, jsonl or yaml", format)
}

// longestLine bounds a row of a file, in bytes.
const longestLine = 1 << 20

func eachLine(r io.Reader, take func(*tokenRow, int, error) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), longestLine)
	line := 0
	for s.Scan() {
		line++
		b := bytes.TrimSpace(s.Bytes())
		if len(b) == 0 {
			continue
		}
		row := &tokenRow{}
		if err := take(row, line, decodeRow(b, row)); err != nil {
			return err
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d is longer than %d bytes", line+1, longestLine)
	}
	return s.Err()
}

// decodeRow reads a row of JSON, strictly.
func decodeRow(b []byte, row any) error {
	err := json.Unmarshal(b, row, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	if sem, ok := errors.AsType[*json.SemanticError](err); ok {
		first := strings.TrimPrefix(string(sem.JSONPointer), "/")
		first, _, _ = strings.Cut(first, "/")
		switch {
		case slices.Contains(tokenColumns, first):
			return fmt.Errorf("%s has a value of another kind than it must have, or an unknown member", first)
		case errors.Is(err, json.ErrUnknownName):
			return fmt.Errorf("a member is not known; those that are: %s", strings.Join(tokenColumns, ", "))
		}
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return errors.New("a member stands twice")
		}
		return fmt.Errorf("not valid JSON from byte %d on", syntax.ByteOffset+1)
	}
	return errors.New("not an object with the members of a token")
}

// tokenColumns are the members of a row and the columns of a table.
var tokenColumns = []string{
	"owner", "name", "secret", "permissions", "resources", "policies", "template", "parameters",
	"not_before", "expires_on", "ip", "not_ip", "status",
}

// eachCSV reads a table with a header. Lists are separated by semicolons,
// parameters are NAME=ID, policies are JSON.
func eachCSV(r io.Reader, take func(*tokenRow, int, error) error) error {
	c := csv.NewReader(r)
	c.ReuseRecord = true
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("line 1: there is no header")
	}
	if err != nil {
		return fmt.Errorf("line 1: %w", tableError(err))
	}
	header = slices.Clone(header)
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	for i, name := range header {
		if !slices.Contains(tokenColumns, name) || slices.Index(header, name) != i {
			return fmt.Errorf("line 1: column %d of the header is not known or stands twice; those known are: %s", i+1, strings.Join(tokenColumns, ", "))
		}
	}
	for {
		fields, err := c.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		row, line := &tokenRow{}, 0
		if parse, ok := errors.AsType[*csv.ParseError](err); ok {
			line, err = parse.StartLine, tableError(err)
		} else if err != nil {
			return err
		} else {
			line, _ = c.FieldPos(0)
			err = row.fill(header, fields)
		}
		if err := take(row, line, err); err != nil {
			return err
		}
	}
}

// tableError says what is wrong with a table, without its line.
func tableError(err error) error {
	if parse, ok := errors.AsType[*csv.ParseError](err); ok {
		return parse.Err
	}
	return err
}

// fill reads the fields of a table's line.
func (t *tokenRow) fill(header, fields []string) error {
	texts := map[string]*string{
		"owner": &t.Owner, "name": &t.Name, "secret": &t.Secret, "template": &t.Template,
		"not_before": &t.NotBefore, "expires_on": &t.ExpiresOn, "status": &t.Status,
	}
	lists := map[string]*[]string{"permissions": &t.Permissions, "resources": &t.Resources, "ip": &t.IP, "not_ip": &t.NotIP}
	for i, name := range header {
		field := fields[i]
		switch {
		case field == "":
		case texts[name] != nil:
			*texts[name] = strings.Clone(field)
		case lists[name] != nil:
			for part := range strings.SplitSeq(field, ";") {
				*lists[name] = append(*lists[name], strings.TrimSpace(part))
			}
		case name == "policies":
			if decodeRow([]byte(field), &t.Policies) != nil {
				return errors.New("policies are not a JSON list of policies")
			}
		case name == "parameters":
			t.Parameters = map[string]list{}
			for part := range strings.SplitSeq(field, ";") {
				name, id, ok := strings.Cut(strings.TrimSpace(part), "=")
				if !ok || name == "" || id == "" {
					return errors.New("parameters are not NAME=ID, separated by semicolons")
				}
				t.Parameters[name] = append(t.Parameters[name], id)
			}
		}
	}
	return nil
}

// eachYAML reads a list of tokens, or one under "tokens". It is read as a
// whole: for very many there are the other formats.
func eachYAML(r io.Reader, take func(*tokenRow, int, error) error) error {
	var doc yaml.Node
	if err := yaml.NewDecoder(r).Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return yamlError(err)
	}
	top := &doc
	if top.Kind == yaml.DocumentNode {
		top = top.Content[0]
	}
	if top.Kind == yaml.MappingNode && len(top.Content) == 2 && top.Content[0].Value == "tokens" {
		top = top.Content[1]
	}
	if top.Kind != yaml.SequenceNode {
		return fmt.Errorf("line %d: neither a list of tokens nor tokens: with such a list", top.Line)
	}
	for _, n := range top.Content {
		row := &tokenRow{}
		var b []byte
		v, err := plain(n)
		if err == nil {
			b, err = json.Marshal(v)
		}
		if err == nil {
			err = decodeRow(b, row)
		}
		if err := take(row, n.Line, err); err != nil {
			return err
		}
	}
	return nil
}

// yamlError keeps of an error of the YAML package only the line: the rest may
// quote the file.
func yamlError(err error) error {
	_, rest, ok := strings.Cut(err.Error(), "line ")
	digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	if !ok || digits == "" {
		return errors.New("not valid YAML")
	}
	return fmt.Errorf("line %s: not valid YAML", digits)
}

// plain returns a node as JSON has it. Ids of digits and times stay texts.
func plain(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return nil, nil
		}
		return n.Value, nil
	case yaml.SequenceNode:
		all := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, err := plain(c)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		return all, nil
	case yaml.MappingNode:
		all := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if _, twice := all[key]; twice || n.Content[i].Kind != yaml.ScalarNode {
				return nil, errors.New("a member stands twice, or is no text")
			}
			v, err := plain(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			all[key] = v
		}
		return all, nil
	}
	return nil, errors.New("aliases are not read")
}

// check refuses what the server could only refuse, or must not see.
func (t *tokenRow) check() error {
	switch {
	case t.Owner == "":
		return errors.New("there is no owner")
	case t.Name == "" && t.Template == "":
		return errors.New("there is no name")
	case t.Template != "" && len(t.Permissions)+len(t.Resources)+len(t.Policies) > 0:
		return errors.New("a template gives the policies: leave out permissions, resources and policies")
	case t.Template == "" && len(t.Parameters) > 0:
		return errors.New("parameters fill a template, and there is none")
	case len(t.Policies) > 0 && len(t.Permissions)+len(t.Resources) > 0:
		return errors.New("policies replace permissions and resources")
	case t.Template == "" && len(t.Policies) == 0 && (len(t.Permissions) == 0 || len(t.Resources) == 0):
		return errors.New("there are neither permissions and resources, nor policies, nor a template")
	}
	for _, at := range []*string{&t.NotBefore, &t.ExpiresOn} {
		if when, err := time.Parse(time.DateOnly, *at); err == nil {
			*at = when.Format(time.RFC3339)
		}
	}
	return nil
}

// digest returns the plain SHA-256 of the row's secret and forgets the secret.
func (t *tokenRow) digest() (d [sha256.Size]byte, err error) {
	secret := t.Secret
	t.Secret = ""
	for _, scheme := range []string{"sha256:", "d0:"} {
		if digits, ok := strings.CutPrefix(secret, scheme); ok {
			if b, err := hex.DecodeString(digits); err == nil && len(b) == len(d) {
				return [sha256.Size]byte(b), nil
			}
			return d, fmt.Errorf("behind %s there are not 64 hexadecimal digits", scheme)
		}
	}
	switch {
	case secret == "":
		return d, errors.New("there is no secret")
	case len(secret) < token.ForeignMin || len(secret) > token.ForeignMax:
		return d, fmt.Errorf("the secret has not %d to %d bytes", token.ForeignMin, token.ForeignMax)
	case strings.TrimSpace(secret) != secret:
		return d, errors.New("the secret begins or ends with white space")
	case strings.Contains(t.Name, secret):
		return d, errors.New("the name holds the secret")
	}
	if _, err := (token.Format{}).Parse(secret); err == nil {
		return d, errors.New("the secret is of this system's own form")
	}
	return sha256.Sum256([]byte(secret)), nil
}
