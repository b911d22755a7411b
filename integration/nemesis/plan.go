package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// fault is one entry of a plan.
type fault struct {
	At     time.Duration // since the faults began
	For    time.Duration // from its injection to its end
	Kind   string
	Target string // what it strikes, and what no other fault strikes meanwhile
}

func (f fault) String() string {
	return fmt.Sprintf("%6.2fs +%4.2fs  %-16s %s", f.At.Seconds(), f.For.Seconds(), f.Kind, f.Target)
}

// plan is everything about a run that chance decides: a function of the seed
// and the duration alone. The scheduling of the machine is not in it.
type plan struct {
	Seed      uint64
	Servers   int  // of NATS: 1 or 3
	SyncEach  bool // NATS syncs each message
	WorkQueue bool // else the stream keeps everything, and its order can be judged
	Clock     bool // Postgres has a clock that can be shifted
	Faults    []fault
}

const (
	// overlap is how many faults may be in force at once.
	overlap  = 3
	longest  = 4 * time.Second
	shortest = 100 * time.Millisecond
)

func newPlan(seed uint64, duration time.Duration) plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := plan{Seed: seed, Servers: 1, SyncEach: r.IntN(2) == 0, WorkQueue: r.IntN(2) == 0}
	if r.IntN(3) == 0 {
		p.Servers, p.SyncEach = 3, false
	}
	p.Clock = r.IntN(4) == 0
	kinds := p.kinds()
	for at := time.Duration(0); at < duration; at += between(r, shortest, 1500*time.Millisecond) {
		kind := kinds[r.IntN(len(kinds))]
		targets := p.targets(kind)
		f := fault{At: at, For: between(r, shortest, cmp.Or(faults[kind].longest, longest)), Kind: kind, Target: targets[r.IntN(len(targets))]}
		f.For = min(f.For, duration-at)
		if p.fits(f) {
			p.Faults = append(p.Faults, f)
		}
	}
	return p
}

// eachFault is one fault of every kind, one after the other. Three servers have
// only those that they make different.
func eachFault(servers int, workQueue bool) plan {
	p := plan{Servers: servers, WorkQueue: workQueue, Clock: servers == 1}
	for _, kind := range p.kinds() {
		if on := faults[kind].on; servers > 1 && on != aServer && on != theStream {
			continue
		}
		p.Faults = append(p.Faults, fault{For: cmp.Or(faults[kind].longest, time.Second), Kind: kind, Target: p.targets(kind)[0]})
	}
	return p
}

// withoutClock is the plan for a machine on which no clock can be shifted.
func (p plan) withoutClock() plan {
	p.Clock = false
	p.Faults = slices.DeleteFunc(slices.Clone(p.Faults), shiftsClock)
	return p
}

func shiftsClock(f fault) bool { return faults[f.Kind].on == theClock }

// kinds are the names of the faults that a lab of this shape can have, sorted.
func (p plan) kinds() []string {
	var names []string
	for name, k := range faults {
		if (k.servers == 0 || k.servers == p.Servers) && (p.WorkQueue || !k.unorders) && (p.Clock || k.on != theClock) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (p plan) targets(kind string) []string {
	switch faults[kind].on {
	case aDaemon:
		return daemonNames
	case aRelay:
		return []string{"relay-1", "relay-2"}
	case aServer:
		return p.serverNames()
	case aLink:
		return p.linkNames()
	case aPostgresLink:
		return []string{link("worker-1", "postgres"), link("worker-2", "postgres"), link("api", "postgres")}
	case thePostgres:
		return []string{"postgres"}
	case theClock:
		return []string{"clock"}
	default:
		return []string{"stream"}
	}
}

// fits reports whether f leaves its target to an earlier fault, and strikes
// beside at most two others.
func (p plan) fits(f fault) bool {
	beside := 0
	for _, g := range p.Faults {
		if g.At+g.For < f.At || f.At+f.For < g.At {
			continue
		}
		beside++
		if g.Target == f.Target {
			return false
		}
	}
	return beside < overlap
}

func (p plan) serverNames() []string {
	names := make([]string, p.Servers)
	for i := range names {
		names[i] = fmt.Sprintf("nats-%d", i+1)
	}
	return names
}

func (p plan) linkNames() []string {
	names := p.routeNames()
	for _, d := range daemonNames {
		for _, server := range append([]string{"postgres"}, p.serverNames()...) {
			names = append(names, link(d, server))
		}
	}
	return append(names, link("producers", "postgres"))
}

// routeNames are the ways between the servers of a cluster.
func (p plan) routeNames() []string {
	var names []string
	for _, from := range p.serverNames() {
		for _, to := range p.serverNames() {
			if from != to {
				names = append(names, link(from, to))
			}
		}
	}
	return names
}

// link names the way from a process to a server.
func link(from, to string) string { return from + "→" + to }

var daemonNames = []string{"relay-1", "relay-2", "worker-1", "worker-2", "api"}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}
