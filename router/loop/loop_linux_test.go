package loop_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shardyard/shardyard/router/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a loop until the test ends.
func start(t *testing.T) *loop.Loop {
	t.Helper()
	l, err := loop.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { l.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return l
}

// pair is a connection of which the loop has one end.
func pair(t *testing.T, l *loop.Loop) (ours *loop.Conn, peer net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if peer, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	adopted, err := l.Adopt(accepted)
	if err != nil {
		t.Fatal(err)
	}
	ours = adopted.(*loop.Conn)
	if ours.RemoteAddr().String() != peer.LocalAddr().String() {
		t.Fatalf("adopted %s, not %s", ours.RemoteAddr(), peer.LocalAddr())
	}
	t.Cleanup(func() { _ = peer.Close(); _ = ours.Close() })
	return ours, peer
}

// echo answers everything, now and then off the loop, until the peer hangs up.
func echo(task *loop.Task, conn *loop.Conn, random *rand.Rand) error {
	conn.Own(task)
	defer conn.Own(nil)
	buf := make([]byte, 700)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, io.EOF) {
			task.Leave()
			return nil
		}
		if err != nil {
			return err
		}
		if random.IntN(4) == 0 {
			task.Leave()
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return err
		}
		if random.IntN(2) == 0 {
			task.Enter()
		}
	}
}

func TestEcho(t *testing.T) {
	l := start(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var clients, tasks sync.WaitGroup
	for i := range uint64(20) {
		conn, peer := pair(t, l)
		tasks.Add(1)
		l.Go(func(task *loop.Task) {
			defer tasks.Done()
			if err := echo(task, conn, rand.New(rand.NewPCG(seed, i))); err != nil {
				t.Error(err)
			}
		})
		clients.Go(func() {
			random := rand.New(rand.NewPCG(seed, 100+i))
			for range 200 {
				sent := make([]byte, 1+random.IntN(3000))
				for at := range sent {
					sent[at] = byte(random.Uint32())
				}
				got := make([]byte, len(sent))
				if _, err := peer.Write(sent); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("got another answer: %v", err)
					break
				}
			}
			_ = peer.Close()
		})
	}
	clients.Wait()
	tasks.Wait()
}

// A task with turns holds nothing between them, whether it ends them on the loop or off it, and is woken by what comes, by a deadline
// and by the end.
func TestTurns(t *testing.T) {
	l := start(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var clients, tasks sync.WaitGroup
	for i := range uint64(20) {
		conn, peer := pair(t, l)
		random := rand.New(rand.NewPCG(seed, i))
		buf := make([]byte, 5)
		first, woken := true, 0
		tasks.Add(1)
		l.Serve(func(task *loop.Task) *loop.Conn {
			if conn.Own(task); first {
				first = false
				return conn
			}
			n, err := conn.Read(buf)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded):
				woken++
				if err := conn.SetReadDeadline(time.Time{}); err != nil {
					t.Error(err)
				}
				return conn
			case err != nil:
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				if woken == 0 {
					t.Error("no deadline has woken it")
				}
				tasks.Done()
				return nil
			}
			if random.IntN(3) == 0 {
				task.Leave()
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				t.Error(err)
			}
			return conn
		})
		clients.Go(func() {
			for round := range 300 {
				sent := []byte("twelve bytes")
				got := make([]byte, len(sent))
				if _, err := peer.Write(sent); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("got %q: %v", got, err)
				}
				if round%100 == 50 {
					if err := conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
						t.Error(err)
					}
				}
			}
			_ = peer.Close()
		})
	}
	clients.Wait()
	tasks.Wait()
}

// A task that blocks costs the others a pause, not their lives.
func TestBlockedLoop(t *testing.T) {
	l := start(t)
	conn, peer := pair(t, l)
	free, ended := make(chan struct{}), make(chan error, 2)
	l.Go(func(task *loop.Task) {
		<-free // wrong: it has not left
		conn.Own(task)
		_, err := conn.Read(make([]byte, 1)) // and goes on as if it had been right
		ended <- err
	})
	other, otherPeer := pair(t, l)
	l.Go(func(task *loop.Task) {
		other.Own(task)
		_, err := other.Read(make([]byte, 1))
		close(free)
		ended <- err
	})
	for _, p := range []net.Conn{otherPeer, peer} {
		if _, err := p.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeadline(t *testing.T) {
	l := start(t)
	conn, peer := pair(t, l)
	for _, onLoop := range []bool{true, false} {
		ended := make(chan error, 1)
		read := func() {
			_, err := conn.Read(make([]byte, 10))
			ended <- err
		}
		for _, deadline := range []time.Time{time.Unix(1, 0), time.Now().Add(10 * time.Millisecond)} {
			if err := conn.SetReadDeadline(deadline); err != nil {
				t.Fatal(err)
			}
			if onLoop {
				l.Go(func(task *loop.Task) { conn.Own(task); read() })
			} else {
				conn.Own(nil)
				go read()
			}
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("on the loop %v: %v", onLoop, err)
			}
		}
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		// It wakes who waits already, and loses nothing.
		l.Go(func(task *loop.Task) { conn.Own(task); read() })
		if err := conn.SetDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := peer.Write([]byte("more")); err != nil {
			t.Fatal(err)
		}
		l.Go(func(task *loop.Task) { conn.Own(task); read() })
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// Close wakes who waits, on the loop and off it, to read and to write.
func TestClose(t *testing.T) {
	l := start(t)
	for _, onLoop := range []bool{true, false} {
		for _, write := range []bool{true, false} {
			conn, _ := pair(t, l)
			ended, waits := make(chan error, 1), make(chan struct{})
			use := func() {
				close(waits)
				for {
					var err error
					if write {
						_, err = conn.Write(make([]byte, 1<<20))
					} else {
						_, err = conn.Read(make([]byte, 1))
					}
					if err != nil {
						ended <- err
						return
					}
				}
			}
			if onLoop {
				l.Go(func(task *loop.Task) { conn.Own(task); use() })
			} else {
				go use()
			}
			<-waits
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Fatalf("on the loop %v, write %v: %v", onLoop, write, err)
			}
			if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Fatal(err)
			}
			if err := conn.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
				t.Fatal(err)
			}
		}
	}
}

// What is written to a peer that does not read waits without holding up the loop.
func TestSlowReader(t *testing.T) {
	l := start(t)
	conn, peer := pair(t, l)
	sent := make([]byte, 32<<20)
	for i := range sent {
		sent[i] = byte(i >> 8)
	}
	ended := make(chan error, 1)
	l.Go(func(task *loop.Task) {
		conn.Own(task)
		n, err := conn.Write(sent)
		if n != len(sent) && err == nil {
			err = io.ErrShortWrite
		}
		ended <- errors.Join(err, conn.Close())
	})
	other, otherPeer := pair(t, l)
	l.Go(func(task *loop.Task) {
		other.Own(task)
		buf := make([]byte, 1)
		_, err := other.Read(buf)
		if _, failed := other.Write(buf); err != nil || failed != nil {
			t.Error(err, failed)
		}
	})
	if _, err := otherPeer.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(otherPeer, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes of %d: %v", len(got), len(sent), err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// What came before the peer hung up is read, then the end.
func TestHangUp(t *testing.T) {
	l := start(t)
	conn, peer := pair(t, l)
	if _, err := peer.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	l.Go(func(task *loop.Task) {
		conn.Own(task)
		got, err := io.ReadAll(conn)
		if string(got) != "last words" && err == nil {
			err = errors.New("got " + string(got))
		}
		if conn.Quiet() {
			err = errors.New("a connection that has ended is not quiet")
		}
		ended <- err
	})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// A wait of a task, with the switch to it and back, allocates nothing.
func TestNoAllocation(t *testing.T) {
	l := start(t)
	conn, peer := pair(t, l)
	ended := make(chan struct{})
	l.Go(func(task *loop.Task) {
		defer close(ended)
		conn.Own(task)
		buf := make([]byte, 64)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 64)
	allocated := testing.AllocsPerRun(1000, func() {
		if _, err := peer.Write(buf); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(peer, buf); err != nil {
			t.Error(err)
		}
	})
	_ = peer.Close()
	<-ended
	if allocated >= 1 {
		t.Fatalf("%v allocations each", allocated)
	}
}
