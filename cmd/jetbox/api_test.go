package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/integration/testenv"
	proc "github.com/jetboxhq/jetbox/internal/process"
)

// request sends a request and reads its answer.
func request(method, url, body string, headers ...string) (int, http.Header, string, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(text), err
}

func TestUp_TakesAJobAndAnswersWithItsResult(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	url := launch(t, vars{"DATABASE_URL": dsn(db), "NATS_URL": testenv.OwnNATS(t).URL()}, "up").address(t)
	testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	code, header, body, err := request("POST", url+"/jobs", `{"subject": "jobs.echo", "payload": {"hello": "world"}}`)
	if err != nil || code != http.StatusAccepted {
		t.Fatalf("POST = %d %s %v", code, body, err)
	}
	code, _, body, err = request("GET", url+header.Get("Location")+"?wait=15s", "")
	if err != nil || code != http.StatusOK || !strings.Contains(body, `"status":"done"`) || !strings.Contains(body, `"result":{"hello":"world"}`) {
		t.Errorf("GET = %d %s %v, want done with the result", code, body, err)
	}
}

func TestAPI_RefusesOthersWithoutTokens(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	v := i.with(vars{"HTTP_ADDR": "0.0.0.0:0"})
	code, _, stderr := invoke(t, v, "api")
	if code != exitUsage || !strings.Contains(stderr, "jetbox token create") {
		t.Fatalf("api = %d %q, want %d and what to do", code, stderr, exitUsage)
	}
	open := strings.Replace(launch(t, i.with(vars{"HTTP_ADDR": "0.0.0.0:0"}), "api", "--insecure-listen").address(t), "[::]", "127.0.0.1", 1)
	job := `{"subject": "` + i.prefix + `.a", "payload": 1}`
	testenv.Eventually(t, "an open door", func() bool {
		code, _, _, err := request("POST", open+"/jobs", job)
		return err == nil && code == http.StatusAccepted
	})

	code, secret, stderr := invoke(t, i.with(nil), "token", "create", "shop", "--scope", "produce")
	if code != exitOK || !strings.HasPrefix(secret, "jetbox_") {
		t.Fatalf("token create = %d %q %q", code, secret, stderr)
	}
	for want, headers := range map[int][]string{
		http.StatusUnauthorized: nil, http.StatusAccepted: {"Authorization: Bearer " + strings.TrimSpace(secret)},
	} {
		if code, _, body, err := request("POST", open+"/jobs", job, headers...); err != nil || code != want {
			t.Errorf("POST with %d headers = %d %s %v, want %d", len(headers), code, body, err, want)
		}
	}
	if code, stdout, _ := invoke(t, i.with(nil), "token", "list", "--json"); code != exitOK || !strings.Contains(stdout, `"name":"shop","scopes":["produce"]`) ||
		strings.Contains(stdout, strings.TrimSpace(secret)) {
		t.Errorf("token list = %d %q, want the name and no secret", code, stdout)
	}
	for _, want := range []int{exitOK, exitUsage} {
		if code, _, stderr := invoke(t, i.with(nil), "token", "revoke", "shop"); code != want {
			t.Errorf("token revoke = %d %q, want %d", code, stderr, want)
		}
	}
	var actions []string
	if err := i.db.QueryRow(t.Context(), `SELECT array_agg(action || details::text ORDER BY id) FROM jetbox.operator_action`).Scan(&actions); err != nil {
		t.Fatal(err)
	}
	if want := []string{`create token{"token": "shop"}`, `revoke token{"token": "shop"}`}; !slices.Equal(actions, want) {
		t.Errorf("the audit has %q, want %q", actions, want)
	}
}

// The API is killed in the middle of requests. Whoever repeats a request with
// its key gets the same job, whatever the first attempt came to.
func TestAPI_KilledInAPostMakesNoSecondJob(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	rounds := 8
	if os.Getenv("JETBOX_LONG") != "" {
		rounds = 200
	}
	addr := freeAddress(t)
	p := &proc.Process{
		Name: "api", Executable: os.Args[0], Args: []string{"api"}, Log: filepath.Join(t.TempDir(), "api.log"),
		Env: i.with(vars{"JETBOX_IS_THIS_TEST": "1", "HTTP_ADDR": addr}).environ(),
	}
	for round := range rounds {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the api", func() bool {
			code, _, _, err := request("GET", "http://"+addr+"/readyz", "")
			return err == nil && code == http.StatusOK
		})
		var g errgroup.Group
		for n := range 8 {
			g.Go(func() error { i.postUntilCut(addr, fmt.Sprintf("%d-%d", round, n)); return nil })
		}
		<-time.After(rand.N(100 * time.Millisecond)) // into the middle of them
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = g.Wait()
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	cut := one[int](t, i.db, `SELECT count(*) FROM jetbox.outbox`)
	for round := range rounds {
		for n := range 8 {
			i.repeat(t, addr, fmt.Sprintf("%d-%d", round, n))
		}
	}
	jobs, keys := one[int](t, i.db, `SELECT count(*) FROM jetbox.outbox`), one[int](t, i.db, `SELECT count(DISTINCT payload::text) FROM jetbox.outbox`)
	if jobs != rounds*8 || keys != jobs {
		t.Errorf("%d jobs of %d keys, want %d of each", jobs, keys, rounds*8)
	}
	t.Logf("%d of %d were accepted before a kill", cut, jobs)
}

func (i installation) post(addr, key string) (int, error) {
	code, _, _, err := request("POST", "http://"+addr+"/jobs", fmt.Sprintf(`{"subject": "%s.a", "payload": "%s"}`, i.prefix, key), "Idempotency-Key: "+key)
	return code, err
}

// postUntilCut posts once; the answer may never come.
func (i installation) postUntilCut(addr, key string) { _, _ = i.post(addr, key) }

func (i installation) repeat(t *testing.T, addr, key string) {
	t.Helper()
	testenv.Eventually(t, "an answer", func() bool {
		code, err := i.post(addr, key)
		return err == nil && code == http.StatusAccepted
	})
}

// freeAddress is one that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	p := launch(t, vars{"DATABASE_URL": somewhere}, "relay")
	addr := strings.TrimPrefix(p.address(t), "http://")
	p.stop()
	return addr
}

const countSQL = `
CREATE TABLE public.ran (n int);
CREATE FUNCTION public.shout(m jetbox.message) RETURNS json LANGUAGE sql AS $$
	INSERT INTO public.ran VALUES (1); SELECT '1'::json
$$`

// The worker meets a cancelled job, acknowledges it and does not run it.
func TestAPI_CancelledJobIsNotRun(t *testing.T) {
	t.Parallel()
	i := install(t, shoutYAML)
	execute(t, i.db, countSQL)
	urls := map[string]string{}
	for _, daemon := range []string{"relay", "worker", "api"} {
		urls[daemon] = launch(t, i.with(nil), daemon).address(t)
		testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, urls[daemon]+"/readyz"); return code == http.StatusOK })
	}
	succeed(t, i.with(nil), "pause")
	var places []string
	for range 2 {
		_, header, body, err := request("POST", urls["api"]+"/jobs", `{"subject": "`+i.prefix+`.shout", "payload": 1}`)
		if err != nil || header.Get("Location") == "" {
			t.Fatalf("POST = %s %v", body, err)
		}
		places = append(places, urls["api"]+header.Get("Location"))
	}
	testenv.Eventually(t, "both to be sent", func() bool {
		_, body := get(t, places[1])
		return strings.Contains(body, `"status":"sent"`)
	})
	if code, _, body, err := request("DELETE", places[0], ""); err != nil || code != http.StatusOK || !strings.Contains(body, `"status":"cancelled"`) {
		t.Fatalf("DELETE = %d %s %v, want cancelled", code, body, err)
	}
	succeed(t, i.with(nil), "resume")
	if _, body := get(t, places[1]+"?wait=20s"); !strings.Contains(body, `"status":"done"`) {
		t.Errorf("the other job = %s, want done", body)
	}
	if _, body := get(t, places[0]); !strings.Contains(body, `"status":"cancelled"`) || one[int](t, i.db, `SELECT count(*) FROM public.ran`) != 1 {
		t.Errorf("the cancelled job = %s, want it cancelled and not run", body)
	}
}
