package cataloguefile

import (
	"fmt"

	json "github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v4"

	"watchword.dev/events/catalogue"
)

// Write returns the document as a file. The numbers of what was dropped are
// left out: they belong to the installation and not to the catalogue. What
// names a group by its id has the group's name as a comment.
func Write(d catalogue.Document) ([]byte, error) {
	d.Numbers = catalogue.Numbers{}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("cataloguefile: %w", err)
	}
	var root yaml.Node // JSON is YAML
	if err := yaml.Load(b, &root); err != nil {
		return nil, fmt.Errorf("cataloguefile: %w", err)
	}
	names := make(map[string]string, len(d.Groups))
	for _, g := range d.Groups {
		names[g.ID] = g.Name
	}
	restyle(&root, names)
	return yaml.Dump(&root, yaml.WithIndent(2))
}

// restyle makes what was JSON look like YAML: blocks, quotes only where they
// are needed, and short lists on one line.
func restyle(n *yaml.Node, names map[string]string) {
	n.Style = 0
	for i, c := range n.Content {
		restyle(c, names)
		if n.Kind == yaml.SequenceNode && c.Kind == yaml.ScalarNode && names[c.Value] != "" {
			c.LineComment = names[c.Value]
		}
		if n.Kind == yaml.MappingNode && i%2 == 1 && c.Kind == yaml.SequenceNode {
			if key := n.Content[i-1].Value; key == "scopes" || key == "permissions" && scalars(c) {
				c.Style = yaml.FlowStyle
			}
		}
	}
}

func scalars(n *yaml.Node) bool {
	for _, c := range n.Content {
		if c.Kind != yaml.ScalarNode {
			return false
		}
	}
	return len(n.Content) <= 4
}
