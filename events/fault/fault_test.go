package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/fault"
)

func TestErrorIsItsCode(t *testing.T) {
	cause := io.ErrUnexpectedEOF
	err := error(fault.Wrap(fault.NoPen, cause).WithPointer("/name"))
	wrapped := fmt.Errorf("create: %w", err)

	for _, target := range []error{fault.NoPen, fault.New(fault.NoPen), cause} {
		if !errors.Is(wrapped, target) {
			t.Errorf("errors.Is(err, %v) = false", target)
		}
	}
	for _, target := range []error{fault.Internal, fault.New(fault.Internal), io.EOF} {
		if errors.Is(wrapped, target) {
			t.Errorf("errors.Is(err, %v) = true", target)
		}
	}
	e, ok := errors.AsType[*fault.Error](wrapped)
	if !ok || e.Pointer != "/name" {
		t.Errorf("errors.AsType: %+v, %v", e, ok)
	}
}

func TestFrom(t *testing.T) {
	original := fault.New(fault.InvalidCIDR).WithPointer("/condition")
	tests := []struct {
		name string
		err  error
		want fault.Code
	}{
		{"a fault", original, fault.InvalidCIDR},
		{"a wrapped fault", fmt.Errorf("update: %w", original), fault.InvalidCIDR},
		{"a joined fault", errors.Join(io.EOF, original), fault.InvalidCIDR},
		{"a bare code", fault.TokenNotFound, fault.TokenNotFound},
		{"a wrapped code", fmt.Errorf("get: %w", fault.TokenNotFound), fault.TokenNotFound},
		{"a deadline", fmt.Errorf("ask: %w", context.DeadlineExceeded), fault.Unavailable},
		{"a caller who left", context.Canceled, fault.Unavailable},
		{"a stranger", errors.New("disk on fire"), fault.Internal},
		{"a code that is not in the catalogue", fault.Code("no_such_code"), fault.Code("no_such_code")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := fault.From(tt.err)
			if got.Code != tt.want {
				t.Errorf("code %q, want %q", got.Code, tt.want)
			}
			if !errors.Is(tt.err, got) && !errors.Is(got, tt.err) {
				t.Errorf("the cause is lost: %v", got)
			}
		})
	}
	if fault.From(nil) != nil {
		t.Error("From(nil) is not nil")
	}
	if got := fault.Code("no_such_code").Entry().Code; got != fault.Internal {
		t.Errorf("an unknown code has the entry of %q, want internal", got)
	}
}

// TestCauseStaysPrivate: the message that goes to a caller never holds the
// cause; the text for the log does.
func TestCauseStaysPrivate(t *testing.T) {
	e := fault.From(errors.New("dial 192.0.2.1: wwu_secret"))
	if strings.Contains(e.Message(), "192.0.2.1") || strings.Contains(e.Message(), "wwu_") {
		t.Errorf("public message %q holds the cause", e.Message())
	}
	if !strings.Contains(e.Error(), "192.0.2.1") {
		t.Errorf("log text %q does not hold the cause", e.Error())
	}
}

func TestMessage(t *testing.T) {
	secret := "wwu_0123456789"
	var nobody *int
	tests := []struct {
		err  *fault.Error
		want string
	}{
		{fault.New(fault.Internal), "Internal error"},
		{fault.New(fault.AddressRefused).WithDetail("%v", netip.MustParseAddr("2001:db8::1")),
			"Cannot use the access token from location: 2001:db8::1"},
		{fault.New(fault.GroupNotHeld).WithDetail(`(Permission group: "%v")`, fault.Public("DNS Write")),
			`Failed common permission check against resources. (Permission group: "DNS Write")`},
		{fault.New(fault.InvalidName).WithDetail("at most %d characters", 120),
			"Invalid name: at most 120 characters"},
		{fault.New(fault.GraceRunning).WithDetail("until %v", time.Date(2026, 1, 5, 9, 30, 0, 5, time.UTC)),
			"An earlier roll's grace is still running: until 2026-01-05T09:30:00Z"},
		{fault.New(fault.InvalidGrace).WithDetail("at most %v", 72*time.Hour),
			"Invalid grace: at most 72h0m0s"},
		{fault.New(fault.ListNotPermitted).WithDetail("%v", []fault.Public{"a.b", "c.d"}),
			"Actor requires permission: a.b, c.d"},
		{fault.New(fault.InvalidName).WithDetail("%v %s %v", secret, []byte(secret), errors.New(secret)),
			"Invalid name: withheld withheld withheld"},
		{fault.New(fault.InvalidName).WithDetail("%v %v", nobody, struct{ s string }{secret}),
			"Invalid name: withheld withheld"},
		{fault.New(fault.InvalidName).WithDetail("%v", fault.Public("a\r\nb\x00c\xff")),
			"Invalid name: abc"},
		{fault.New(fault.InvalidName).WithDetail("%v", fault.Public(strings.Repeat("x", 500))),
			"Invalid name: " + strings.Repeat("x", 160)},
	}
	for _, tt := range tests {
		if got := tt.err.Message(); got != tt.want {
			t.Errorf("%s:\n got %q\nwant %q", tt.err.Code, got, tt.want)
		}
		if strings.Contains(tt.err.Error(), secret) {
			t.Errorf("%s: the log text holds a secret: %s", tt.err.Code, tt.err)
		}
	}
}

// TestWithCopies: the With methods leave their receiver as it is, so that one
// occurrence can be shared by goroutines.
func TestWithCopies(t *testing.T) {
	base := fault.New(fault.NoPen)
	changed := base.WithPointer(fault.Pointer("/policies").Index(3).Field("a/b~c")).
		WithRetryAfter(time.Minute).WithDetail("%d", 1)
	if base.Pointer != "" || base.Detail != "" || base.RetryAfter != 2*time.Second {
		t.Errorf("receiver changed: %+v", base)
	}
	if changed.Pointer != "/policies/3/a~1b~0c" || changed.Detail != "1" || changed.RetryAfter != time.Minute {
		t.Errorf("copy: %+v", changed)
	}
	if got, want := changed.Error(), "no_pen: Changes cannot be accepted at the moment: 1 (at /policies/3/a~1b~0c)"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}
