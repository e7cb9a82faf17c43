package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"govah/evidence/tlog"
)

const (
	publishEvery = time.Second     // at most so often, while entries come
	addWait      = 5 * time.Second // that an add waits for the checkpoint
	askTimeout   = 5 * time.Second // for all witnesses of a round
	refreshEvery = 10 * time.Minute
	retryEvery   = 5 * time.Second // while something is wrong
	maxClients   = 1 << 14         // networks whose rate is known
	maxConns     = 1 << 10
)

// Server serves a log over HTTP: its files, and add.
type Server struct {
	Log       *Log
	Witnesses []*RemoteWitness
	Quorum    int          // witnesses that must have cosigned before a checkpoint is shown
	Rate      float64      // entries a second that one network may add, four seconds' worth at once; 0: any
	Report    func(string) // told what goes wrong with the disk or a witness, and when it is over

	wake  chan struct{}
	mu    sync.Mutex
	news  chan struct{} // closed at the next checkpoint
	rates map[netip.Prefix]*bucket
	swept time.Time // when networks were last forgotten

	last   string // what failed reported last
	lastAt time.Time
}

type bucket struct {
	tokens float64
	last   time.Time
}

// Serve serves until the context ends, then answers what is under way, and
// publishes what is durable.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.wake, s.news, s.rates = make(chan struct{}, 1), make(chan struct{}), map[netip.Prefix]*bucket{}
	asked := Ask(s.Witnesses...)
	var wg sync.WaitGroup
	publish, stop := context.WithCancel(context.Background())
	wg.Go(func() { s.publish(publish, asked) })
	err := serveHTTP(ctx, l, s.handler())
	stop()
	wg.Wait()
	last, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	return errors.Join(err, s.Log.Publish(last, asked, s.Quorum, refreshEvery))
}

// Serve serves add-checkpoint until the context ends.
func (w *Witness) Serve(ctx context.Context, l net.Listener) error {
	return serveHTTP(ctx, l, w.Handler())
}

func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(io.Discard, "", 0), // addresses of clients are not kept
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(&limited{Listener: l, free: make(chan struct{}, maxConns)}) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
	}
	<-ended
	return nil
}

// limited bounds the connections that are open at once.
type limited struct {
	net.Listener
	free chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	l.free <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.free })}, nil
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// publish brings checkpoints out while entries come, asks witnesses again that
// did not answer, and for a new time now and then.
func (s *Server) publish(ctx context.Context, asked []*Asked) {
	said := map[string]bool{}
	for {
		round, cancel := context.WithTimeout(ctx, askTimeout)
		err := s.Log.Publish(round, asked, s.Quorum, refreshEvery)
		cancel()
		if ctx.Err() != nil {
			return
		}
		var wrong []string
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		for _, w := range asked {
			if err := w.Failed(); err != nil {
				wrong = append(wrong, err.Error())
			}
		}
		said = s.tell(said, wrong)
		s.mu.Lock()
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
		wait := refreshEvery
		if len(wrong) > 0 {
			wait = retryEvery
		}
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-again.C:
		case <-s.wake:
			again.Stop()
			select { // others may come
			case <-ctx.Done():
				return
			case <-time.After(publishEvery):
			}
		}
	}
}

// tell reports what is wrong and was not before, and what is over.
func (s *Server) tell(before map[string]bool, wrong []string) map[string]bool {
	now := map[string]bool{}
	for _, w := range wrong {
		if now[w] = true; !before[w] {
			s.Report(w)
		}
	}
	if len(wrong) == 0 && len(before) > 0 {
		s.Report("the disk and all witnesses answer again")
	}
	return now
}

// failed reports what a request ran into; the same once a minute.
func (s *Server) failed(text string) {
	s.mu.Lock()
	again := text == s.last && time.Since(s.lastAt) < time.Minute
	if !again {
		s.last, s.lastAt = text, time.Now()
	}
	s.mu.Unlock()
	if !again {
		s.Report(text)
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /checkpoint", func(rw http.ResponseWriter, r *http.Request) {
		text := s.Log.Checkpoint()
		if text == nil {
			rw.Header().Set("Retry-After", "5")
			http.Error(rw, "no checkpoint has enough cosignatures yet", http.StatusServiceUnavailable)
			return
		}
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		rw.Header().Set("Cache-Control", "max-age=1")
		rw.Write(text)
	})
	mux.HandleFunc("GET /tile/{path...}", func(rw http.ResponseWriter, r *http.Request) {
		data, err := s.Log.Tile(strings.TrimPrefix(r.URL.Path, "/"))
		var disk *fs.PathError
		switch {
		case errors.As(err, &disk):
			s.failed("reading a tile: " + err.Error())
			http.Error(rw, "the tile cannot be read", http.StatusInternalServerError)
		case err != nil:
			http.NotFound(rw, r)
		default:
			rw.Header().Set("Content-Type", "application/octet-stream")
			rw.Header().Set("Cache-Control", "max-age=604800, immutable")
			rw.Write(data)
		}
	})
	mux.HandleFunc("POST /add", s.add)
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(rw, "A transparency log (c2sp.org/tlog-tiles) of SHA-256 hashes.\nlog %s\n", s.Log.VKey())
	})
	return mux
}

// add logs the 32 bytes of the body. It answers with a proof as soon as the
// published checkpoint holds them, else, after a while, with the index.
func (s *Server) add(rw http.ResponseWriter, r *http.Request) {
	if !s.allowed(r.RemoteAddr, time.Now()) {
		rw.Header().Set("Retry-After", "10")
		http.Error(rw, "too many entries from this network", http.StatusTooManyRequests)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, tlog.EntrySize+1))
	if err != nil || len(body) != tlog.EntrySize {
		http.Error(rw, fmt.Sprintf("an entry is %d bytes, a SHA-256", tlog.EntrySize), http.StatusBadRequest)
		return
	}
	e := tlog.Entry(body)
	s.mu.Lock()
	news := s.news
	s.mu.Unlock()
	_, err = s.Log.Add(r.Context(), e)
	switch {
	case errors.Is(err, ErrBusy):
		rw.Header().Set("Retry-After", "10")
		http.Error(rw, "too many entries are waiting", http.StatusServiceUnavailable)
		return
	case r.Context().Err() != nil:
		return
	case err != nil:
		s.failed("adding an entry: " + err.Error())
		http.Error(rw, "the log cannot write now", http.StatusServiceUnavailable)
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	end := time.NewTimer(addWait)
	defer end.Stop()
	for {
		proof, index, err := s.Log.Proof(e)
		if err == nil {
			rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
			rw.Write(proof)
			return
		}
		if !errors.Is(err, ErrNotYet) {
			s.failed(err.Error())
			http.Error(rw, "the log cannot prove it now", http.StatusServiceUnavailable)
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		case <-end.C:
			rw.Header().Set("Retry-After", "10")
			rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
			rw.WriteHeader(http.StatusAccepted)
			fmt.Fprintf(rw, "index %d\n", index)
			return
		}
		s.mu.Lock()
		news = s.news
		s.mu.Unlock()
	}
}

// allowed says whether a client's network, /24 or /48, may add an entry.
func (s *Server) allowed(remote string, now time.Time) bool {
	if s.Rate <= 0 {
		return true
	}
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	bits := 24
	addr := at.Addr().Unmap()
	if addr.Is6() {
		bits = 48
	}
	network, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	most := max(1, 4*s.Rate)
	b := s.rates[network]
	if b == nil {
		if len(s.rates) >= maxClients && now.Sub(s.swept) >= time.Second { // those that are full again are as good as unknown
			s.swept = now
			for n, b := range s.rates {
				if b.tokens+now.Sub(b.last).Seconds()*s.Rate >= most {
					delete(s.rates, n)
				}
			}
		}
		if len(s.rates) >= maxClients {
			return false
		}
		b = &bucket{tokens: most, last: now}
		s.rates[network] = b
	}
	b.tokens, b.last = min(most, b.tokens+now.Sub(b.last).Seconds()*s.Rate), now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
