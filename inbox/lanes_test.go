package inbox

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"
)

// waiting is a delivery with number n of key that came at a time before now.
func waiting(key string, n uint64, since time.Duration) *delivery {
	d := &delivery{msg: local{m: &nats.Msg{}}, attempt: int(n), arrived: time.Now().Add(-since)}
	d.env.Key = key
	return d
}

// now makes take return at once: with a batch that is due, or none.
func now() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

func TestLanes_HandOutEachMessageOnceAndAKeysInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLanes(3, 4)
		var running [][]*delivery
		put, last := 0, map[string]int{}
		take := func() {
			if len(running) == 3 {
				return
			}
			batch := l.take(now())
			for _, d := range batch {
				if others := slices.Concat(running...); d.env.Key != "" && slices.ContainsFunc(others, func(o *delivery) bool { return o.env.Key == d.env.Key }) {
					t.Fatalf("key %s runs twice", d.env.Key)
				}
				if d.env.Key != "" && d.attempt <= last[d.env.Key] {
					t.Fatalf("key %s: %d after %d", d.env.Key, d.attempt, last[d.env.Key])
				}
				last[d.env.Key] = d.attempt
				put--
			}
			if len(batch) > 0 {
				running = append(running, batch)
			}
		}
		rest := func() {
			if len(running) > 0 {
				i := rapid.IntRange(0, len(running)-1).Draw(t, "batch")
				if rapid.Bool().Draw(t, "committed") {
					l.yield()()
				}
				l.rest(running[i])
				running = slices.Delete(running, i, i+1)
			}
		}
		n := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				n++
				put++
				l.put(waiting(rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "key"), n, joinWait))
			},
			"take": func(*rapid.T) { take() },
			"rest": func(*rapid.T) { rest() },
		})
		for rounds := 0; put > 0 && rounds < 1000; rounds++ {
			take()
			rest()
		}
		if put != 0 || len(l.empty()) != 0 {
			t.Fatalf("%d messages were never handed out", put)
		}
	})
}

func TestLanes_WaitForABatchThatRunsButNotLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(2, 10)
		l.put(waiting("", 1, 0))
		first := l.take(nil)
		if len(first) != 1 {
			t.Fatalf("an idle worker let %d messages wait", l.waiting)
		}
		l.put(waiting("", 2, 0))
		l.put(waiting("", 3, 0))
		if second := l.take(now()); second != nil {
			t.Fatalf("%d messages ran beside the first at once", len(second))
		}
		start := time.Now()
		if second := l.take(nil); len(second) != 2 || time.Since(start) != joinWait {
			t.Errorf("%d messages after %v, want 2 after %v", len(second), time.Since(start), joinWait)
		}
		l.put(waiting("", 4, 0))
		l.rest(first)
		if next := l.take(now()); next != nil {
			t.Errorf("a batch began beside one that runs")
		}
	})
}

func TestLanes_BeginBesideABatchThatCommits(t *testing.T) {
	t.Parallel()
	l := newLanes(3, 10)
	l.put(waiting("a", 1, 0))
	first := l.take(nil)
	l.put(waiting("", 2, 0))
	l.put(waiting("a", 3, 0))
	resume := l.yield()
	if second := l.take(now()); len(first) != 1 || len(second) != 1 || second[0].env.Key != "" {
		t.Fatalf("beside a COMMIT began %d messages, want the one without its key", len(second))
	}
	resume()
	l.put(waiting("", 4, 0))
	l.rest(first)
	if third := l.take(now()); third != nil {
		t.Errorf("a batch began beside one that runs")
	}
}

func TestLanes_GiveBackWhatNobodyTook(t *testing.T) {
	t.Parallel()
	l := newLanes(1, 2)
	for n := range uint64(4) {
		l.put(waiting("k", n+1, joinWait))
	}
	l.put(waiting("", 5, joinWait))
	batch := l.take(now())
	if rest := l.empty(); len(batch) != 2 || len(rest) != 3 || l.take(now()) != nil {
		t.Errorf("%d taken, %d left, want 2 and 3", len(batch), len(rest))
	}
	l.put(waiting("k", 6, joinWait)) // the broker was late with it
	l.rest(batch)
	if late := l.take(now()); len(late) != 1 {
		t.Errorf("%d messages that came after the end were handed out, want 1", len(late))
	}
}
