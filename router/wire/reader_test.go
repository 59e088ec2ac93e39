package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// claim sends a header, then as many zeros as left says, then ends.
type claim struct {
	header []byte
	left   int
}

func (c *claim) Read(p []byte) (int, error) {
	if len(c.header) > 0 {
		n := copy(p, c.header)
		c.header = c.header[n:]
		return n, nil
	}
	if c.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), c.left)
	c.left -= n
	return n, nil
}

func header(kind byte, length uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, length)
}

func TestReaderLimits(t *testing.T) {
	for _, tc := range []struct {
		name  string
		phase Phase
		bytes []byte
		want  string
	}{
		{"unknown type", Frontend, header('z', 4), "invalid frontend message type 122"},
		{"query before password", Authenticating, header('Q', 8), "expected password response, got message type 81"},
		{"long password", Authenticating, header('p', MaxAuthFrame+1), "invalid message length"},
		{"length below itself", Frontend, header('Q', 3), "invalid message length"},
		{"negative length", Frontend, header('Q', 0xffffffff), "invalid message length"},
		{"over 1 GB", Frontend, header('d', 1<<30), "invalid message length"},
		{"long name", Frontend, header('D', MaxSmallFrame+1), "invalid message length"},
		{"unknown backend type", Backend, header('Q', 4), "invalid backend message type 81"},
		{"unknown type alone", Frontend, []byte{0}, "invalid frontend message type 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(append(tc.bytes, make([]byte, 64)...)), tc.phase)
			for range 2 { // and it stays
				_, err := r.Next()
				var protocol *ProtocolError
				if !errors.As(err, &protocol) || protocol.Message != tc.want || protocol.SQLState() != "08P01" {
					t.Fatalf("got %v, want %s", err, tc.want)
				}
			}
		})
	}
}

// A header alone allocates nothing; memory grows with what arrives.
func TestReaderMemoryIsBoundedByWhatArrived(t *testing.T) {
	const arrived = 100_000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := NewReader(&claim{header: header('Q', MaxFrame), left: arrived}, Frontend)
	_, err := r.Next()
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v, want an unexpected EOF", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 8*arrived {
		t.Fatalf("%d bytes were allocated for %d that arrived", used, arrived)
	}
}

func TestReaderEnds(t *testing.T) {
	whole := AppendQuery(AppendSync(nil), "select 1")
	for cut := range len(whole) + 1 {
		r := NewReader(iotest.OneByteReader(bytes.NewReader(whole[:cut])), Frontend)
		var err error
		frames := 0
		for {
			if _, err = r.Next(); err != nil {
				break
			}
			frames++
		}
		want, count := io.ErrUnexpectedEOF, 0
		if cut >= 5 {
			count = 1
		}
		if cut == len(whole) {
			count = 2
		}
		if cut == 0 || cut == 5 || cut == len(whole) {
			want = io.EOF
		}
		if !errors.Is(err, want) || frames != count {
			t.Fatalf("cut at %d: %d frames and %v, want %d and %v", cut, frames, err, count, want)
		}
	}
}

// Frames of all sizes come out whole however the stream is chopped, and a deadline in the middle loses nothing.
func TestReaderAnyChopping(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var stream []byte
	var want [][]byte
	for range 300 {
		size := rng.IntN(200)
		if rng.IntN(20) == 0 {
			size = rng.IntN(200_000)
		}
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		want = append(want, body)
		stream = AppendFrame(stream, 'd', body)
	}
	errPause := errors.New("pause")
	src := &chopper{data: stream, rng: rng, pause: errPause}
	r := NewReader(src, Frontend)
	for i, body := range want {
		frame, err := r.Next()
		for errors.Is(err, errPause) {
			frame, err = r.Next()
		}
		if err != nil || frame.Type != 'd' || !bytes.Equal(frame.Body, body) || !bytes.Equal(frame.Raw, AppendFrame(nil, 'd', body)) {
			t.Fatalf("frame %d differs: %v", i, err)
		}
	}
	if r.Buffered() != 0 {
		t.Fatalf("%d bytes left over", r.Buffered())
	}
	r.Release()
	if r.buf != nil {
		t.Fatal("an empty reader kept its buffer")
	}
}

type chopper struct {
	data  []byte
	rng   *rand.Rand
	pause error
}

func (c *chopper) Read(p []byte) (int, error) {
	if c.rng.IntN(10) == 0 {
		return 0, c.pause
	}
	n := min(len(p), len(c.data), 1+c.rng.IntN(50_000))
	copy(p, c.data[:n])
	c.data = c.data[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestPeekAndPoll(t *testing.T) {
	r := NewReader(bytes.NewReader(AppendSync(AppendFlush(nil))), Frontend)
	if _, ok, err := r.Poll(); ok || err != nil {
		t.Fatalf("poll of an empty buffer: %v %v", ok, err)
	}
	if err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []byte("HS") {
		peeked, ok, err := r.Peek()
		polled, ok2, err2 := r.Poll()
		if !ok || !ok2 || err != nil || err2 != nil || peeked.Type != want || polled.Type != want {
			t.Fatalf("got %c %c, want %c", peeked.Type, polled.Type, want)
		}
	}
}

// What a man in the middle sends before the TLS handshake must not be read after it.
func TestSetSourceRefusesEarlyBytes(t *testing.T) {
	r := NewReader(bytes.NewReader(AppendQuery(AppendSSLRequest(nil), "select 1")), Authenticating)
	startup, err := r.ReadStartup()
	if err != nil || startup.Kind != SSLRequest {
		t.Fatalf("got %+v %v", startup, err)
	}
	var protocol *ProtocolError
	if err := r.SetSource(strings.NewReader("")); !errors.As(err, &protocol) {
		t.Fatalf("got %v, want a protocol error", err)
	}
}

func TestRelayAllocatesNothing(t *testing.T) {
	stream := bytes.Repeat(AppendDataRow(nil, [][]byte{[]byte("12"), nil, []byte("some text")}), 1000)
	source := bytes.NewReader(stream)
	r := NewReader(source, Backend)
	out := make([]byte, 0, 1<<20)
	allocs := testing.AllocsPerRun(20, func() {
		source.Reset(stream)
		out = out[:0]
		for {
			frame, err := r.Next()
			if err != nil {
				break
			}
			row := NewRow(frame.Body)
			for _, ok := row.Next(); ok; _, ok = row.Next() {
			}
			out = append(out, frame.Raw...)
		}
	})
	if allocs > 0 || !bytes.Equal(out, stream) {
		t.Fatalf("%v allocations for 1000 frames, %d bytes of %d", allocs, len(out), len(stream))
	}
}

func BenchmarkReader(b *testing.B) {
	stream := bytes.Repeat(AppendDataRow(nil, [][]byte{[]byte("12"), nil, []byte("some text")}), 1000)
	source := bytes.NewReader(stream)
	r := NewReader(source, Backend)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		source.Reset(stream)
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
}
