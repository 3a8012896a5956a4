package cloudflare

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
)

// Set gives a parameter of a client a value. Its type, param.Field, has a name
// and a constructor in the client's heavy root package only.
func Set(field, value any) {
	f := reflect.ValueOf(field).Elem()
	v := f.FieldByName("Value")
	v.Set(reflect.ValueOf(value).Convert(v.Type()))
	f.FieldByName("Present").SetBool(true)
}

// Give is Set unless the value is zero; an empty list is a value.
func Give(field, value any) {
	if !reflect.ValueOf(value).IsZero() {
		Set(field, value)
	}
}

// refusal is what the errors of clients from v6 on say. Their type has a name
// in the root package only.
var refusal = regexp.MustCompile(`": (\d{3}) [^{]*\{.*?"code":(\d+)`)

// Refusal implements Client.Refusal for clients from v6 on.
func Refusal(err error) (status, code int, ok bool) {
	m := refusal.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, 0, false
	}
	status, _ = strconv.Atoi(m[1])
	code, _ = strconv.Atoi(m[2])
	return status, code, true
}

// Flat reports whether all values are strings, and returns them.
func Flat(resources map[string]any) (map[string]string, bool) {
	out := make(map[string]string, len(resources))
	for k, v := range resources {
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		out[k] = s
	}
	return out, true
}

// Nested returns the maps of strings among the values.
func Nested(resources map[string]any) map[string]map[string]string {
	out := make(map[string]map[string]string, len(resources))
	for k, v := range resources {
		if m, ok := v.(map[string]any); ok {
			out[k], _ = Flat(m)
		}
	}
	return out
}

// Loose returns m as JSON has it.
func Loose(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Pager is the loop over pages of clients from v6 on: it ends at an empty one.
type Pager[T any] interface {
	Next() bool
	Current() T
	Err() error
}

// most is more than any list of the tests holds: a pager that goes on has no
// end.
const most = 5000

// Collect runs a pager to its end.
func Collect[T, R any](p Pager[T], f func(T) R) ([]R, error) {
	var all []R
	for p.Next() {
		if all = append(all, f(p.Current())); len(all) > most {
			return nil, fmt.Errorf("the pager does not end")
		}
	}
	return all, p.Err()
}

// Same is an error unless the answer names the id that was asked for.
func Same(got, want string) error {
	if got != want {
		return fmt.Errorf("the answer is about %q and not %q", got, want)
	}
	return nil
}
