package embed

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// someKeys are public keys of all roles and the operator.
func someKeys(t *testing.T) map[Role]string {
	t.Helper()
	keys := map[Role]string{}
	for _, r := range append(Seeds(), Operator) {
		kp, err := r.newKey()
		if err != nil {
			t.Fatal(err)
		}
		if keys[r], err = kp.PublicKey(); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// TestText checks that nats-server reads from the text what was meant: fsync
// at every write, no open door, nobody in the accounts of the streams.
func TestText(t *testing.T) {
	c := ClusterConfig{
		ServerName: `a"name"with\and$x`, Listen: "127.0.0.1:4222", StoreDir: "/var/lib/nats store", MaxStoreBytes: 1 << 33,
		Keys: someKeys(t), ClusterName: "watchword", ClusterListen: "127.0.0.1:6222", Routes: []string{"nats://192.0.2.1:6222", "nats://192.0.2.2:6222"},
	}
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	o := &server.Options{}
	if err := o.ProcessConfigString(text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if o.ServerName != c.ServerName || o.Port != 4222 || o.StoreDir != c.StoreDir || o.JetStreamMaxStore != c.MaxStoreBytes || len(o.Routes) != 2 || o.Cluster.Name != "watchword" {
		t.Errorf("read back as %q %d %q %d %v", o.ServerName, o.Port, o.StoreDir, o.JetStreamMaxStore, o.Routes)
	}
	if !o.SyncAlways || !o.JetStream || o.JetStreamDomain != Domain {
		t.Error("the server would not wait for the disk, or keeps no streams")
	}
	if o.MQTT.Port != 0 || o.Websocket.Port != 0 || o.NoAuthUser != "" || o.LeafNode.Port != 0 || o.Gateway.Name != "" || o.HTTPPort != 0 || len(o.Users) != 0 {
		t.Error("the server would open more than the client port")
	}
	if o.SystemAccount != accountSystem {
		t.Errorf("system account %q", o.SystemAccount)
	}
	for _, u := range o.Nkeys {
		switch name := u.Account.Name; {
		case slices.Contains(append(owners(), accountSystem), name), name == Enforcer.Account(), name == Consumer.Account():
			t.Errorf("somebody can log in to %s", name)
		}
		if u.Permissions == nil || u.Permissions.Publish == nil || len(u.Permissions.Publish.Allow) == 0 ||
			u.Permissions.Subscribe == nil || len(u.Permissions.Subscribe.Allow) == 0 {
			t.Errorf("%s may do anything", u.Account.Name)
		}
		if (u.Permissions.Response != nil) != (u.Account.Name == Pen.Account() || u.Account.Name == Auth.Account()) {
			t.Errorf("%s: answers %+v", u.Account.Name, u.Permissions.Response)
		}
	}
	if len(o.Nkeys) != len(Roles())+1 {
		t.Errorf("%d users for %d roles and the operator", len(o.Nkeys), len(Roles()))
	}
	if a := o.AuthCallout; a == nil || a.Issuer != c.Keys[Issuer] || a.XKey != c.Keys[Sealer] || a.Account != Auth.Account() || len(a.AuthUsers) != len(o.Nkeys) ||
		!slices.Equal(a.AllowedAccounts, []string{Enforcer.Account(), Consumer.Account()}) {
		t.Errorf("callout %+v", a)
	}

	delete(c.Keys, Operator)
	if text, err = c.Text(); err != nil || strings.Contains(text, "STREAM.CREATE") || strings.Contains(text, Operator.Account()) {
		t.Errorf("without an operator, somebody can create streams: %v", err)
	}
}

// TestTextRefused checks that a configuration without a credential or a name
// is an error, not an open server.
func TestTextRefused(t *testing.T) {
	for _, r := range Seeds() {
		c := ClusterConfig{ServerName: "a", Keys: someKeys(t)}
		delete(c.Keys, r)
		if text, err := c.Text(); err == nil {
			t.Errorf("without %s: %s", r, text)
		}
		kp, err := nkeys.CreateOperator()
		if err != nil {
			t.Fatal(err)
		}
		if c.Keys[r], err = kp.PublicKey(); err != nil {
			t.Fatal(err)
		}
		if text, err := c.Text(); err == nil {
			t.Errorf("with an operator's key for %s: %s", r, text)
		}
	}
	if text, err := (ClusterConfig{Keys: someKeys(t)}).Text(); err == nil {
		t.Errorf("without a name: %s", text)
	}
	if err := Create(t.Context(), nil, Streams{Replicas: 3}); err == nil {
		t.Error("a ledger without a cap was created")
	}
}
