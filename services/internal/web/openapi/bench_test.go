package openapi_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"

	"watchword.dev/services/internal/web"
)

// BenchmarkVerifyHTTP compares POST /v1/verify with a bare net/http handler
// that decodes the same body and writes a fixed answer of the same length. The
// client is as cheap as can be, so that the server is what is measured.
func BenchmarkVerifyHTTP(b *testing.B) {
	l := newLab(b)
	v := l.create(userTokens, l.admin.header(), grant("n", dnsWrite, zone))
	body := question(v.Value, permissionDNS, accountType+l.admin.account.String(), zone)
	fixed := l.ask(bearer(l.enforcer), body).body

	bare := must[net.Listener](b)(net.Listen("tcp", "127.0.0.1:0"))
	srv := web.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var q struct {
			Secret     string   `json:"secret"`
			Permission string   `json:"permission"`
			Resource   []string `json:"resource"`
			ClientIP   string   `json:"client_ip"`
		}
		if err := json.Unmarshal(raw, &q); err != nil || q.Secret == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(fixed)
	}), nil)
	go func() { _ = srv.Serve(bare) }()
	b.Cleanup(func() { _ = srv.Close() })

	request := []byte(fmt.Sprintf("POST /v1/verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", l.enforcer, len(body), body))
	b.Run("bare", func(b *testing.B) { drive(b, bare.Addr().String(), request) })
	b.Run("watchword", func(b *testing.B) { drive(b, strings.TrimPrefix(l.url, "http://"), request) })
}

// drive sends the request over and over, on a connection per worker, and
// requires every answer to be an allowing one.
func drive(b *testing.B, address string, request []byte) {
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for pb.Next() {
			if _, err := conn.Write(request); err != nil {
				b.Error(err)
				return
			}
			if err := readAnswer(in); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

var (
	contentLength = []byte("Content-Length: ")
	allowed       = []byte(`{"decision":"allow"`)
)

func readAnswer(in *bufio.Reader) error {
	n := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, contentLength) {
			if n, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):]))); err != nil {
				return err
			}
		}
		if len(line) == 2 {
			break
		}
	}
	body, err := in.Peek(n)
	if err != nil || !bytes.HasPrefix(body, allowed) {
		return fmt.Errorf("answer %q: %v", body, err)
	}
	_, err = in.Discard(n)
	return err
}
