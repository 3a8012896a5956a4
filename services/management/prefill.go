package management

import (
	"errors"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/prefill"
	"watchword.dev/services/internal/summary"
	"watchword.dev/services/internal/web"
)

// values are what fills one hole of a template: a string or a list of them.
type values []string

// UnmarshalJSONFrom reads either form.
func (v *values) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != jsontext.KindString {
		return json.UnmarshalDecode(dec, (*[]string)(v))
	}
	*v = make(values, 1)
	return json.UnmarshalDecode(dec, &(*v)[0])
}

// fill puts the policies of the template that b names into b, and what the
// template says of addresses and lifetime where b says nothing. Without a
// template it does nothing.
func (s *Service) fill(b *tokenBody, owner prefill.Owner) error {
	if b.Template == "" {
		if len(b.Parameters) > 0 {
			return fault.New(fault.InvalidField).WithPointer("/parameters")
		}
		return nil
	}
	if len(b.Policies) > 0 {
		return fault.New(fault.InvalidField).WithPointer("/policies")
	}
	t, ok := s.Catalogue().Template(b.Template)
	if !ok {
		return fault.New(fault.InvalidField).WithPointer("/template").WithDetail("the catalogue has no such template")
	}
	r := prefill.Request{Values: make(map[string][]string, len(b.Parameters))}
	for name, v := range b.Parameters {
		r.Values[name] = v
	}
	g, err := prefill.Fill(t, r, owner, s.Now())
	if wrong, ok := errors.AsType[*prefill.Error](err); ok {
		at := fault.Pointer("/parameters")
		if wrong.Parameter != "" {
			at += "/" + fault.Pointer(wrong.Parameter) // a name of the template, of [a-z0-9_]
		}
		return fault.New(fault.InvalidField).WithPointer(at).WithDetail("%v", fault.Public(wrong.Text))
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	b.take(t.Name, g)
	return nil
}

// take fills b with what a template gives.
func (b *tokenBody) take(name string, g token.Grant) {
	if b.Name == "" {
		b.Name = name
	}
	for _, p := range g.Policies {
		q := policyBody{Effect: string(p.Effect), Resources: p.Resources}
		for _, ref := range p.Groups {
			q.Groups = append(q.Groups, groupBody{ID: ref.ID})
		}
		b.Policies = append(b.Policies, q)
	}
	if b.Condition == nil && g.Condition != nil {
		b.Condition = &conditionBody{RequestIP: &addressBody{In: g.Condition.RequestIP.In, NotIn: g.Condition.RequestIP.NotIn}}
	}
	if b.ExpiresOn == "" {
		b.ExpiresOn = seconds(g.ExpiresOn)
	}
}

// preview is what a dry run answers.
type preview struct {
	Name     string         `json:"name"`
	Summary  []string       `json:"summary"`
	Warnings []string       `json:"warnings"`
	Lacking  []lack         `json:"lacking"`
	Policies []policyAnswer `json:"policies"`
}

// lack is why the caller could not create the token.
type lack struct {
	Message string `json:"message"`
	Pointer string `json:"pointer,omitempty"`
}

// preview answers what the token would be able to do, and whether the caller
// may create it. Nothing is created.
func (s *Service) preview(x *web.Exchange, c *caller, cmd command.CreateToken) error {
	cmd.DryRun = true
	out := preview{Name: cmd.Name, Lacking: []lack{}, Policies: s.policies(cmd.Grant.Policies)}
	names := s.resourceName
	if _, err := s.ask(x, c, cmd); err != nil {
		f, ok := errors.AsType[*fault.Error](err)
		switch {
		case ok && f.Code == fault.GroupNotHeld:
			names = nil // the names of what is not theirs are not for them
		case !ok || f.Code != fault.QuotaReached:
			return err
		}
		out.Lacking = append(out.Lacking, lack{f.Message(), string(f.Pointer)})
	}
	words, err := summary.Of(cmd.Name, cmd.Grant, s.Catalogue(), names)
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	out.Summary, out.Warnings = words.Sentences, words.Warnings
	return x.Result(out)
}

// resourceName returns what a registered resource is called.
func (s *Service) resourceName(key string) (string, bool) {
	r, ok, err := s.Directory.Resource(key)
	return r.Name, err == nil && ok
}

// holder returns who will own a token that c creates.
func (c *caller) holder(of ownership, account token.ID) prefill.Owner {
	if of.kind == events.OwnedByAccount {
		return prefill.Owner{Kind: of.kind, ID: account}
	}
	return prefill.Owner{Kind: of.kind, ID: c.user.ID}
}

// wish is what a link asks for: the body of a creation.
type wish struct {
	Template   string              `json:"template"`
	Name       string              `json:"name,omitempty"`
	Parameters map[string][]string `json:"parameters,omitempty"`
}

// readLink answers what a link asks for, as the body of the POST that creates
// it. It asks nobody who they are and reads nothing but the link: whether there
// is such a template only those learn who may create tokens.
func (s *Service) readLink(x *web.Exchange) error {
	r, err := prefill.Query(x.Request().URL.RawQuery)
	if err != nil {
		return fault.New(fault.InvalidParameter)
	}
	return x.Result(wish{r.Template, r.Name, r.Values}, web.Message{
		Code: linkNote, Text: "Create it with this body by POST " + base + "/user/tokens, or by: watchword token create --from-link",
	})
}

// linkNote is the code of the message that tells what to do with a link.
const linkNote = 10000
