package deadlock

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shardyard/shardyard/directory"
)

// Backend is a server process on a shard.
type Backend struct {
	Shard directory.ShardID
	PID   uint32
}

func (b Backend) String() string { return fmt.Sprintf("%s:%d", b.Shard, b.PID) }

func compareBackends(a, b Backend) int {
	return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.PID, b.PID))
}

// Process is what a shard says of a server process that waits or is waited for.
type Process struct {
	Backend
	// Session is the same for all processes that work for one transaction of a client.
	Session string
	// Began is when its transaction began, by the shard's clock.
	Began time.Time
}

// Wait says that one process waits for a lock that another has, or that another asked for before it.
type Wait struct {
	Waiter, Holder Process
	// Since is when the wait began; Lock and Mode are what is waited for, in Postgres's words.
	Since      time.Time
	Lock, Mode string
}

// Circle is a deadlock: each wait's holder is the session of the next wait's waiter, and of the last wait that of the first.
// It begins with the least session.
type Circle []Wait

// Circles finds deadlocks over several shards; those within one shard are Postgres's own. Each is one of the
// shortest that some wait is part of, and no session is in two of them. joined are processes that are known to
// work for one session, whatever Process.Session says.
//
// All routers that see the same waits find the same circles.
func Circles(waits []Wait, joined [][]Backend) []Circle {
	g := newGraph(waits, joined)
	var found []Circle
	used := make(map[string]bool)
	for _, w := range g.waits {
		circle := g.shortest(w, used)
		if circle == nil {
			continue
		}
		for _, w := range circle {
			used[g.session(w.Waiter)] = true
		}
		found = append(found, g.rotate(circle))
	}
	return found
}

type graph struct {
	waits  []Wait // sorted
	from   map[string][]Wait
	knots  map[string]int // strongly connected component of each session
	joined map[Backend]string
}

func newGraph(waits []Wait, joined [][]Backend) *graph {
	g := &graph{waits: slices.Clone(waits), from: make(map[string][]Wait), joined: make(map[Backend]string)}
	names := make(map[string]string)
	for _, w := range waits {
		for _, p := range []Process{w.Waiter, w.Holder} {
			names[p.String()] = p.Session
		}
	}
	for _, backends := range joined {
		name := ""
		for _, b := range backends {
			if known, ok := names[b.String()]; ok && (name == "" || known < name) {
				name = known
			}
		}
		for _, b := range backends {
			g.joined[b] = name
		}
	}
	slices.SortFunc(g.waits, func(a, b Wait) int {
		return cmp.Or(compareBackends(a.Waiter.Backend, b.Waiter.Backend), compareBackends(a.Holder.Backend, b.Holder.Backend))
	})
	for _, w := range g.waits {
		if a, b := g.session(w.Waiter), g.session(w.Holder); a != b {
			g.from[a] = append(g.from[a], w)
		}
	}
	g.knots = components(g)
	return g
}

// session is the name under which a process's session stands in the graph.
func (g *graph) session(p Process) string {
	if name, ok := g.joined[p.Backend]; ok && name != "" {
		return name
	}
	return p.Session
}

// shortest is the shortest circle that a wait is part of, if that is over several shards and touches nothing used.
func (g *graph) shortest(first Wait, used map[string]bool) Circle {
	start, goal := g.session(first.Holder), g.session(first.Waiter)
	if start == goal || used[start] || used[goal] || g.knots[start] != g.knots[goal] {
		return nil
	}
	cameBy := map[string]Wait{start: {}}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at == goal {
			break
		}
		for _, w := range g.from[at] {
			next := g.session(w.Holder)
			if _, seen := cameBy[next]; seen || used[next] || g.knots[next] != g.knots[start] {
				continue
			}
			cameBy[next] = w
			queue = append(queue, next)
		}
	}
	if _, ok := cameBy[goal]; !ok {
		return nil
	}
	circle := Circle{}
	for at := goal; at != start; {
		w := cameBy[at]
		circle = append(circle, w)
		at = g.session(w.Waiter)
	}
	circle = append(circle, first)
	slices.Reverse(circle)
	if !slices.ContainsFunc(circle, func(w Wait) bool { return w.Waiter.Shard != first.Waiter.Shard }) {
		return nil
	}
	return circle
}

// rotate makes the least session the first.
func (g *graph) rotate(c Circle) Circle {
	least := 0
	for i := range c {
		if g.session(c[i].Waiter) < g.session(c[least].Waiter) {
			least = i
		}
	}
	return slices.Concat(c[least:], c[:least])
}

// components numbers the strongly connected components, by Tarjan's algorithm. Circles are within one.
func components(g *graph) map[string]int {
	index, low, number := make(map[string]int), make(map[string]int), make(map[string]int)
	var stack []string
	type frame struct {
		node string
		next int
	}
	visit := func(root string) {
		calls := []frame{{node: root}}
		for len(calls) > 0 {
			f := &calls[len(calls)-1]
			v := f.node
			if f.next == 0 {
				index[v] = len(index) + 1
				low[v] = index[v]
				stack = append(stack, v)
			}
			if f.next < len(g.from[v]) {
				w := g.session(g.from[v][f.next].Holder)
				f.next++
				if index[w] == 0 {
					calls = append(calls, frame{node: w})
				} else if number[w] == 0 {
					low[v] = min(low[v], index[w])
				}
				continue
			}
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				parent := calls[len(calls)-1].node
				low[parent] = min(low[parent], low[v])
			}
			if low[v] == index[v] {
				for done := false; !done; {
					top := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					number[top], done = index[v], top == v
				}
			}
		}
	}
	for _, w := range g.waits {
		if v := g.session(w.Waiter); index[v] == 0 {
			visit(v)
		}
	}
	return number
}

// Signature is the same for two circles if not one of their waits has ended in between: then all of them
// stood at the same moment, so it is a deadlock though the shards were not asked at one moment.
func (c Circle) Signature() string {
	var text strings.Builder
	for _, w := range c {
		fmt.Fprintf(&text, "%s %d %d %s>%s %d;", w.Waiter.Backend, w.Waiter.Began.UnixMicro(), w.Since.UnixMicro(), w.Lock,
			w.Holder.Backend, w.Holder.Began.UnixMicro())
	}
	return text.String()
}

// ByAge are the places in the circle of its sessions' waits, that of the youngest transaction first. A transaction is as old as
// its oldest process; of two that began together the one with the greater name is the younger.
func (c Circle) ByAge() []int {
	began := make([]time.Time, len(c))
	for i, w := range c {
		began[i] = w.Waiter.Began
		if h := c[(i+len(c)-1)%len(c)].Holder.Began; h.Before(began[i]) { // another process of the same session
			began[i] = h
		}
	}
	order := make([]int, len(c))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(began[b].Compare(began[a]), compareBackends(c[b].Waiter.Backend, c[a].Waiter.Backend))
	})
	return order
}

// Detail describes the circle as Postgres describes its own, beginning with the wait at a place of it.
func (c Circle) Detail(first int) string {
	lines := make([]string, 0, len(c))
	for i := range c {
		w := c[(first+i)%len(c)]
		line := fmt.Sprintf("Process %d of shard %s waits for %s on %s; blocked by process %d.",
			w.Waiter.PID, w.Waiter.Shard, w.Mode, w.Lock, w.Holder.PID)
		next := c[(first+i+1)%len(c)].Waiter
		if next.Backend != w.Holder.Backend {
			line += fmt.Sprintf(" Its transaction has process %d of shard %s.", next.PID, next.Shard)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
