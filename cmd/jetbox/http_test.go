package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// exchange sends bytes to a daemon and returns the codes of its answers until
// it closes the connection or says no more.
func exchange(t *testing.T, url, text string) (codes []int) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = conn.Write([]byte(text)) }() // the daemon may hang up before the end
	in := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return codes
		}
		codes = append(codes, res.StatusCode)
		_ = res.Body.Close()
	}
}

// What parsers disagree about ends the connection: nothing behind it is taken
// for a request.
func TestDaemons_RefuseHeadersThatAreTooMuchOrAmbiguous(t *testing.T) {
	t.Parallel()
	url := launch(t, vars{"DATABASE_URL": somewhere}, "api").address(t)
	many := strings.Builder{}
	for n := range 10_000 {
		fmt.Fprintf(&many, "X-%d: y\r\n", n)
	}
	const post, behind = "POST /jobs HTTP/1.1\r\nHost: localhost\r\n", "\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, tt := range map[string]struct {
		request string
		code    int
	}{
		"header of 1 MB":       {post + "X: " + strings.Repeat("y", 1<<20) + "\r\n\r\n", 431},
		"header of 32 KB":      {post + "X: " + strings.Repeat("y", 32<<10) + "\r\n\r\n", 431},
		"10,000 headers":       {post + many.String() + "\r\n", 431},
		"two lengths":          {post + "Content-Length: 4\r\nContent-Length: 5\r\n" + behind, 400},
		"unknown coding":       {post + "Transfer-Encoding: xchunked\r\n" + behind, 501},
		"two codings":          {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" + behind, 501},
		"space before a colon": {post + "Content-Length : 4\r\n" + behind, 400},
		"header twice folded":  {post + "X: a\r\n b: c\r\nHost: other\r\n" + behind, 400},
		"no host":              {"GET /jobs HTTP/1.1\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if codes := exchange(t, url, tt.request); len(codes) != 1 || codes[0] != tt.code {
				t.Errorf("answers = %v, want %d alone", codes, tt.code)
			}
		})
	}
}

// RFC 9112 has the chunks win over a length, and the connection end: a server
// that believed the length would take what is inside for a second request, and a
// proxy that did would take what is behind for its own.
func TestDaemons_EndTheConnectionAfterChunks(t *testing.T) {
	t.Parallel()
	url := launch(t, vars{"DATABASE_URL": somewhere}, "api").address(t)
	smuggled := "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	request := fmt.Sprintf("POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n%s",
		len(smuggled), smuggled, smuggled)
	if codes := exchange(t, url, request); !slices.Equal(codes, []int{415}) {
		t.Errorf("answers = %v, want 415 for the first alone", codes)
	}
}
