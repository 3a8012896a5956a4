package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"watchword.dev/events/token"
)

// TestMetrics checks that every metric that is declared is served, and that
// what was done is counted.
func TestMetrics(t *testing.T) {
	r := start(t, settings(t, t.TempDir(), "--limit-wrong", "5/1h"), nil)
	c := r.create()
	r.decide(c.Value)
	r.decide("wwu_nonsense")
	if n := r.wrong(); n != 5 {
		t.Fatalf("after %d wrong keys came the first 429, want 5", n)
	}
	if status := r.call(http.MethodGet, "/client/v4/user", "", nil); status != http.StatusOK {
		t.Errorf("the right key gets HTTP %d when wrong ones are throttled", status)
	}
	w := httptest.NewRecorder()
	r.n.metrics.handler(r.n).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := w.Body.String()
	descs := make(chan *prometheus.Desc, 64)
	nodeCollector{r.n}.Describe(descs)
	close(descs)
	for d := range descs {
		_, rest, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("%s is declared and not served", name)
		}
	}
	for _, want := range []string{
		`watchword_verify_total{reason="",verdict="allow"} 1`,
		`watchword_verify_total{reason="malformed",verdict="deny"} 1`,
		`watchword_projection_stopped{projection="verifyindex"} 0`,
		`watchword_index_tokens 1`,
		`watchword_throttled_total{limit="wrong_address"} 1`,
		`watchword_throttled_total{limit="wrong_identifier"} 1`,
		`watchword_throttled_total{limit="requests"} 0`,
		`watchword_throttled_total{limit="address"} 0`,
		`watchword_wrong_credentials_total 6`,
		`watchword_pen_mode{mode="active"} 1`,
		`watchword_http_request_duration_seconds_count{method="POST",route="/client/v4/user/tokens",status="200"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("not served: %s", want)
		}
	}
	if strings.Contains(text, c.ID) || strings.Contains(text, c.Value) {
		t.Error("a metric names a token")
	}
}

// wrong sends one wrong API key until it is throttled, and returns how often it
// was told only that.
func (r *running) wrong() (n int) {
	r.t.Helper()
	key, err := r.n.format().Generate(token.KindKey)
	if err != nil {
		r.t.Fatal(err)
	}
	for ; n < 100; n++ {
		req, err := http.NewRequest(http.MethodGet, r.BaseURL+"/client/v4/user", nil)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header = http.Header{"X-Auth-Email": {r.Email}, "X-Auth-Key": {key.Reveal()}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests {
			break
		}
	}
	return n
}

// TestTLS serves HTTPS with a certificate from files.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, pool := certificate(t, dir)
	cfg := settings(t, filepath.Join(dir, "data"), "--tls-cert-file", certFile, "--tls-key-file", keyFile)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg, nil)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	resp, err := client.Get(r.BaseURL + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "ok\n" || !strings.HasPrefix(r.BaseURL, "https://") {
		t.Errorf("%s: %q, %v", r.BaseURL, b, err)
	}
	client.CloseIdleConnections()
	bad := settings(t, filepath.Join(dir, "other"), "--tls-cert-file", keyFile, "--tls-key-file", keyFile)
	if err := Run(t.Context(), bad, r.n.log, io.Discard); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a wrong certificate: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "other", bootstrapFile)); err == nil {
		t.Error("a start that was refused has begun a first start")
	}
}

// certificate writes a self-signed certificate for loopback.
func certificate(t *testing.T, dir string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certFile, keyFile = write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
	pool = x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return certFile, keyFile, pool
}

// TestActorFails checks that the process ends, with the cause, when one of its
// parts cannot go on.
func TestActorFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := settings(t, t.TempDir(), "--metrics-listen", taken.Addr().String())
	ended := make(chan error, 1)
	go func() { ended <- Run(t.Context(), cfg, slog.New(slog.DiscardHandler), io.Discard) }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("the process goes on without a part of it")
	}
}
