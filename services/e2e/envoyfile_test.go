package e2e_test

import (
	"errors"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	json "github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"

	"watchword.dev/services/introspection/extauthz"
)

// TestEnvoyFile: the shipped configuration is one by Envoy's own definitions,
// and lets nothing pass that was not allowed.
func TestEnvoyFile(t *testing.T) {
	t.Parallel()
	var tree any
	if err := yaml.Unmarshal([]byte(adapted(t, "envoy/envoy.yaml")), &tree); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	var file bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	if err := file.ValidateAll(); err != nil {
		t.Error(err)
	}
	var front hcmv3.HttpConnectionManager
	if err := file.GetStaticResources().GetListeners()[0].GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(&front); err != nil {
		t.Fatal(err)
	}
	var asks extauthzv3.ExtAuthz
	if err := front.GetHttpFilters()[0].GetTypedConfig().UnmarshalTo(&asks); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(front.ValidateAll(), asks.ValidateAll()); err != nil {
		t.Error(err)
	}
	shown := asks.GetGrpcService().GetInitialMetadata()
	if asks.GetFailureModeAllow() || len(shown) != 1 || shown[0].GetKey() != extauthz.KeyMetadata || front.GetNormalizePath().GetValue() || !front.GetUseRemoteAddress().GetValue() {
		t.Errorf("%v", &asks)
	}
}
