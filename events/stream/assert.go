package stream

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	json "github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrSettings says that a server or a stream is not set up as the ledger needs
// it. The error's text names every deviation.
var ErrSettings = errors.New("stream: not set up as the ledger needs it")

// Assert compares the streams, as the server returns them, with what they must
// be, and looks whether the ledger is whole. It returns ErrSettings with every
// deviation. Where the size limit is the operator's choice there must be
// one.
//
// What a stream's info does not show, AssertReplicas asks for: whether the
// servers wait for the disk, and what the other replicas hold.
func Assert(ctx context.Context, js jetstream.JetStream, replicas int) error {
	var all []error
	wanted := []jetstream.StreamConfig{
		EventsConfig(replicas, 0), PulseConfig(replicas), KeysConfig(replicas, 0),
		ReceiptsConfig(replicas, 0), ProgressConfig(replicas, 0), UsageConfig(replicas, 0),
	}
	for _, want := range wanted {
		s, err := js.Stream(ctx, want.Name)
		if err != nil {
			return fmt.Errorf("stream: %s: %w", want.Name, err)
		}
		info := s.CachedInfo()
		all = append(all, deviations(want, info.Config)...)
		if want.Name == EventsStream {
			all = append(all, whole(want.Name, streamState{
				FirstSeq: info.State.FirstSeq, LastSeq: info.State.LastSeq,
				Messages: info.State.Msgs, NumDeleted: info.State.NumDeleted,
			}))
		}
	}
	return settingsError(all)
}

func settingsError(all []error) error {
	if err := errors.Join(all...); err != nil {
		return fmt.Errorf("%w:\n%w", ErrSettings, err)
	}
	return nil
}

// deviations compares every field, those of later versions of the client
// included: what a new setting does to the ledger is decided here, by hand.
func deviations(want, got jetstream.StreamConfig) (all []error) {
	if want.MaxBytes == 0 { // the operator's choice
		if want.MaxBytes = got.MaxBytes; got.MaxBytes <= 0 {
			all = append(all, fmt.Errorf("%s: MaxBytes is %d, but there must be a limit", want.Name, got.MaxBytes))
		}
	}
	// What has no influence on what is kept: texts, the server's own marks,
	// where the replicas stand, and what consumers get by default.
	want.Description, want.Metadata = got.Description, got.Metadata
	want.Placement, want.ConsumerLimits = got.Placement, got.ConsumerLimits
	w, g := reflect.ValueOf(want), reflect.ValueOf(got)
	for i := range w.NumField() {
		a, b := w.Field(i).Interface(), g.Field(i).Interface()
		if !reflect.DeepEqual(a, b) {
			all = append(all, fmt.Errorf("%s: %s is %s, must be %s", want.Name, w.Type().Field(i).Name, show(b), show(a)))
		}
	}
	return all
}

// show prints a setting, what it points to included.
func show(v any) string {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer && !r.IsNil() {
		v = r.Elem().Interface()
	}
	return fmt.Sprintf("%+v", v)
}

// streamState is what a server says about its copy of a stream.
type streamState struct {
	Messages   uint64 `json:"messages"`
	FirstSeq   uint64 `json:"first_seq"`
	LastSeq    uint64 `json:"last_seq"`
	NumDeleted int    `json:"num_deleted"`
}

// whole says what is missing from a stream from which nothing may be.
func whole(where string, s streamState) error {
	if s.LastSeq > 0 && s.FirstSeq != 1 || s.Messages != s.LastSeq || s.NumDeleted != 0 {
		return fmt.Errorf("%s: %d messages from sequence %d to %d with %d deleted: the ledger is not whole",
			where, s.Messages, s.FirstSeq, s.LastSeq, s.NumDeleted)
	}
	return nil
}

// serverReport is one server's answer to JSZ, as far as it is needed.
type serverReport struct {
	Server struct {
		Name string `json:"name"`
	} `json:"server"`
	Data struct {
		Config struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
		Accounts []struct {
			Streams []struct {
				Name   string `json:"name"`
				Config struct {
					Replicas int `json:"num_replicas"`
				} `json:"config"`
				State streamState `json:"state"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	} `json:"data"`
}

// AssertReplicas asks every server, over a connection of the system account,
// whether it waits for the disk at each write (sync_interval: always) and
// whether its own copy of the ledger is whole. It returns ErrSettings with
// every deviation, and another error when fewer replicas have answered before
// ctx ends than the stream has.
//
// It needs $SYS.REQ.SERVER.PING.JSZ and an inbox, nothing else.
func AssertReplicas(ctx context.Context, monitor *nats.Conn) error {
	inbox := monitor.NewInbox()
	sub, err := monitor.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("stream: ask the servers: %w", err)
	}
	defer sub.Unsubscribe()
	if err := monitor.PublishRequest("$SYS.REQ.SERVER.PING.JSZ", inbox, []byte(`{"accounts":true,"streams":true,"config":true}`)); err != nil {
		return fmt.Errorf("stream: ask the servers: %w", err)
	}
	var all []error
	found, replicas := 0, 1
	for found < replicas {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return errors.Join(settingsError(all), fmt.Errorf("stream: %d of at least %d replicas of the ledger have answered: %w", found, replicas, err))
		}
		var r serverReport
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return fmt.Errorf("stream: a strange answer to JSZ: %w", err)
		}
		has, n, problems := r.examine()
		all = append(all, problems...)
		if has {
			found, replicas = found+1, max(replicas, n)
		}
	}
	return settingsError(all)
}

// examine looks at one server. A server without a copy of the ledger or the
// pulses may be as it likes.
func (r *serverReport) examine() (hasEvents bool, replicas int, problems []error) {
	keeps := false
	for _, account := range r.Data.Accounts {
		for _, s := range account.Streams {
			switch s.Name {
			case EventsStream:
				hasEvents, keeps, replicas = true, true, s.Config.Replicas
				if err := whole(r.Server.Name+": "+s.Name, s.State); err != nil {
					problems = append(problems, err)
				}
			case PulseStream, KeysStream:
				keeps = true
			}
		}
	}
	if keeps && !r.Data.Config.SyncAlways {
		problems = append(problems, fmt.Errorf("%s: sync_interval is not always: what it has acknowledged can get lost with the power", r.Server.Name))
	}
	return hasEvents, replicas, problems
}
