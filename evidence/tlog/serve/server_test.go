package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"govah/evidence/tlog"
)

// served is a log with a server, for a test.
type served struct {
	log  *Log
	url  string
	stop func() error
	mu   sync.Mutex
	told []string
}

func serve(t *testing.T, s *Server) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := &served{log: s.Log, url: "http://" + l.Addr().String()}
	s.Report = func(text string) {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.told = append(out.told, text)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	out.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { out.stop() })
	return out
}

func newLog(t *testing.T) *Log {
	t.Helper()
	l, err := Open(t.TempDir(), mustKey(t, "example.org/log", false), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestServer adds over HTTP as a submitter does, with two witnesses, makes the
// same proof from the tiles, and finds what was added after the server has
// ended in good order.
func TestServer(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	s := &Server{Log: l, Quorum: 2}
	policy := "log " + l.VKey() + "\n"
	for i := range 2 {
		w, err := OpenWitness(t.TempDir(), mustKey(t, fmt.Sprint("w", i), true), []string{l.VKey()}, true)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		ws := httptest.NewServer(w.Handler())
		defer ws.Close()
		rw, err := NewRemoteWitness(ws.URL+"/", w.VKey(), ws.Client())
		if err != nil {
			t.Fatal(err)
		}
		s.Witnesses = append(s.Witnesses, rw)
		policy += fmt.Sprintf("witness W%d %s\n", i, w.VKey())
	}
	at := serve(t, s)
	p := policyFor(t, policy+"group all all W0 W1\nquorum all\n")
	c, err := tlog.NewClient(at.url, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now().Add(-time.Second)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			e := entryOf(i % 25)
			proof, got, err := c.Add(ctx, e, p)
			if err != nil {
				t.Errorf("entry %d: %v", i, err)
				return
			}
			if got.Checkpoint.By.Before(begin) || got.Checkpoint.By.After(time.Now()) {
				t.Errorf("cosigned at %v", got.Checkpoint.By)
			}
			if len(proof) > 2048 {
				t.Errorf("a proof of %d bytes", len(proof))
			}
			again, _, err := c.Prove(ctx, got.Index, e, p)
			if err != nil {
				t.Errorf("from the tiles: %v", err)
			} else if _, err := tlog.VerifyProof(again, e[:], p); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l.Size() != 25 {
		t.Errorf("the log has %d entries", l.Size())
	}
	if _, _, err := c.Prove(ctx, 3, entryOf(-1), p); err == nil {
		t.Error("an entry is proved that is not there")
	}
	var pending *tlog.PendingError
	if _, _, err := c.Prove(ctx, 25, entryOf(25), p); !errors.As(err, &pending) {
		t.Errorf("an index that is not there: %v", err)
	}
	if _, err := l.Add(ctx, entryOf(99)); err != nil { // not published when the server ends
		t.Fatal(err)
	}
	if err := at.stop(); err != nil {
		t.Fatal(err)
	}
	e := entryOf(99)
	proof, _, err := l.Proof(e)
	if err != nil {
		t.Fatalf("what was durable at the end: %v", err)
	}
	if _, err := tlog.VerifyProof(proof, e[:], p); err != nil {
		t.Error(err)
	}
	if len(at.told) > 0 {
		t.Errorf("it reports %v", at.told)
	}
}

// TestServerAnswers: the answers to what is no entry, to paths, to too much,
// and while a witness is down.
func TestServerAnswers(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	down := httptest.NewServer(http.NotFoundHandler())
	rw, err := NewRemoteWitness(down.URL, witnessVKey(t, "down"), down.Client())
	down.Close()
	if err != nil {
		t.Fatal(err)
	}
	at := serve(t, &Server{Log: l, Witnesses: []*RemoteWitness{rw}, Quorum: 1, Rate: 2})
	ask := func(method, path string, body []byte) (int, string, http.Header) {
		req, err := http.NewRequest(method, at.url+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.Header
	}
	e := entryOf(1)
	status, body, _ := ask("POST", "/add", e[:])
	if status != http.StatusAccepted || body != "index 0\n" {
		t.Errorf("without the witness: %d %q", status, body)
	}
	c, err := tlog.NewClient(at.url, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := c.Add(short, e, &tlog.Policy{}); err == nil {
		t.Error("a proof without a checkpoint")
	}
	for _, q := range []struct {
		method, path string
		body         []byte
		status       int
	}{
		{"GET", "/checkpoint", nil, 503}, {"GET", "/add", nil, 405}, {"GET", "/", nil, 200}, {"GET", "/.state/journal", nil, 404},
		{"GET", "/tile/0/000.p/1", nil, 200}, {"GET", "/tile/entries/000.p/1", nil, 200}, {"GET", "/tile/0/000", nil, 404},
		{"GET", "/tile/0/000.p/2", nil, 404}, {"GET", "/tile/%2e%2e/.state/tree", nil, 404}, {"GET", "/tile/8/0/000", nil, 404},
		{"POST", "/add", make([]byte, 31), 400}, {"POST", "/add", make([]byte, 33), 400}, {"POST", "/add", make([]byte, 1<<20), 400},
	} {
		if status, body, _ := ask(q.method, q.path, q.body); status != q.status {
			t.Errorf("%s %s: %d %q; %d was expected", q.method, q.path, status, body, q.status)
		}
	}
	many := 0
	for range 20 {
		status, _, header := ask("POST", "/add", nil)
		if status == http.StatusTooManyRequests && header.Get("Retry-After") != "" {
			many++
		}
	}
	if many < 10 {
		t.Errorf("%d of 20 at once were too many", many)
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	if len(at.told) != 1 || !strings.Contains(at.told[0], "the witness down has not cosigned") {
		t.Errorf("it reports %q", at.told)
	}
}

// TestRate: a network has its own measure, whatever the address in it, and the
// memory for them is bounded.
func TestRate(t *testing.T) {
	t.Parallel()
	s := &Server{Rate: 1, rates: map[netip.Prefix]*bucket{}}
	now := time.Unix(1e9, 0)
	allowed := func(addr string) int {
		n := 0
		for range 100 {
			if s.allowed(addr, now) {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		addr string
		want int
	}{
		{"192.0.2.1:5", 4}, {"192.0.2.200:6", 0}, {"192.0.3.1:5", 4}, {"[2001:db8:1::1]:5", 4}, {"[2001:db8:1:2::3]:5", 0}, {"[2001:db8:2::]:5", 4},
		{"[::ffff:192.0.2.7]:1", 0}, {"@", 0},
	} {
		if got := allowed(c.addr); got != c.want {
			t.Errorf("%s may add %d; %d were expected", c.addr, got, c.want)
		}
	}
	now = now.Add(2 * time.Second)
	if got := allowed("192.0.2.1:5"); got != 2 {
		t.Errorf("after two seconds %d", got)
	}
	for i := range 3 * maxClients {
		s.allowed(fmt.Sprintf("10.%d.%d.1:1", i>>8&255, i&255), now)
		s.allowed(fmt.Sprintf("[2001:db8:%x::]:1", i), now)
	}
	if len(s.rates) > maxClients {
		t.Errorf("%d networks are remembered", len(s.rates))
	}
	now = now.Add(time.Minute)
	if got := allowed("198.51.100.1:1"); got != 4 {
		t.Errorf("after a minute a new network may add %d", got)
	}
}
