package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/fault"
)

// wire sends exactly these bytes on a connection of its own and reads one
// answer. Clients of libraries would refuse to send some of them.
func (s *speaker) wire(method, request string) (answered, error) {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.admin.BaseURL, "http://"), deadline)
	if err != nil {
		return answered{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return answered{}, err
	}
	// The server may answer and hang up before it has read everything.
	go io.WriteString(conn, request)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answered{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, resp.Header, b}, err
}

// lines returns the bytes of a request. Lines are header lines; a body gets
// its length unless the lines say something else about it.
func lines(method, path string, header []string, body string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: watchword.test\r\n", method, path)
	chunked := false
	for _, l := range header {
		b.WriteString(l + "\r\n")
		chunked = chunked || strings.HasPrefix(l, "Transfer-Encoding:")
	}
	if !chunked {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return b.String()
}

// fault returns the code of the catalogue in an answer, after checking that
// the answer has the form that the catalogue promises.
func (a answered) fault() (fault.Code, error) {
	if a.status < 400 {
		return "", nil
	}
	var e envelope
	if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) != 1 || e.Success {
		return "", fmt.Errorf("HTTP %d without the form of an error: %.200s", a.status, a.body)
	}
	_, anchor, _ := strings.Cut(e.Errors[0].Documentation, "#")
	for _, entry := range fault.All() {
		if string(entry.Code) != anchor {
			continue
		}
		if entry.Status != a.status || entry.Number != e.Errors[0].Code {
			return "", fmt.Errorf("HTTP %d, number %d is not how the catalogue has %s", a.status, e.Errors[0].Code, anchor)
		}
		if got := a.header.Get("Content-Type"); got != jsonContent {
			return "", fmt.Errorf("an error of type %q", got)
		}
		return entry.Code, nil
	}
	return "", fmt.Errorf("%q is not in the catalogue", anchor)
}
