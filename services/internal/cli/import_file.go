package cli

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// directoryFile is what an import makes of an organisation, in YAML. A table of
// comma-separated values has the same members as columns, and the kind first.
type directoryFile struct {
	Users     []entryIn `yaml:"users"`
	Accounts  []entryIn `yaml:"accounts"`
	Members   []entryIn `yaml:"members"`
	Resources []entryIn `yaml:"resources"`
}

// entryIn is one thing of a file. A user is known again by their address, an
// account by its id or else its name, a resource by its type and id.
type entryIn struct {
	Kind     string   `yaml:"-" json:"kind"`
	line     int      // of the file
	ID       string   `yaml:"id" json:"id,omitzero"`
	Email    string   `yaml:"email" json:"email,omitzero"`
	Name     string   `yaml:"name" json:"name,omitzero"`
	Operator bool     `yaml:"operator" json:"operator,omitzero"`
	Account  string   `yaml:"account" json:"account,omitzero"` // id or name
	Roles    []string `yaml:"roles" json:"roles,omitzero"`
	Type     string   `yaml:"type" json:"type,omitzero"`
	Parent   string   `yaml:"parent" json:"parent,omitzero"` // key; or Account
	// Assumed is what it names and the same file makes, for a dry run.
	Assumed []string `yaml:"-" json:"assumed,omitzero"`
}

func (e *entryIn) String() string {
	switch e.Kind {
	case "user":
		return "user " + e.Email
	case "member":
		return "member " + e.Email + " of " + e.Account
	case "resource":
		return "resource " + e.Type + "." + e.ID
	}
	return e.Kind + " " + e.Name
}

// check refuses what could not be found again by the next run.
func (e *entryIn) check() error {
	switch {
	case e.Kind == "user" && e.Email == "":
		return errors.New("a user needs an email")
	case e.Kind == "account" && e.Name == "":
		return errors.New("an account needs a name")
	case e.Kind == "member" && (e.Email == "" || e.Account == "" || len(e.Roles) == 0):
		return errors.New("a member needs an email, an account and roles")
	case e.Kind == "resource" && (e.Type == "" || e.ID == "" || e.Name == "" || (e.Parent == "") == (e.Account == "")):
		return errors.New("a resource needs a type, an id, a name and either a parent or an account")
	}
	return nil
}

// readDirectory reads a file into waves: what stands in a later one rests on
// the ones before.
func readDirectory(name string, r io.Reader) ([][]*entryIn, error) {
	read := readEntries
	if strings.EqualFold(filepath.Ext(name), ".csv") {
		read = readTable
	}
	f, err := read(r)
	if err != nil {
		return nil, err
	}
	waves, seen := make([][]*entryIn, 4), map[string]int{}
	for i, kind := range []string{"user", "account", "member", "resource"} {
		all := [][]entryIn{f.Users, f.Accounts, f.Members, f.Resources}[i]
		for k := range all {
			all[k].Kind = kind
			if err := all[k].check(); err != nil {
				return nil, fmt.Errorf("line %d: %w", all[k].line, err)
			}
			key := all[k].String() + " " + all[k].ID
			if first, twice := seen[key]; twice {
				return nil, fmt.Errorf("line %d: %v stands twice, first in line %d", all[k].line, &all[k], first)
			}
			seen[key] = all[k].line
			waves[i] = append(waves[i], &all[k])
		}
	}
	byDepth, err := layers(waves[3])
	return append(waves[:3], byDepth...), err
}

// assume notes of each entry what it rests on and the file makes itself.
func assume(waves [][]*entryIn) {
	made := map[string]bool{}
	for _, wave := range waves {
		for _, e := range wave {
			switch e.Kind {
			case "user":
				made["user "+strings.ToLower(e.Email)] = true
			case "account":
				made["account "+e.Name], made["account "+e.ID], made["parent com.cloudflare.api.account."+e.ID] = true, true, true
			case "resource":
				made["parent "+e.Type+"."+e.ID] = true
			}
		}
	}
	for _, wave := range waves {
		for _, e := range wave {
			for what, name := range map[string]string{"user": strings.ToLower(e.Email), "account": e.Account, "parent": e.Parent} {
				if e.Kind != "user" && name != "" && made[what+" "+name] {
					e.Assumed = append(e.Assumed, what)
				}
			}
			slices.Sort(e.Assumed)
		}
	}
}

// layers puts resources behind those of the same file in which they lie.
func layers(all []*entryIn) (out [][]*entryIn, err error) {
	left := map[string]*entryIn{}
	for _, e := range all {
		left[e.Type+"."+e.ID] = e
	}
	for len(left) > 0 {
		var layer []*entryIn
		for _, e := range all {
			if key := e.Type + "." + e.ID; left[key] == e && left[e.Parent] == nil {
				layer = append(layer, e)
			}
		}
		if len(layer) == 0 {
			return nil, fmt.Errorf("line %d: %v and others lie in each other", firstOf(left).line, firstOf(left))
		}
		for _, e := range layer {
			delete(left, e.Type+"."+e.ID)
		}
		out = append(out, layer)
	}
	return out, nil
}

// firstOf returns the entry that stands first in the file, and of one line the
// one with the smaller key.
func firstOf(some map[string]*entryIn) (first *entryIn) {
	for _, key := range slices.Sorted(maps.Keys(some)) {
		if e := some[key]; first == nil || e.line < first.line {
			first = e
		}
	}
	return first
}

// readEntries reads a file of YAML, strictly.
func readEntries(r io.Reader) (f directoryFile, err error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return f, err
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&f); errors.Is(err, io.EOF) {
		return f, nil
	} else if err != nil {
		return f, plainYAML(err)
	}
	var doc yaml.Node // a strict decoder does not tell the lines
	if err := yaml.Unmarshal(raw, &doc); err != nil || len(doc.Content) == 0 {
		return f, err
	}
	top := doc.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		all := f.of(strings.TrimSuffix(top[i].Value, "s"))
		for k, n := range top[i+1].Content {
			if all != nil && k < len(*all) {
				(*all)[k].line = n.Line
			}
		}
	}
	return f, nil
}

// yamlTypes is what the decoder says of our types, which mean nothing to people.
var yamlTypes = strings.NewReplacer(
	" not found in type cli.entryIn", " is not known here", " not found in type cli.directoryFile", " is not known here",
	" into []cli.entryIn", " into a list of things", " into cli.entryIn", " into a thing", " into cli.directoryFile", " into lists of things",
)

// plainYAML leaves out of an error what is about this program and not the file.
func plainYAML(err error) error {
	var all *yaml.TypeError
	if !errors.As(err, &all) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return errors.New(yamlTypes.Replace(strings.Join(all.Errors, "; ")))
}

// of returns the entries of a kind; nil for no kind.
func (f *directoryFile) of(kind string) *[]entryIn {
	return map[string]*[]entryIn{"user": &f.Users, "account": &f.Accounts, "member": &f.Members, "resource": &f.Resources}[kind]
}

// readTable reads the same from comma-separated values with a header. Roles are
// separated by semicolons.
func readTable(r io.Reader) (f directoryFile, err error) {
	c := csv.NewReader(r)
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return f, errors.New("line 1: there is no header")
	}
	if err != nil {
		return f, err
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	for {
		fields, err := c.Read()
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			return f, err
		}
		var e entryIn
		kind := ""
		to := map[string]*string{"kind": &kind, "id": &e.ID, "email": &e.Email, "name": &e.Name, "account": &e.Account, "type": &e.Type, "parent": &e.Parent}
		e.line, _ = c.FieldPos(0)
		for i, name := range header {
			switch p := to[name]; {
			case p != nil:
				*p = fields[i]
			case name == "roles" && fields[i] != "":
				e.Roles = strings.Split(fields[i], ";")
			case name == "operator":
				if e.Operator = fields[i] == "true"; !e.Operator && fields[i] != "false" && fields[i] != "" {
					return f, fmt.Errorf("line %d: operator is true or false", e.line)
				}
			case name != "roles":
				return f, fmt.Errorf("line 1: unknown column %q", name)
			}
		}
		into := f.of(kind)
		if into == nil {
			return f, fmt.Errorf("line %d: kind must be user, account, member or resource", e.line)
		}
		*into = append(*into, e)
	}
}
