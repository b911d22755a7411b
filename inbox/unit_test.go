package inbox

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"github.com/jetboxhq/jetbox/internal/wait"
)

func TestPlan_KeepsEachKeysOrderInAsFewCallsAsItTakes(t *testing.T) {
	t.Parallel()
	set := func(context.Context, pgx.Tx, []*delivery, int) error { return nil }
	handlers := []*Handler{{subject: "a", runSet: set}, {subject: "b", runSet: set}, {subject: "one", streak: &streak{}}}
	rapid.Check(t, func(t *rapid.T) {
		ds := rapid.SliceOf(rapid.Custom(func(t *rapid.T) *delivery {
			d := &delivery{handler: rapid.SampledFrom(handlers).Draw(t, "handler")}
			d.env.Key = rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "key")
			return d
		})).Draw(t, "deliveries")
		var ran []*delivery
		for _, g := range plan(ds, 500) {
			ran = append(ran, g.ds...)
			if g.handler.runSet == nil && len(g.ds) != 1 {
				t.Fatalf("%d messages for a handler that takes one", len(g.ds))
			}
			for _, d := range g.ds {
				if d.handler != g.handler {
					t.Fatal("a message went to another's handler")
				}
			}
		}
		if len(ran) != len(ds) {
			t.Fatalf("%d of %d messages planned", len(ran), len(ds))
		}
		for _, key := range []string{"x", "y"} {
			if !slices.Equal(ofKey(ran, key), ofKey(ds, key)) {
				t.Fatalf("the messages of key %s changed places", key)
			}
		}
	})
}

func ofKey(ds []*delivery, key string) (of []*delivery) {
	for _, d := range ds {
		if d.env.Key == key {
			of = append(of, d)
		}
	}
	return of
}

func TestPlan_JoinsWhatNothingKeepsApart(t *testing.T) {
	t.Parallel()
	set := func(context.Context, pgx.Tx, []*delivery, int) error { return nil }
	a, b := &Handler{runSet: set}, &Handler{runSet: set}
	var ds []*delivery
	for i := range 100 { // created, paid, created, paid, each pair of its own key
		d := &delivery{handler: []*Handler{a, b}[i%2]}
		d.env.Key = fmt.Sprint(i / 2)
		ds = append(ds, d)
	}
	if n := len(plan(ds, 500)); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}

func TestRetryDelay_DoublesWithinItsBounds(t *testing.T) {
	t.Parallel()
	for attempt, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 50: maxDelay, math.MaxInt: maxDelay,
	} {
		for range 20 {
			if got := retryDelay(context.Canceled, attempt, time.Second); got < want/2 || got > want {
				t.Errorf("retryDelay(attempt %d) = %v, want between %v and %v", attempt, got, want/2, want)
			}
		}
	}
	if got := retryDelay(fmt.Errorf("wrapped: %w", RetryAfter(time.Hour, context.Canceled)), 1, time.Second); got != time.Hour {
		t.Errorf("RetryAfter an hour = %v", got)
	}
	if got := retryDelay(context.Canceled, 3, math.MaxInt64); got > maxDelay {
		t.Errorf("retryDelay of the largest base = %v", got)
	}
}

func TestTransient_IsWhatWaitingHelps(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{
		"40001": true, "40P01": true, "25006": true, "53100": true, "53200": true, "57P01": true, "58030": true, "08006": true,
		"53400": false, "58P01": false, "23505": false, "22021": false, "57014": false,
	} {
		if got := transient(fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("transient(%s) = %v, want %v", code, got, want)
		}
	}
}

func TestDayOf_IsTheDayOfAUUIDv7Alone(t *testing.T) {
	t.Parallel()
	infinity := pgtype.Date{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	day := func(y int, m time.Month, d int) pgtype.Date {
		return pgtype.Date{Time: time.Date(y, m, d, 0, 0, 0, 0, time.UTC), Valid: true}
	}
	for id, want := range map[string]pgtype.Date{
		"019c0000-0000-7000-8000-000000000000": day(2026, time.January, 27),
		"00000000-0000-7000-8000-000000000000": day(1970, time.January, 1),
		"00000526-5bff-7fff-bfff-ffffffffffff": day(1970, time.January, 1),
		"019c0000-0000-4000-8000-000000000000": infinity,
		"019c0000-0000-7000-0000-000000000000": infinity,
		"00000000-0000-0000-0000-000000000000": infinity,
	} {
		if got := dayOf(uuid.MustParse(id)); got != want {
			t.Errorf("dayOf(%s) = %v, want %v", id, got, want)
		}
	}
}

func TestWidest_LeavesFiltersThatDoNotOverlap(t *testing.T) {
	t.Parallel()
	got := widest([]string{"a.b", "a.>", "c", "c", "d.*", "d.e", "a.b.c"})
	if want := []string{"a.>", "c", "d.*"}; !slices.Equal(got, want) {
		t.Errorf("widest = %v, want %v", got, want)
	}
}

func TestEncode_TakesWhatPostgresCanStore(t *testing.T) {
	t.Parallel()
	type empty struct{}
	cases := map[string]struct {
		result any
		text   string // empty: no result
		err    string
	}{
		"nothing":       {nil, "", ""},
		"nil pointer":   {(*empty)(nil), "", ""},
		"no raw bytes":  {json.RawMessage{}, "", ""},
		"raw bytes":     {json.RawMessage(`{"a": 1}`), `{"a":1}`, ""},
		"a struct":      {empty{}, `{}`, ""},
		"bad raw bytes": {json.RawMessage(`{`), "", "encode"},
		"not UTF-8":     {json.RawMessage("\"\xff\""), "", "not UTF-8"},
		"a channel":     {make(chan int), "", "unsupported type"},
		"too large":     {strings.Repeat("x", maxResult), "", "larger than"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := encode(c.result)
			if (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("encode = %v, want %q", err, c.err)
			}
			if (got == nil) != (c.text == "") || (got != nil && *got != c.text) {
				t.Errorf("encode = %v, want %q", got, c.text)
			}
		})
	}
}

func TestNewWorker_ReportsEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	h := Handle("s", func(context.Context, Message[int]) (int, error) { return 0, nil })
	_, err := NewWorker(nil, nil, WorkerConfig{
		Stream: "a b", Consumer: "x.y", BatchSize: -1, Calls: -2,
		AckWait: -time.Second, Retention: time.Hour,
	}, h, h)
	if err == nil {
		t.Fatal("NewWorker accepted it")
	}
	for _, want := range []string{
		"no Postgres", "no dialer", `Stream "a b"`, `Consumer "x.y"`, "BatchSize -1", "Calls -2",
		"AckWait -1s", "Retention 1h", "two handlers for subject s",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestUnfit_NamesEveryFieldAndNothingElse(t *testing.T) {
	t.Parallel()
	fit := WorkerConfig{}.consumerConfig()
	if got := unfit(fit); len(got) != 0 {
		t.Errorf("the worker's own consumer is unfit: %v", got)
	}
	wrong := unfit(jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckAllPolicy, DeliverPolicy: jetstream.DeliverNewPolicy,
		ReplayPolicy: jetstream.ReplayOriginalPolicy, MaxDeliver: 5, BackOff: []time.Duration{time.Second}, DeliverSubject: "x",
		HeadersOnly: true, InactiveThreshold: time.Minute, PriorityGroups: []string{"g"},
		MaxRequestBatch: 1, MaxRequestExpires: time.Second, MaxRequestMaxBytes: 1,
	})
	if len(wrong) != 12 {
		t.Errorf("%d fields named, want 12: %v", len(wrong), wrong)
	}
}

func TestDrain_OutlivesShutdownByItsGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, shutdown := context.WithCancel(t.Context())
		work, cancel := wait.Drain(ctx, 5*time.Second)
		defer cancel()
		shutdown()
		time.Sleep(4 * time.Second)
		if work.Err() != nil {
			t.Fatal("work was cancelled before its grace ended")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if work.Err() == nil {
			t.Fatal("work outlived its grace")
		}
	})
}

func TestHeld_AsksOnlyForWhatThereIsRoomFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHeld(10)
		var ds []*delivery
		for range 10 {
			d := &delivery{msg: &fakeMsg{}}
			ds = append(ds, d)
			h.add(d)
		}
		room := make(chan int, 1)
		go func() { room <- h.waitForRoom(t.Context()) }()
		for _, d := range ds[:4] {
			h.remove(d)
		}
		synctest.Wait()
		if len(room) != 0 {
			t.Error("asked for fewer than half")
		}
		h.remove(ds[4])
		if got := <-room; got != 5 {
			t.Errorf("room = %d, want 5", got)
		}
		if h.remove(ds[4]) {
			t.Error("settled twice")
		}
	})
}

func TestHeld_WaitsWhileTooManyBytesAreInHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHeld(10)
		h.maxBytes = 100
		d := &delivery{msg: &fakeMsg{data: make([]byte, 100)}}
		h.add(d)
		waited := make(chan struct{})
		go func() { h.waitForBytes(t.Context()); close(waited) }()
		synctest.Wait()
		select {
		case <-waited:
			t.Fatal("did not wait")
		default:
		}
		h.remove(d)
		<-waited
	})
}

func TestHeld_CountsNoFailureOfWhatIsSettledMeanwhile(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]int{
		nil: 0, fmt.Errorf("wrapped: %w", jetstream.ErrMsgAlreadyAckd): 0, nats.ErrConnectionClosed: 1,
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHeld(10)
			h.add(&delivery{msg: &fakeMsg{progress: err}, arrived: time.Now()})
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			failures := 0
			h.keep(ctx, 10*time.Second, func() { failures++ })
			if failures != want {
				t.Errorf("%d failures counted after %v, want %d", failures, err, want)
			}
		})
	}
}

// fakeMsg is a message of which only the body is asked for, and what became of
// InProgress.
type fakeMsg struct {
	jetstream.Msg
	data     []byte
	progress error
}

func (m *fakeMsg) Data() []byte      { return m.data }
func (m *fakeMsg) InProgress() error { return m.progress }

func FuzzDecodeError_QuotesNothing(f *testing.F) {
	f.Add(`{"secret":"hunter2"}`)
	f.Add(`{"N":"hunter2"}`)
	f.Add(`hunter2`)
	f.Fuzz(func(t *testing.T, payload string) {
		type target struct{ N int }
		marker := "hunter2"
		d := &delivery{msg: &fakeMsg{data: []byte(payload)}}
		if _, err := decode[target](d); err != nil && strings.Contains(payload, marker) && strings.Contains(err.Error(), marker) {
			t.Errorf("decode error quotes the payload: %v", err)
		}
	})
}
